"""A Vault token of its own for one piece of work: from a token role, revoked when the work ends.

It is created with the first read, so work that needs no secret costs Vault nothing. A process
that is killed leaves it to its time to live.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from hvac.exceptions import UnexpectedError, VaultError  # type: ignore[import-untyped]  # hvac ships no types, and no stubs exist
from pydantic import SecretStr

from trilogue.errors import TrilogueError
from trilogue.secrets.faults import creation_fault, reading_fault, root_role
from trilogue.secrets.vault import Reader, Vault

logger = logging.getLogger(__name__)


@asynccontextmanager
async def reader_for(vault: Vault, *, seconds: float, meta: Mapping[str, str]) -> AsyncIterator[Reader]:
    """Who reads for one piece of work: a `RoleToken` where a token role is set, else the login's own token.

    Args:
        seconds: how long the work may last; then the token ends, whatever became of its reader.
        meta: what Vault's audit log shows of the token.
    """
    role = vault.access.token_role
    if role is None:
        yield vault
        return
    async with RoleToken(vault, role, seconds=seconds, meta=meta) as token:
        yield token


class RoleToken:
    """A `Reader` with a token of the role `role` that nobody can renew and that has no default policy."""

    def __init__(self, vault: Vault, role: str, *, seconds: float, meta: Mapping[str, str]) -> None:
        self._vault = vault
        self._role = role
        self._seconds = math.ceil(seconds)
        self._meta = dict(meta)
        self._used = False
        # Only in Vault's thread:
        self._client: Any = None
        self._ends = 0.0

    def __repr__(self) -> str:
        return f"RoleToken({self._role!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._used:
            await self._vault.done(self._revoke)

    async def read(self, path: str, field: str) -> SecretStr:
        """As `Reader.read`."""
        self._used = True
        where = self._vault.where(path)
        return await self._vault.answer(lambda: self._read(path, field), where)

    def _read(self, path: str, field: str) -> SecretStr | TrilogueError:
        if self._client is None and (refusal := self._create()):
            return refusal
        try:
            answer = self._vault.version_of(self._client, path)
        except (VaultError, OSError) as error:  # requests' errors are OSErrors
            return reading_fault(error, self._vault.access, self._vault.where(path), role=self._role)
        return self._vault.field_of(path, field, answer)

    def _create(self) -> TrilogueError | None:
        lasts = f"{self._seconds}s"
        began = time.monotonic()
        try:
            granted = self._vault.logged_in(
                lambda client: client.auth.token.create(
                    role_name=self._role,
                    ttl=lasts,
                    # Without it a role's period would count. Batch tokens, which cannot be revoked, have none.
                    explicit_max_ttl=lasts,
                    renewable=False,
                    no_default_policy=True,
                    display_name="trilogue",
                    meta=self._meta,
                )
            )
        except (VaultError, OSError) as error:
            return creation_fault(error, self._vault.access, self._role)
        auth = granted.get("auth") if isinstance(granted, dict) else None
        if auth is None:  # something else than Vault answers here
            return creation_fault(UnexpectedError(), self._vault.access, self._role)
        self._client = self._vault.client_of(auth["client_token"])
        self._ends = began + auth["lease_duration"]
        if "root" in auth["policies"]:
            self._revoke()
            return root_role(self._vault.access, self._role)
        return None

    def _revoke(self) -> None:
        client, self._client = self._client, None
        if client is None or time.monotonic() > self._ends:
            return
        try:
            client.auth.token.revoke_self()
        except (VaultError, OSError) as error:
            logger.warning(
                "a Vault token of role %r was not revoked (%s) and lives for up to %.0f s more: check that Vault is up"
                " and that the role's policy allows `update` on 'auth/token/revoke-self'",
                self._role,
                type(error).__name__,
                self._ends - time.monotonic(),
            )
