"""Redis as the rest of Trilogue sees it: one object per process, made of plain values.

It may be lost at any moment. Nothing here waits for it, except `ping`, which asks for it.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from trilogue.entry import Entry
from trilogue.live.board import read_board, read_turns
from trilogue.live.breaker import Breaker
from trilogue.live.breaker_state import BreakerState, BreakerStates
from trilogue.live.bus import Bus, Subscription
from trilogue.live.connection import FAULTS, connect, unavailable
from trilogue.live.expiring import shorten
from trilogue.live.follow import POLL, Read, follow
from trilogue.live.notice import Delta
from trilogue.live.poster import Backfill, Poster


class Live:
    """The poster, the bus and the board over one client. Use as an async context manager."""

    def __init__(self, url: str, *, board_ttl: float, backfill: Backfill, password: SecretStr | None = None) -> None:
        """
        Args:
            url: of Redis, Valkey or Dragonfly; `password` is used where it holds none.
            board_ttl: seconds that a pipeline's keys outlive its last entry.
            backfill: reads from the ledger what Redis lacks.

        Raises:
            Invalid: the URL cannot be used.
        """
        self._client = connect(url, password=password)
        self._bus = Bus(self._client)
        self._breaker_states = BreakerStates(self._client)
        self._open = AsyncExitStack()
        self.poster = Poster(self._client, board_ttl=board_ttl, backfill=backfill)

    async def __aenter__(self) -> Self:
        self._open.push_async_callback(self._client.aclose)
        await self._open.enter_async_context(self._bus)
        await self._open.enter_async_context(self.poster)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def ping(self) -> None:
        """Raise `Unavailable` unless the server answers."""
        try:
            await self._client.ping()
        except FAULTS as error:
            raise unavailable(self._client, error) from error

    def breaker(self, endpoint: str, *, failures: int, open_seconds: float, trial_seconds: float) -> Breaker:
        """The circuit breaker of a model endpoint, shared by all workers."""
        return Breaker(
            self._client,
            endpoint=endpoint,
            threshold=failures,
            open_seconds=open_seconds,
            trial_seconds=trial_seconds,
        )

    async def breakers(
        self, endpoints: Collection[str], *, failures: int, open_seconds: float
    ) -> Mapping[str, BreakerState | None]:
        """How the breakers of model endpoints stand, by endpoint, without changing them; None while nobody can tell.

        Args:
            failures, open_seconds: those that `breaker` is given.
        """
        return await self._breaker_states.read(endpoints, threshold=failures, open_seconds=open_seconds)

    def subscribe(self, tenant: str, pipeline_id: str | None = None) -> AbstractAsyncContextManager[Subscription]:
        """Notices of one pipeline, or of all of a tenant (`trilogue.live.bus`)."""
        return self._bus.subscribe(tenant, pipeline_id)

    def follow(
        self, tenant: str, pipeline_id: str, read: Read, *, after: int = 0, poll: float = POLL
    ) -> AsyncGenerator[Entry | Delta]:
        """Every entry after `after`, then on as they are committed (`trilogue.live.follow`)."""
        return follow(
            self._bus.subscribe(tenant, pipeline_id),
            read,
            after=after,
            poll=poll,
            running=lambda: read_turns(self._client, tenant, pipeline_id),
        )

    async def read_board(self, tenant: str, pipeline_id: str) -> dict[str, dict[str, Any]] | None:
        """The board's hashes by name; None where Redis has none or is away: fold the entries instead."""
        return await read_board(self._client, tenant, pipeline_id)

    async def expire_boards(self, pipelines: Sequence[tuple[str, str]], *, ttl: float) -> int:
        """Let the boards of `pipelines` live for at most `ttl` seconds more (`trilogue.live.expiring`)."""
        return await shorten(self._client, pipelines, ttl=ttl)
