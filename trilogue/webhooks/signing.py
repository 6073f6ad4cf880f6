"""Signatures by the Standard Webhooks specification, so that receivers verify them with a library.

`webhook-signature` holds `v1,base64(hmac_sha256(secret, "id.timestamp.body"))`, one for each
secret that is in use: while one replaces another, receivers may know either.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from trilogue.clock import SECOND, Micros
from trilogue.errors import Invalid

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes, as the specification has it
_HOW = 'make one with `echo "whsec_$(openssl rand -base64 32)"`'


def read_secrets(given: SecretStr | None, *, where: str = "TRILOGUE_WEBHOOK_SECRET") -> tuple[bytes, ...]:
    """The secrets in `given`: one, or several with spaces between them; none where nothing is given.

    Raises:
        Invalid: one of them is not base64 of 24 to 64 bytes; it is not shown.
    """
    words = given.get_secret_value().split() if given else []
    return tuple(_secret(word, where) for word in words)


def _secret(word: str, where: str) -> bytes:
    try:
        secret = base64.b64decode(word.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not _SHORTEST <= len(secret) <= _LONGEST:
        raise Invalid(
            f"{where} must be `{_PREFIX}` and the base64 of {_SHORTEST} to {_LONGEST} random bytes"
            f" (several with spaces between them): {_HOW}",
            code="bad_webhook_secret",
        ) from None
    return secret


def no_secret(where: str = "TRILOGUE_WEBHOOK_SECRET") -> Invalid:
    """Nothing is sent that its receiver could not tell from a forgery."""
    return Invalid(f"a webhook needs {where} to be signed with: {_HOW}", code="no_webhook_secret")


def signed(secrets: Sequence[bytes], webhook_id: str, at: Micros, body: bytes) -> dict[str, str]:
    """The three headers of a try that is made at `at`."""
    timestamp = str(at // SECOND)
    content = b".".join((webhook_id.encode(), timestamp.encode(), body))
    signatures = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures),
    }
