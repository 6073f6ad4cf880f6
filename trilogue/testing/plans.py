"""What a test server does with a request: answer, or go wrong in one of the ways real endpoints do.

A plan is a sequence of steps, one for each chat request in the order of their arrival (after
the last one: `Ok()`), or a function that chooses the step for any request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ok:
    """Answer.

    Attributes:
        text: what the model says, whatever it is; the brain's words when `None`.
        pause: seconds before each piece of a streamed answer: slow, but it comes.
        model: who answers; the one asked for when `None`.
        usage: instead of what the server would count; `None` in it leaves a field out.
        refusal: the model's words when it refuses; the text is then empty.
        streams: with `False` a whole answer also where a stream was asked for.
    """

    text: str | None = None
    pause: float = 0.0
    model: str | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None
    streams: bool = True


@dataclass(frozen=True, kw_only=True)
class Status:
    """An HTTP error, with OpenRouter's error body."""

    code: int
    message: str = "something went wrong"
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ErrorInBody:
    """Status 200, and an error where the answer should be."""

    code: int | str
    message: str = "something went wrong upstream"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ErrorInStream:
    """An error event after so many pieces of a streamed answer."""

    code: int | str
    message: str = "the provider disconnected"
    after: int = 2


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Cut the connection after so many pieces of the answer; `None`: before the status line."""

    after: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Say nothing for so many seconds, then answer."""

    seconds: float = 3600.0


@dataclass(frozen=True, kw_only=True)
class Trickle:
    """Send sign after sign of life, with so many seconds between them, and never an answer."""

    pause: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Status 200 and exactly this body: no JSON, JSON of the wrong shape, a stream of nonsense."""

    body: bytes
    content_type: str = "application/json"


Step = Ok | Status | ErrorInBody | ErrorInStream | Drop | Hang | Trickle | Raw


@dataclass(kw_only=True)
class Seen:
    """A request as the server saw it; never holds the key.

    Attributes:
        number: 0, 1, 2, … among the requests for the same path.
        path: such as `/chat/completions`.
        headers: lowercase names, without `authorization`.
        body: the JSON sent; empty for a GET.
        key: whether the request came with the server's key, another one, or none.
        began, ended: seconds on the monotonic clock; `ended` is `None` while it is served.
        gone: the client went away before the end.
    """

    number: int
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    key: str
    began: float
    ended: float | None = None
    gone: bool = False

    @property
    def model(self) -> str | None:
        return self.body.get("model")

    @property
    def structure(self) -> str | None:
        """The type of `response_format` asked for."""
        response_format = self.body.get("response_format")
        return response_format.get("type") if isinstance(response_format, Mapping) else None


Plan = Sequence[Step] | Callable[[Seen], Step]


def always(step: Step) -> Plan:
    """The plan to take `step` with every request."""
    return lambda _: step


def step_for(plan: Plan, seen: Seen) -> Step:
    """What `plan` says about `seen`."""
    if callable(plan):
        return plan(seen)
    if seen.path == "/chat/completions" and seen.number < len(plan):
        return plan[seen.number]
    return Ok()
