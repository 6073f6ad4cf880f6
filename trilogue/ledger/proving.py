"""The proof side of the ledger: anchors, verifying, bundles. `Ledger.proof` has it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import IO, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from trilogue.clock import seconds
from trilogue.errors import TrilogueError
from trilogue.ledger import anchors, exporting, verifying
from trilogue.ledger.anchors import AnchorDraft, AnchorKeyRow, Signed
from trilogue.ledger.faults import translate
from trilogue.ledger.verifying import Outside, Progress, Verdict
from trilogue.ledger.writer import Writer
from trilogue.proof.anchors import Anchor, Keys

T = TypeVar("T")


class _Read(Protocol):
    def __call__(self, query: Callable[[Connection], T], /) -> Awaitable[T]: ...


class Proof:
    """What is anchored and what can be proved of one ledger."""

    def __init__(self, *, read: _Read, writer: Writer, reading: Engine, readers: Executor, address: str) -> None:
        self._read, self._writer = read, writer
        self._reading, self._readers, self._address = reading, readers, address

    async def due(self, *, every_seconds: float) -> list[str]:
        """The tenants for whom there may be something to anchor: what ended, and, each so often, what has not."""
        return await self._read(lambda c: anchors.select_due_tenants(c, every=seconds(every_seconds)))

    async def draft(self, tenant: str, *, every_seconds: float, limit: int) -> AnchorDraft | None:
        """The next anchor of a tenant, with at most `limit` heads; None where nothing changed."""
        return await self._read(lambda c: anchors.draft(c, tenant, every=seconds(every_seconds), limit=limit))

    async def append(self, drafted: AnchorDraft, signed: Signed) -> Anchor | None:
        """Put a signed draft at the end of its chain; None where somebody else was quicker: draft anew."""
        return await self._writer.write(lambda c: anchors.append(c, drafted, signed))

    async def chains(self) -> dict[str, int]:
        """The last anchor's `seq` of each tenant that has one."""
        return await self._read(anchors.select_chains)

    async def anchors(self, tenant: str, *, after: int = 0, limit: int = 100) -> list[Anchor]:
        """Anchors with a `seq` above `after`, in order."""
        return await self._read(lambda c: anchors.select_anchors(c, tenant, after=after, limit=limit))

    async def keys(self, tenant: str | None) -> list[AnchorKeyRow]:
        """The keys that signed anchors, of a tenant or of all."""
        return await self._read(lambda c: anchors.select_keys(c, tenant))

    async def claim_sending(self, *, hold_seconds: float) -> dict[str, int]:
        """Take the tenants whose anchors are to be sent outside, for so long; how far each one's were sent."""
        if not await self._read(anchors.any_to_send):
            return {}  # without a writer's lock, each time
        return await self._writer.write(lambda c: anchors.claim_sending(c, hold=seconds(hold_seconds)))

    async def settle_sending(self, tenant: str, sent_seq: int, *, again_in: float) -> None:
        """Note how far a tenant's anchors were sent outside, and when to go on."""
        await self._writer.write(lambda c: anchors.settle_sending(c, tenant, sent_seq, again_in=seconds(again_in)))

    async def verify(
        self,
        *,
        tenant: str | None = None,
        pipeline_id: str | None = None,
        keys: Keys | None = None,
        outside: Outside | None = None,
        progress: Progress = lambda _: None,
    ) -> Verdict:
        """Look at the whole record (`ledger.verifying`); `progress` is called in another thread."""

        def work(check: Callable[[], None]) -> Verdict:
            def counted(count: int) -> None:
                check()
                progress(count)

            return verifying.verify(
                self._reading, tenant=tenant, pipeline_id=pipeline_id, keys=keys, outside=outside, progress=counted
            )

        return await self._at_length(work)

    async def export(self, tenant: str, pipeline_id: str, out: IO[bytes]) -> int:
        """Write a pipeline's bundle (`trilogue.proof.bundle`) to `out`; returns how many entries it has."""
        return await self._at_length(lambda _: exporting.export(self._reading, tenant, pipeline_id, out))

    async def _at_length(self, work: Callable[[Callable[[], None]], T]) -> T:
        """Do it in a thread; when the caller is cancelled it breaks off at the next look."""
        given_up = threading.Event()

        def check() -> None:
            if given_up.is_set():
                raise asyncio.CancelledError

        def translated() -> T:
            try:
                return work(check)
            except (TrilogueError, OSError):
                raise
            except Exception as error:
                raise translate(error, self._address) from error

        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, translated)
        finally:
            given_up.set()
