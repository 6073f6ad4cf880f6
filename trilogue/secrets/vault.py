"""Reading one field of one secret from Vault (KV v2), or a clear error that never holds a secret.

Others need not know `hvac`, how AppRole logs in, or what a sealed Vault answers. What runs
in the thread returns its errors instead of raising them: the traceback of what `Vault`
raises then has no frame in which a token or another field's value is a local variable.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import hvac  # type: ignore[import-untyped]  # ships no types, and no stubs exist
from hvac.exceptions import (  # type: ignore[import-untyped]
    Forbidden,
    InvalidPath,
    InvalidRequest,
    Unauthorized,
    UnexpectedError,
    VaultDown,
    VaultError,
)
from pydantic import SecretStr
from requests.exceptions import RequestException, SSLError

from trilogue.errors import Denied, Invalid, NotFound, TrilogueError, Unavailable
from trilogue.settings import Settings

OPENROUTER_KEY = ("api-keys/openrouter", "api_key")
DRAGONFLY_PASSWORD = ("services/dragonfly", "password")
"""Path below the mount, and field (DESIGN section 10)."""

TIMEOUT = 5.0
"""Seconds that a read may take, its login included. Vault answers in milliseconds; secrets are
read before agents act, so a hanging Vault must be known quickly."""

_REFUSED = (Forbidden, Unauthorized, InvalidRequest)  # 400 is Vault's answer to a wrong role or secret id


@dataclass(frozen=True, kw_only=True)
class VaultAccess:
    """Where Vault is and how to log in: with `token`, or with `role_id` and `secret_id` (AppRole).

    Attributes:
        mount: where the KV v2 engine is mounted.
        verify: whether TLS certificates are verified, or the path of the CA's PEM file to verify with.

    Raises:
        Invalid: address or credentials that cannot be right.
    """

    address: str
    token: SecretStr | None = None
    role_id: str | None = None
    secret_id: SecretStr | None = None
    mount: str = "secret"
    namespace: str | None = None
    verify: bool | str = True

    def __post_init__(self) -> None:
        _check_address(self.address)
        if self.token is None and not (self.role_id and self.secret_id):
            raise Invalid(
                f"Vault at {self.address!r} needs credentials: set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID"
                " (in a vault-secrets block: token, or role id and secret id)",
                code="vault_credentials",
            )
        if self.token is not None and not _fits_a_header(self.token.get_secret_value()):
            raise Invalid(
                f"the token for Vault at {self.address!r} is empty or holds characters that no token has,"
                " such as a line break: set VAULT_TOKEN (or the block's token) to the token alone",
                code="vault_credentials",
            )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """What the settings say, or None where no address is set. A token comes before an AppRole."""
        if settings.vault_addr is None:
            return None
        token = settings.vault_token
        return cls(
            address=settings.vault_addr,
            token=token,
            role_id=None if token else settings.vault_role_id,
            secret_id=None if token else settings.vault_secret_id,
            mount=settings.vault_mount,
            namespace=settings.vault_namespace,
            verify=(settings.vault_cacert or True) if settings.vault_verify else False,
        )


class Vault:
    """A client of one Vault; use it as `async with Vault(access) as vault`. It never retries."""

    def __init__(self, access: VaultAccess) -> None:
        self._access = access
        self._lock = threading.Lock()  # a requests session is not made for several threads
        # An empty token, since None would make hvac look into the environment and ~/.vault-token.
        self._client: Any = hvac.Client(
            url=access.address,
            token=access.token.get_secret_value() if access.token else "",
            verify=access.verify,
            timeout=TIMEOUT,
            namespace=access.namespace,
        )

    def __repr__(self) -> str:
        return f"Vault({self._access.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.adapter.close()

    async def read(self, path: str, field: str) -> SecretStr:
        """The value of `field` in the secret at `path` below the mount, such as `api-keys/openrouter`.

        Raises:
            Unavailable: `vault_sealed` or `vault_unreachable` (down, silent for `TIMEOUT` seconds, TLS).
            Denied: `vault_forbidden`: token, AppRole or policy do not allow it.
            NotFound: `vault_path_missing` or `vault_field_missing` (also for an empty value or one that is no text).
        """
        where = f"{self._access.mount}/data/{path}"
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await asyncio.to_thread(self._look_up, path, field, where)
        except TimeoutError:
            found = self._unreachable(where, f"no answer within {TIMEOUT:g} s")
        if isinstance(found, TrilogueError):
            raise found
        return found

    def _look_up(self, path: str, field: str, where: str) -> SecretStr | TrilogueError:
        try:
            with self._lock:
                answer = self._logged_in(lambda: self._read_version(path))
        except (VaultError, OSError) as error:  # requests' errors are OSErrors, as is a CA file that is not there
            return self._explained(error, where)
        fields = _fields(answer)
        if fields is None:
            return self._missing(where)
        value = fields.get(field)
        if isinstance(value, str) and value:
            return SecretStr(value)
        known = ", ".join(sorted(fields)) or "none"
        return NotFound(
            f"the secret {where!r} in Vault at {self._access.address!r} has no text in field {field!r}"
            f" (its fields: {known}): write it with `vault kv patch`",
            code="vault_field_missing",
        )

    def _logged_in(self, question: Callable[[], object]) -> object:
        if self._access.token is not None:
            return question()
        fresh = not self._client.token
        if fresh:
            self._log_in()
        try:
            return question()
        except Forbidden:
            if fresh:
                raise
        # The token of an earlier login ends after its time or its number of uses.
        self._log_in()
        return question()

    def _log_in(self) -> None:
        assert self._access.secret_id is not None
        answer = self._client.auth.approle.login(
            self._access.role_id, self._access.secret_id.get_secret_value(), use_token=False
        )
        if not isinstance(answer, dict):
            raise UnexpectedError
        self._client.token = answer["auth"]["client_token"]

    def _read_version(self, path: str) -> object:
        answer = self._client.secrets.kv.v2.read_secret_version(
            path, mount_point=self._access.mount, raise_on_deleted_version=True
        )
        if not isinstance(answer, dict):
            raise UnexpectedError
        return answer

    def _explained(self, error: VaultError | OSError, where: str) -> TrilogueError:
        address = self._access.address
        match error:
            case InvalidPath():
                return self._missing(where)
            case VaultDown(errors=[*answers]) if any("sealed" in answer for answer in answers):
                return Unavailable(
                    f"Vault at {address!r} is sealed, so {where!r} cannot be read: unseal it", code="vault_sealed"
                )
            case error if isinstance(error, _REFUSED):
                login = "token" if self._access.token else "AppRole"
                return Denied(
                    f"Vault at {address!r} refused to let this {login} read {where!r}: check that the {login}"
                    f" is still valid and that its policy allows `read` on {where!r}",
                    code="vault_forbidden",
                )
            case SSLError():
                return self._unreachable(
                    where, "TLS failed; set VAULT_CACERT (in the block: CA file) to the CA's certificate"
                )
            case VaultError() | RequestException():
                return self._unreachable(where, type(error).__name__)
            case _:
                return self._unreachable(where, f"the CA file {self._access.verify!r} cannot be read")

    def _missing(self, where: str) -> NotFound:
        namespace = f" in namespace {self._access.namespace!r}" if self._access.namespace else ""
        return NotFound(
            f"Vault at {self._access.address!r} has no secret {where!r}{namespace}: write it with `vault kv put`,"
            f" or check that {self._access.mount!r} is the mount of a KV v2 engine",
            code="vault_path_missing",
        )

    def _unreachable(self, where: str, reason: str) -> Unavailable:
        return Unavailable(
            f"Vault at {self._access.address!r} could not be asked for {where!r} ({reason}):"
            " check that VAULT_ADDR (or the block's address) is right and that Vault is up",
            code="vault_unreachable",
        )


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = None, False
    if parts is not None and parts.password is not None:
        raise Invalid("Vault's address may hold no password: give a token or an AppRole", code="vault_address")
    if not usable:
        raise Invalid(
            f"Vault's address must be such as 'https://vault.example:8200', not {address!r}", code="vault_address"
        )


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and bool(token) and " " not in token


def _fields(answer: object) -> dict[str, Any] | None:
    """The secret's fields in an answer of KV v2; None when another engine answered."""
    outer = answer.get("data") if isinstance(answer, dict) else None
    inner = outer.get("data") if isinstance(outer, dict) else None
    return inner if isinstance(inner, dict) else None
