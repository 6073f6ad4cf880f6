"""Subscriptions to notices: one connection per process, shared by all who listen.

Notices may be lost at any moment, so a subscription also says how far it can be trusted
(`Signal`); it begins with one, and never makes its reader wait for Redis.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from trilogue.live import keys
from trilogue.live.connection import FAULTS, new_connection, pause, unavailable
from trilogue.live.ending import end
from trilogue.live.notice import Notice, Signal, parse

logger = logging.getLogger(__name__)

NOTICES_HELD = 1024
CHARACTERS_HELD = 4_000_000
"""What one slow reader may make us hold, whichever comes first."""

HEARTBEAT = 1.0
"""Seconds between signs of life on an idle connection; two without an answer and it counts as lost."""


class Subscription:
    """An endless iterator of notices and signals, for one reader."""

    def __init__(self) -> None:
        self._items: deque[tuple[Notice | Signal, int]] = deque()
        self._characters = 0
        self._filled = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice | Signal:
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        item, size = self._items.popleft()
        self._characters -= size
        return item

    def deliver(self, notice: Notice, size: int) -> None:
        """Hold `notice`, made of `size` characters, for the reader; too many, and all give way to LAGGED."""
        if len(self._items) >= NOTICES_HELD or self._characters + size > CHARACTERS_HELD:
            self.signal(Signal.LAGGED)
            return
        self._items.append((notice, size))
        self._characters += size
        self._filled.set()

    def signal(self, signal: Signal) -> None:
        """Put `signal` in the place of whatever was waiting; the reader will look into the ledger."""
        # While LOST or RESUMED waits, LAGGED would tell the reader less than it has yet to learn.
        waiting = self._items[0][0] if self._items else None
        if signal is Signal.LAGGED and isinstance(waiting, Signal):
            signal = waiting
        self._items.clear()
        self._items.append((signal, 0))
        self._characters = 0
        self._filled.set()


class Bus:
    """Listens on the channels that somebody wants, through outages. Use as an async context manager."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._readers: dict[str, set[Subscription]] = {}
        self._acknowledged: set[str] = set()
        self._changed = asyncio.Event()
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task:
            await end(self._task)
            self._task = None
        self._lose()

    @contextlib.asynccontextmanager
    async def subscribe(self, tenant: str, pipeline_id: str | None = None) -> AsyncIterator[Subscription]:
        """Listen to one pipeline of `tenant`, or to all of them. Enters at once, whatever Redis does."""
        channel = keys.of_pipeline(tenant, pipeline_id).channel if pipeline_id else keys.of_tenant(tenant)
        subscription = Subscription()
        subscription.signal(Signal.RESUMED if channel in self._acknowledged else Signal.LOST)
        self._readers.setdefault(channel, set()).add(subscription)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="bus")
        try:
            yield subscription
        finally:
            readers = self._readers[channel]
            readers.discard(subscription)
            if not readers:
                del self._readers[channel]
                self._changed.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._converse()
            except* FAULTS as faults:
                if not self._failures:
                    logger.warning("no notices: %s", unavailable(self._client, _first(faults)))
            self._lose()
            await asyncio.sleep(pause(self._failures))
            self._failures += 1

    def _lose(self) -> None:
        self._acknowledged.clear()
        for readers in self._readers.values():
            for subscription in readers:
                subscription.signal(Signal.LOST)

    async def _converse(self) -> None:
        # A connection outside the pool: subscriptions hold it for ever, and redis-py's PubSub
        # would reconnect by itself without telling that notices were missed.
        connection = new_connection(self._client)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py
            # From here on silence is `_listen`'s to judge; without it, sending also takes no
            # cancellation for its own (`ending`), which would keep the group waiting for ever.
            connection.socket_timeout = None
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(connection))
                tasks.create_task(self._speak(connection))
        finally:
            await connection.disconnect()

    async def _speak(self, connection: AbstractConnection) -> None:
        asked: set[str] = set()
        while True:
            self._changed.clear()
            wanted = {keys.BUS, *self._readers}
            if dropped := asked - wanted:
                self._acknowledged -= dropped
                await connection.send_command("UNSUBSCRIBE", *dropped)
            if added := wanted - asked:
                await connection.send_command("SUBSCRIBE", *added)
            asked = wanted
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._changed.wait()
            except TimeoutError:
                await connection.send_command("PING")

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            match await connection.read_response(timeout=2 * HEARTBEAT, disconnect_on_error=False):
                case None:
                    raise exceptions.TimeoutError("no sign of life")
                case ["message", channel, message]:
                    self._deliver(channel, message)
                case ["subscribe", channel, _]:
                    self._failures = 0
                    self._acknowledged.add(channel)
                    for subscription in self._readers.get(channel, ()):
                        subscription.signal(Signal.RESUMED)

    def _deliver(self, channel: str, message: str) -> None:
        readers = self._readers.get(channel, ())
        notice = parse(message) if readers else None
        for subscription in readers:
            if notice:
                subscription.deliver(notice, len(message))
            else:
                # Unreadable: perhaps from a newer version. The ledger has what it was about.
                subscription.signal(Signal.LAGGED)


def _first(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    fault: BaseException = faults
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault
