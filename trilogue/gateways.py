"""Which gateway answers for a piece of work, and with which key.

Each piece of work reads the OpenRouter key once, with a Vault token of its own where a token role is
set, so that a rotated key reaches the next attempt. Gateways are shared by all work of this process
that has the same key.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from pydantic import SecretStr

from trilogue.board import Board
from trilogue.errors import Invalid, NotFound
from trilogue.live import Live
from trilogue.models.endpoint import Endpoint, Mode
from trilogue.models.gateway import Gateway
from trilogue.models.modes import endpoint
from trilogue.models.rehearsal.transport import rehearsal_client
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.role_token import reader_for
from trilogue.secrets.vault import OPENROUTER_KEY, Reader, Vault
from trilogue.settings import Settings

OpenGateway = Callable[[str, bool], Awaitable[Gateway]]
"""Opens the gateway of a mode (`mode`, `rehearsal`), or gives the one that is open."""

REHEARSAL_RETRY_WAIT = 0.05
"""Seconds: a rehearsed fault passes at once."""

AROUND = 60.0
"""Seconds that an attempt may need besides its phases' own time: probing, a slow ledger, its end."""

_NOT_KEPT = {"vault_path_missing", "vault_field_missing"}
"""Vault holds no key. Whatever else is wrong with it is an error, also where the environment has one."""


def attempt_seconds(board: Board) -> float:
    """How long an attempt may last that begins on `board`: RUN and a round, or what is left of them, and `AROUND`."""
    if board.round:
        return board.round.timeout + AROUND
    return float(board.spec["agent_timeout"]) + float(board.spec["timeout"]) + AROUND


class Gateways:
    """The gateways of one process, and its login to Vault."""

    def __init__(self, settings: Settings, live: Live) -> None:
        self._settings = settings
        self._live = live
        self._open: dict[tuple[str, bool, str], Gateway] = {}
        self._vault: Vault | None = None

    @asynccontextmanager
    async def opening(self, *, seconds: float, meta: Mapping[str, str]) -> AsyncIterator[OpenGateway]:
        """What one piece of work opens its gateways with; on leaving, its Vault token is revoked.

        Args:
            seconds: how long the work may last.
            meta: what Vault's audit log shows of its token.

        Raises (when a gateway is opened):
            Invalid, Denied, NotFound, Unavailable: there is no key, or it cannot be read.
        """
        async with AsyncExitStack() as work:
            reading = asyncio.Lock()
            key: SecretStr | None = None

            async def open_gateway(mode: str, rehearsal: bool) -> Gateway:
                nonlocal key
                if mode != "openrouter":
                    return self.shared(mode, rehearsal)
                async with reading:
                    if key is None:
                        reader: Reader | None = None
                        if login := self._login():
                            reader = await work.enter_async_context(reader_for(login, seconds=seconds, meta=meta))
                        key = await self._openrouter_key(reader)
                return self.shared(mode, rehearsal, key)

            yield open_gateway

    def _login(self) -> Vault | None:
        if self._vault is None and (access := VaultAccess.from_settings(self._settings)):
            self._vault = Vault(access)
        return self._vault

    async def _openrouter_key(self, reader: Reader | None) -> SecretStr:
        """From Vault where it is configured and holds the key, else from the environment."""
        given = self._settings.openrouter_api_key
        if reader is not None:
            try:
                return await reader.read(*OPENROUTER_KEY)
            except NotFound as error:
                if given is None or error.code not in _NOT_KEPT:
                    raise
        if given is None:
            raise Invalid(
                "mode 'openrouter' needs a key: set OPENROUTER_API_KEY, or VAULT_ADDR with the key at "
                "secret/data/api-keys/openrouter → api_key",
                code="no_api_key",
            )
        return given

    def shared(self, mode: str, rehearsal: bool, key: SecretStr | None = None) -> Gateway:
        """The gateway of a mode and key; kept open until `close`."""
        # By digest, so that no key is a key of this dict for as long as the process lives.
        which = mode, rehearsal, hashlib.sha256(key.get_secret_value().encode()).hexdigest() if key else ""
        if which not in self._open:
            self._open[which] = self._new(mode, rehearsal, key)
        return self._open[which]

    def endpoint_of(self, mode: str, rehearsal: bool) -> str | None:
        """What the breaker of a mode's gateway goes by; None where there is none: rehearsed, or not configured here."""
        if rehearsal:
            return None
        try:
            return self._endpoint(mode, rehearsal, None).base_url
        except Invalid:
            return None

    def _endpoint(self, mode: str, rehearsal: bool, key: SecretStr | None) -> Endpoint:
        known: Mode = "openrouter" if mode == "openrouter" else "local"
        return endpoint(self._settings, mode=known, rehearsal=rehearsal, key=key)

    def _new(self, mode: str, rehearsal: bool, key: SecretStr | None) -> Gateway:
        settings = self._settings
        where = self._endpoint(mode, rehearsal, key)
        if rehearsal:
            return Gateway(
                where,
                tries=settings.call_tries,
                retry_wait=REHEARSAL_RETRY_WAIT,
                call_timeout=settings.call_timeout,
                http_client=rehearsal_client(settings.rehearsal_latency),
            )
        breaker = self._live.breaker(
            where.base_url,
            failures=settings.breaker_failures,
            open_seconds=settings.breaker_seconds,
            trial_seconds=settings.call_timeout * 1.5,
        )
        return Gateway(
            where,
            tries=settings.call_tries,
            retry_wait=settings.retry_wait,
            call_timeout=settings.call_timeout,
            guard=breaker,
        )

    async def close(self) -> None:
        """Close all gateways, and leave Vault."""
        for gateway in self._open.values():
            await gateway.close()
        if self._vault is not None:
            await self._vault.close()
