"""Secrets in Vault (KV v2): one field each, or a clear error that never holds a secret.

Others need not know `hvac`, how AppRole logs in, or what a sealed Vault answers. One thread asks a
Vault's questions, one after the other: the event loop never waits for an answer, and what is given
back comes after what was asked for, also when nobody waits for either any more.

What runs in the thread returns its errors instead of raising them: the traceback of what `Vault`
raises then has no frame in which a token or another field's value is a local variable.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import hvac  # type: ignore[import-untyped]  # ships no types, and no stubs exist
from hvac.exceptions import Forbidden, UnexpectedError, VaultError  # type: ignore[import-untyped]
from pydantic import SecretStr

from trilogue.errors import NotFound, TrilogueError
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.faults import missing, reading_fault, unreachable

OPENROUTER_KEY = ("api-keys/openrouter", "api_key")
DRAGONFLY_PASSWORD = ("services/dragonfly", "password")
"""Path below the mount, and field (DESIGN section 10)."""

TIMEOUT = 5.0
"""Seconds that a read may take, with its login and its token. Vault answers in milliseconds; secrets are
read before agents act, so a hanging Vault must be known quickly."""


R = TypeVar("R")
T = TypeVar("T")


class Reader(Protocol):
    """Whoever may read secrets."""

    async def read(self, path: str, field: str) -> SecretStr:
        """The value of `field` in the secret at `path` below the mount, such as `api-keys/openrouter`.

        Raises:
            Unavailable: `vault_sealed` or `vault_unreachable` (down, silent for `TIMEOUT` seconds, TLS).
            Denied: `vault_forbidden`: token, AppRole or policy do not allow it; `vault_role_refused` or
                `vault_role_unfit`: there is no token to read with.
            NotFound: `vault_path_missing` or `vault_field_missing` (also for an empty value or one that is no
                text); `vault_role_missing`: the token role is not there.
        """


class Vault:
    """A client of one Vault; use it as `async with Vault(access) as vault`, or `close` it. It never retries.

    Itself it reads with its login's own token; `trilogue.secrets.role_token` makes others.
    """

    def __init__(self, access: VaultAccess) -> None:
        self.access = access
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vault")
        # An empty token, since None would make hvac look into the environment and ~/.vault-token.
        self._client = self._new_client(access.token.get_secret_value() if access.token else "")

    def __repr__(self) -> str:
        return f"Vault({self.access.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give an AppRole's login back and end the connections, once all that was asked is done."""
        try:
            await self.done(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def read(self, path: str, field: str) -> SecretStr:
        """As `Reader.read`."""
        return await self.answer(lambda: self._read(path, field), self.where(path))

    def where(self, path: str) -> str:
        """A secret's whole path, as policies name it."""
        return f"{self.access.mount}/data/{path}"

    async def answer(self, question: Callable[[], T | TrilogueError], where: str) -> T:
        """What `question` returns in the thread; raises the error that it returns.

        Raises:
            Unavailable: no answer within `TIMEOUT` seconds.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await asyncio.wrap_future(self._submit(question))
        except TimeoutError:
            found = unreachable(self.access, where, f"no answer within {TIMEOUT:g} s")
        if isinstance(found, TrilogueError):
            raise found
        return found

    async def done(self, job: Callable[[], None]) -> None:
        """Have `job` done in the thread after all that was asked so far, also when the caller is cancelled.

        Waits for it, but no longer than `TIMEOUT` seconds.
        """
        doing = asyncio.wrap_future(self._submit(job))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await asyncio.shield(doing)

    def _submit(self, job: Callable[[], R]) -> Future[R]:
        # In the caller's context, or Prefect would not know whose log lines come from there.
        return self._thread.submit(copy_context().run, job)

    # Only in the thread.

    def logged_in(self, question: Callable[[Any], object]) -> object:
        """What `question` finds with a client that is logged in; raises what hvac and requests raise."""
        if self.access.token is not None:
            return question(self._client)
        fresh = not self._client.token
        if fresh:
            self._log_in()
        try:
            return question(self._client)
        except Forbidden:
            if fresh:
                raise
        # The token of an earlier login ends after its time or its number of uses.
        self._log_in()
        return question(self._client)

    def client_of(self, token: str) -> Any:
        """A client with another token, on the same connections."""
        return self._new_client(token, session=self._client.session)

    def field_of(self, path: str, field: str, answer: object) -> SecretStr | NotFound:
        """The field of a secret in KV v2's answer."""
        fields = _fields(answer)
        if fields is None:
            return missing(self.access, self.where(path))
        value = fields.get(field)
        if isinstance(value, str) and value:
            return SecretStr(value)
        known = ", ".join(sorted(fields)) or "none"
        return NotFound(
            f"the secret {self.where(path)!r} in Vault at {self.access.address!r} has no text in field {field!r}"
            f" (its fields: {known}): write it with `vault kv patch`",
            code="vault_field_missing",
        )

    def version_of(self, client: Any, path: str) -> object:
        """KV v2's answer; raises what hvac and requests raise."""
        return _checked(
            client.secrets.kv.v2.read_secret_version(path, mount_point=self.access.mount, raise_on_deleted_version=True)
        )

    def _read(self, path: str, field: str) -> SecretStr | TrilogueError:
        try:
            answer = self.logged_in(lambda client: self.version_of(client, path))
        except (VaultError, OSError) as error:  # requests' errors are OSErrors, as is a CA file that is not there
            return reading_fault(error, self.access, self.where(path), role=None)
        return self.field_of(path, field, answer)

    def _log_in(self) -> None:
        assert self.access.secret_id is not None
        answer = _checked(
            self._client.auth.approle.login(
                self.access.role_id, self.access.secret_id.get_secret_value(), use_token=False
            )
        )
        self._client.token = answer["auth"]["client_token"]

    def _close(self) -> None:
        if self.access.token is None and self._client.token:
            with contextlib.suppress(VaultError, OSError):  # not every AppRole may; its token ends by itself
                self._client.auth.token.revoke_self()
        self._client.adapter.close()

    def _new_client(self, token: str, session: Any = None) -> Any:
        access = self.access
        return hvac.Client(
            url=access.address,
            token=token,
            verify=access.verify,
            timeout=TIMEOUT,
            namespace=access.namespace,
            session=session,
        )


def _checked(answer: object) -> dict[str, Any]:
    """An answer that is Vault's own: hvac gives other servers' answers as they are."""
    if not isinstance(answer, dict):
        raise UnexpectedError
    return answer


def _fields(answer: object) -> dict[str, Any] | None:
    """The secret's fields in an answer of KV v2; None when another engine answered."""
    outer = answer.get("data") if isinstance(answer, dict) else None
    inner = outer.get("data") if isinstance(outer, dict) else None
    return inner if isinstance(inner, dict) else None
