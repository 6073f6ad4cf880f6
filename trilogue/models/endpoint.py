"""Where models are called: one address, with or without a key.

Whoever holds an `Endpoint` can print it: neither its `repr` nor its `address` holds a
credential, and an address that contains one is refused.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from trilogue.errors import Invalid

Mode = Literal["openrouter", "local"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible address.

    Attributes:
        mode: `openrouter` also speaks OpenRouter's extensions (fallback models, `/key`).
        base_url: such as `https://openrouter.ai/api/v1`; what `/chat/completions` is appended to.
        api_key: sent as bearer token; without one no `Authorization` header is sent.
        rehearsal: the built-in scripted model answers, no language model.

    Raises:
        Invalid: `base_url` is not a plain http(s) address, or no header can carry the key.
    """

    mode: Mode
    base_url: str
    api_key: SecretStr | None = None
    rehearsal: bool = False

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        object.__setattr__(self, "base_url", parts.geturl().rstrip("/"))
        key = self.key
        if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
            # Left to the HTTP client, such a key would be quoted in the error that it causes.
            raise Invalid(
                "the API key is empty or holds a character that no HTTP header can carry (a space, a line end, "
                "a non-ASCII letter); store it again without",
                code="bad_api_key",
            )

    @property
    def key(self) -> str | None:
        """The key itself, for the one place that sends it."""
        return self.api_key.get_secret_value() if self.api_key is not None else None

    @property
    def on_loopback(self) -> bool:
        """Whether the address is this machine, where no proxy must come between."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def _split(base_url: str) -> SplitResult:
    complaint = ""
    try:
        parts = urlsplit(base_url.strip())
        parts.port  # noqa: B018 - reading the property is what checks it
    except ValueError:
        complaint = "cannot be read as an address"
    else:
        if "@" in parts.netloc or parts.query or parts.fragment:
            # Not shown: what stands there may be a credential.
            raise Invalid(
                f"the model address of host {parts.hostname!r} holds credentials, a query or a fragment; "
                "give it as http(s)://host[:port]/path and the key by itself",
                code="bad_model_address",
            )
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            complaint = "is not http(s)://host[:port]/path"
    if complaint:
        raise Invalid(f"the model address {base_url!r} {complaint}", code="bad_model_address")
    return parts
