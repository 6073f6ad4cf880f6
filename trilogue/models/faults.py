"""What a failed model call means: which error, whether trying again can help, and what it says.

A status is read the same way wherever it stands: in the HTTP status line, in the body of a
200, or in an event in the middle of a stream. Messages name the address, the status and what
the server said; every text from outside passes through `Scrubber`, so none can show the key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from trilogue.errors import Denied, EndpointFault, Exhausted, Invalid, TrilogueError
from trilogue.models.question import Usage

LONGEST_SAID = 200
"""Characters of a server's message that ours repeat."""

TIMED_OUT = "endpoint_timeout"
UNREACHABLE = "endpoint_unreachable"
RATE_LIMITED = "endpoint_rate_limited"
FAILED = "endpoint_error"

_RETRYABLE_BELOW_500 = frozenset({408, 409, 429})
_NOT_RETRYABLE_ABOVE = frozenset({501, 505})
_TIMEOUT_STATUSES = frozenset({408, 504, 524})

_STATUS_OF_NAME = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded_error": 503,
    "server_error": 502,
    "timeout": 504,
    "insufficient_quota": 402,
    "insufficient_credits": 402,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "model_not_found": 404,
}
"""What servers write in `code` or `type` instead of a number."""

_KEY_LIKE = re.compile(r"\bsk-[\w*.-]{6,}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")


@dataclass(frozen=True, kw_only=True)
class Scrubber:
    """Makes text from a server fit for a message: without the key, on one line, short."""

    key: str | None

    def __call__(self, text: str, *, longest: int = LONGEST_SAID) -> str:
        if self.key:
            text = text.replace(self.key, "[key]")
        text = _UNPRINTABLE.sub(" ", _KEY_LIKE.sub("[key]", text)).strip()
        return text if len(text) <= longest else text[: longest - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a server said about its failure.

    Attributes:
        status: HTTP status or the number in the error; 502 where it gives none that is known.
        message: its own words, or what we saw.
        raw: all of it as text, to look for what it objects to.
        metadata: OpenRouter's details.
        retry_after: seconds it asks us to wait.
    """

    status: int
    message: str
    raw: str = ""
    metadata: Mapping[str, Any]
    retry_after: float | None = None


class CallFailed(Exception):
    """One HTTP call failed. Inside the gateway only; callers see `error`.

    Attributes:
        error: what the caller gets unless another try goes well.
        said: the server's failure, if it came to that.
        again: whether another try can help.
        wait: seconds the server asked for before it.
        usage: what the call consumed, as far as that can be known.
    """

    def __init__(self, error: TrilogueError, *, usage: Usage, said: Said | None = None, again: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.usage = usage
        self.said = said
        self.again = again

    @property
    def wait(self) -> float | None:
        return self.said.retry_after if self.said else None


def said_by(error: object, *, status: int | None = None, retry_after: float | None = None) -> Said:
    """Read an `error` object as OpenRouter, OpenAI, vLLM and FastAPI write it; any JSON value will do.

    Args:
        status: the HTTP status, when that is not 200.
    """
    fields: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    words = next(
        (fields[name] for name in ("message", "detail", "error") if isinstance(fields.get(name), str)), str(error)
    )
    metadata = fields.get("metadata")
    if isinstance(metadata, Mapping) and isinstance(raw := metadata.get("raw"), str):
        words = f"{words}: {raw}"  # OpenRouter's own message is often only "Provider returned error"
    return Said(
        status=status or _status_named(fields.get("code")) or _status_named(fields.get("type")) or 502,
        message=words,
        raw=str(error),
        metadata=metadata if isinstance(metadata, Mapping) else {},
        retry_after=retry_after,
    )


def _status_named(code: object) -> int | None:
    if isinstance(code, str):
        if code in _STATUS_OF_NAME:
            return _STATUS_OF_NAME[code]
        code = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else None
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def can_retry(said: Said) -> bool:
    """Whether the same call may go well later."""
    if said.status == 402:
        return said.retry_after is not None
    return said.status in _RETRYABLE_BELOW_500 or (said.status >= 500 and said.status not in _NOT_RETRYABLE_ABOVE)


def error_for(said: Said, *, address: str, model: str, scrub: Scrubber) -> TrilogueError:
    """The error that `said` amounts to."""
    what = f"{address} answered {said.status}: {scrub(said.message)!r}"
    flagged = {"reasons", "flagged_input"} & said.metadata.keys()
    if said.status == 401 or (said.status == 403 and not flagged):
        advice = "check that the API key is valid and may use this model"
        return Denied(f"{what}; {advice}", code="key_refused")
    if said.status == 403:
        return Denied(f"{what}; the provider's moderation refused the text", code="text_refused")
    if said.status == 402:
        return Exhausted(f"{what}; add credit or raise the key's limit", code="credit_spent")
    if can_retry(said):
        return EndpointFault(what, code=_fault_code(said.status))
    if 300 <= said.status < 400:
        return Invalid(f"{what}; redirects are not followed: give the final address", code="model_request_refused")
    if said.status == 404:
        return Invalid(f"{what}; check the address and the model {model!r}", code="model_request_refused")
    return Invalid(f"{what}; the request for model {model!r} is refused as it is", code="model_request_refused")


def _fault_code(status: int) -> str:
    if status == 429:
        return RATE_LIMITED
    return TIMED_OUT if status in _TIMEOUT_STATUSES else FAILED


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as an HTTP date."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value, re.ASCII):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
