"""The ledger's public face: everything asynchronous, every error ours.

Writes go through the one writer of this process, reads through a few threads of their
own. Every method takes the tenant; what another tenant owns is `NotFound`.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

from sqlalchemy import URL, Connection

from trilogue.clock import Micros, seconds
from trilogue.entry import Draft, Entry
from trilogue.errors import TrilogueError, Unavailable
from trilogue.ledger import (
    append,
    budgets,
    current,
    deliveries,
    drawing,
    idempotency,
    leases,
    listing,
    queries,
    retention,
    schema,
)
from trilogue.ledger.audit import Audit, insert_deed
from trilogue.ledger.chain import check_text
from trilogue.ledger.engine import READERS, address, parse_url, reading_engine, writing_engine
from trilogue.ledger.faults import translate
from trilogue.ledger.identities import Deed
from trilogue.ledger.keys import Keys
from trilogue.ledger.projects import Projects
from trilogue.ledger.proving import Proof
from trilogue.ledger.rows import (
    AgentRow,
    BudgetRow,
    CheckpointRow,
    Claim,
    Cost,
    DeliveryPage,
    DeliveryRow,
    DeliveryStatus,
    Fence,
    Head,
    Page,
    PipelineKey,
    PipelineRow,
    UsageRow,
)
from trilogue.ledger.standing import check_active
from trilogue.ledger.store import Store
from trilogue.ledger.tenants import Tenants
from trilogue.ledger.writer import OUTCOME_UNKNOWN, Writer
from trilogue.pipeline import Status

T = TypeVar("T")


class Ledger:
    """The record of everything, in one SQLite or PostgreSQL database; open it with `Ledger.open`."""

    def __init__(self, url: URL) -> None:
        self._address = address(url)
        self._writing = writing_engine(url)
        self._reading = reading_engine(url)
        self._writer = Writer(self._writing, address=self._address)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-read")
        self._undecided: set[PipelineKey] = set()
        store = Store(self._read, self._writer.write)
        self.audit = Audit(store)
        self.tenants = Tenants(store, self.audit)
        self.projects = Projects(store, self.audit)
        self.keys = Keys(store, self.audit)
        self.proof = Proof(
            read=self._read,
            writer=self._writer,
            reading=self._reading,
            readers=self._readers,
            address=self._address,
        )

    @classmethod
    async def open(cls, url: str, *, migrate: bool) -> Self:
        """Open the ledger at `url`.

        Args:
            migrate: bring an empty or older database up first; otherwise it is refused.

        Raises:
            Invalid: the address or the database cannot be used.
            RevisionMismatch: the database is of another version of Trilogue.
            Unavailable: the server does not answer.
        """
        await asyncio.to_thread(schema.upgrade if migrate else schema.check, url)
        return cls(parse_url(url))

    async def close(self) -> None:
        """Commit what is waiting and let go of all connections."""
        await self.keys.close()
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        self._writing.dispose()
        self._reading.dispose()

    def __repr__(self) -> str:
        return f"Ledger({self._address!r})"

    async def spawn(
        self,
        tenant: str,
        pipeline_id: str,
        drafts: Sequence[Draft],
        *,
        at: Micros,
        queued: bool = False,
        deed: Deed | None = None,
    ) -> list[Entry]:
        """Record a new pipeline: `drafts` begin with its `pipeline_spawned`; `queued`: any worker is to draw it.

        Args:
            deed: whose doing it is, for the audit; the tenant must be one under which something may begin.

        Raises:
            Conflict: code `exists` for the id, `external_id_taken` for the external id.
            NotFound, Denied: there is no such tenant, or it is suspended.
        """
        check_text("tenant", tenant)
        check_text("pipeline id", pipeline_id)
        prepared = append.prepare_all(drafts)

        def unit(connection: Connection) -> list[Entry]:
            if deed:
                check_active(connection, tenant)
            entries = append.spawn(connection, tenant, pipeline_id, prepared, at, queued=queued)
            if deed:
                insert_deed(connection, tenant, deed)
            return entries

        return await self._writer.write(unit)

    async def append(self, fence: Fence, drafts: Sequence[Draft], *, at: Micros) -> list[Entry]:
        """Append `drafts`, all or none, and return them as the entries that they became.

        Raises:
            Fenced: another attempt has taken over, or (code `stopped`) the pipeline was stopped.
            IllegalTransition: a status that may not follow.
        """
        prepared = append.prepare_all(drafts)
        try:
            return await self._writer.write(lambda c: append.append(c, fence, prepared, at))
        except Unavailable as error:
            if error.code == OUTCOME_UNKNOWN:
                self._undecided.add((fence.tenant, fence.pipeline_id))
            raise

    async def append_outside(
        self,
        tenant: str,
        pipeline_id: str,
        decide: Callable[[PipelineRow], Sequence[Draft]],
        *,
        at: Micros,
        queued: bool = False,
        begins: bool = False,
        deed: Deed | None = None,
    ) -> list[Entry]:
        """Append from outside, as stop, continue and resume do: whoever works on the pipeline is fenced off.

        Args:
            decide: a pure function from the pipeline as it is, locked, to what to append; it may
                raise. It runs in the writer's thread, at times twice. For nothing, nothing changes.
            queued: any worker is to draw the pipeline and go on with it.
            begins: work begins by it, which is `Denied` to a tenant that is suspended.
            deed: whose doing it is, for the audit.
        """

        def unit(connection: Connection) -> list[Entry]:
            if begins:
                check_active(connection, tenant)
            entries = append.append_outside(connection, tenant, pipeline_id, decide, at, queued=queued)
            if deed:
                insert_deed(connection, tenant, deed)
            return entries

        return await self._writer.write(unit)

    async def claim(
        self,
        tenant: str,
        pipeline_id: str,
        *,
        owner: str,
        lease_seconds: float,
        flow_run_id: str | None,
        expected_attempt: int | None = None,
    ) -> Claim:
        """Take the lease, under a new attempt.

        Raises:
            Conflict: it is `leased`, the pipeline has `ended`, or is at an `other_attempt` than expected.
        """
        return await self._writer.write(
            lambda c: leases.claim(
                c,
                tenant,
                pipeline_id,
                owner=owner,
                lease_seconds=lease_seconds,
                flow_run_id=flow_run_id,
                expected_attempt=expected_attempt,
            )
        )

    async def renew(self, owner: str, keys: AbstractSet[PipelineKey], *, lease_seconds: float) -> set[PipelineKey]:
        """Prolong the leases of `keys` that are still `owner`'s; returns whose they are."""
        return await self._writer.write(lambda c: leases.renew(c, owner, keys, lease_seconds=lease_seconds))

    async def release(self, fence: Fence, *, owner: str, queued: bool = False) -> None:
        """Give a lease back, `queued` for any worker to draw; does nothing where it is no longer `owner`'s."""
        await self._writer.write(lambda c: leases.release(c, fence, owner=owner, queued=queued))

    async def queue(self, tenant: str, pipeline_id: str) -> None:
        """Let any worker draw a pipeline as it is.

        Raises:
            Conflict: somebody works on it (`leased`), or it has `ended`.
        """
        await self._writer.write(lambda c: leases.queue(c, tenant, pipeline_id))

    async def get_pipeline(self, tenant: str, pipeline_id: str) -> PipelineRow:
        """The pipeline, or `NotFound`."""
        return await self._read(lambda c: queries.select_pipeline(c, tenant, pipeline_id))

    async def find_by_external_id(self, tenant: str, external_id: str) -> str | None:
        """The id of the pipeline that was spawned with `external_id`."""
        return await self._read(lambda c: queries.external_id_of(c, tenant, external_id))

    async def find_pipelines(self, tenant: str, prefix: str, limit: int) -> list[PipelineRow]:
        """At most `limit` pipelines whose id begins with `prefix`, by id."""
        return await self._read(lambda c: queries.select_pipelines_by_prefix(c, tenant, prefix, limit))

    async def list_pipelines(
        self,
        tenant: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        statuses: Collection[Status] = (),
        project: str | None = None,
        search: str | None = None,
    ) -> Page:
        """A page of pipelines, newest first.

        Args:
            statuses: only those in one of them; none are all.
            search: only those whose objective, id, external id, project or a label holds this text, in upper or
                lower case; blank is every one.

        Raises:
            Invalid: a bad `cursor`, `limit` or `search`.
        """
        return await self._read(
            partial(
                listing.select_page,
                tenant=tenant,
                limit=limit,
                cursor=cursor,
                statuses=statuses,
                project=project,
                search=search,
            )
        )

    async def costs(self, tenant: str, pipeline_ids: Collection[str]) -> Mapping[str, Cost]:
        """What each of some pipelines used in all, in one query; one that called no model cost nothing."""
        if not pipeline_ids:
            return {}
        return await self._read(lambda c: listing.select_costs(c, tenant, pipeline_ids))

    async def entries(self, tenant: str, pipeline_id: str, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """The entries with a `seq` above `after`, in order; none for an unknown pipeline.

        After an append of unknown outcome, what is read is what it came to: the server may still be at its commit.
        """
        if (tenant, pipeline_id) in self._undecided:
            # Whatever is not decided yet holds the lock of the pipeline's row.
            await self._writer.write(lambda c: queries.select_pipeline(c, tenant, pipeline_id, lock=True))
            self._undecided.discard((tenant, pipeline_id))
        return await self._read(lambda c: queries.select_entries(c, tenant, pipeline_id, after=after, limit=limit))

    async def heads(self, keys: AbstractSet[PipelineKey]) -> dict[PipelineKey, Head]:
        """How far the pipelines of `keys` are, in one query; unknown ones are left out."""
        if not keys:
            return {}
        return await self._read(lambda c: queries.select_heads(c, keys))

    async def waiting(self, limit: int) -> list[PipelineRow]:
        """Pipelines of all tenants that wait for a worker, in the order in which they are to be drawn."""
        return await self._read(lambda c: queries.select_waiting(c, limit=limit))

    async def current(self, tenant: str, *, ended_within: float, limit: int) -> list[PipelineRow]:
        """Pipelines that have not ended or did so at most so many seconds ago, newest first."""
        within = seconds(ended_within)
        return await self._read(lambda c: current.select_current(c, tenant, ended_within=within, limit=limit))

    async def current_heads(self, tenant: str, *, ended_within: float) -> dict[str, int]:
        """The last `seq` of each of those, by pipeline."""
        within = seconds(ended_within)
        return await self._read(lambda c: current.select_current_heads(c, tenant, ended_within=within))

    async def draw(self, *, within_seconds: float) -> PipelineRow | None:
        """The next pipeline that waits, of all tenants, kept from other workers until then; None where none waits."""
        return await self._writer.write(lambda c: drawing.draw(c, within=seconds(within_seconds)))

    async def put_back(self, drawn: PipelineRow) -> None:
        """Let others draw what was drawn and not begun."""
        await self._writer.write(lambda c: drawing.put_back(c, drawn))

    async def queue_orphans(self, *, let_go_seconds: float, limit: int) -> list[PipelineKey]:
        """Let any worker draw what `orphans` gives; returns what was not waiting before."""
        unleased = seconds(let_go_seconds)
        return await self._writer.write(lambda c: drawing.queue_orphans(c, let_go_for=unleased, limit=limit))

    async def orphans(self, *, let_go_seconds: float, limit: int) -> list[PipelineRow]:
        """Of all tenants, the pipelines that a worker should act for and none may (`queries.select_orphans`)."""
        return await self._read(lambda c: queries.select_orphans(c, let_go_for=seconds(let_go_seconds), limit=limit))

    async def ended(self, *, within_seconds: float, limit: int) -> list[PipelineKey]:
        """Of all tenants, the pipelines that ended at most so long ago."""
        return await self._read(lambda c: queries.select_ended(c, within=seconds(within_seconds), limit=limit))

    async def prune_checkpoints(self, *, older_seconds: float, limit: int) -> int:
        """Remove checkpoints of pipelines that ended longer ago, but each one's last and `report`.

        Entries stay as they are. At most `limit` are removed; returns how many were.
        """
        older = seconds(older_seconds)
        found = await self._read(lambda c: retention.select_prunable(c, older=older, limit=limit))
        return await self._writer.write(lambda c: retention.delete(c, found, older=older)) if found else 0

    async def claim_deliveries(
        self, *, limit: int, per_receiver: int, busy: Collection[str], hold_seconds: float
    ) -> list[DeliveryRow]:
        """Take webhooks of all tenants that are due (`deliveries.claim`); nobody else gets them for so long."""
        if not await self._read(deliveries.any_due):
            return []  # without a writer's lock, each second
        hold = seconds(hold_seconds)
        return await self._writer.write(
            lambda c: deliveries.claim(c, limit=limit, per_receiver=per_receiver, busy=busy, hold=hold)
        )

    async def settle_delivery(self, claimed: DeliveryRow, *, error: str | None, again_in: Micros | None) -> None:
        """Put on record how a claimed webhook's try went (`deliveries.settle`)."""
        await self._writer.write(lambda c: deliveries.settle(c, claimed, error=error, again_in=again_in))

    async def deliveries(
        self,
        tenant: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        status: DeliveryStatus | None = None,
        pipeline_id: str | None = None,
    ) -> DeliveryPage:
        """A page of webhooks, newest first; a bad `cursor` or `limit` is `Invalid`."""
        return await self._read(
            partial(
                deliveries.select_deliveries,
                tenant=tenant,
                limit=limit,
                cursor=cursor,
                status=status,
                pipeline_id=pipeline_id,
            )
        )

    async def prune_deliveries(self, *, older_seconds: float) -> int:
        """Remove webhooks that ended longer ago; returns how many."""
        older = seconds(older_seconds)
        return await self._writer.write(lambda c: deliveries.prune(c, older=older))

    async def agents(self, tenant: str, pipeline_id: str) -> list[AgentRow]:
        """The pipeline's agents in the order in which they came."""
        return await self._read(lambda c: queries.select_agents(c, tenant, pipeline_id))

    async def usage(self, tenant: str, pipeline_id: str) -> list[UsageRow]:
        """What each of the pipeline's agents used in all."""
        return await self._read(lambda c: queries.select_usage(c, tenant, pipeline_id))

    async def budgets(self, tenant: str, pipeline_id: str) -> list[BudgetRow]:
        """The budgets of the tenant, the pipeline and its agents, in this order."""
        return await self._read(lambda c: budgets.select_budgets(c, tenant, pipeline_id))

    async def limit_tenant(self, tenant: str, *, tokens: int | None, nanousd: int | None) -> None:
        """Set what all pipelines of a tenant may spend together; None is no limit."""
        limits = {"tokens_limit": tokens, "nanousd_limit": nanousd}
        await self._writer.write(lambda c: budgets.limit(c, tenant, budgets.ALL, budgets.ALL, limits))

    async def checkpoints(self, tenant: str, pipeline_id: str) -> list[CheckpointRow]:
        """The pipeline's checkpoints, oldest first."""
        return await self._read(lambda c: queries.select_checkpoints(c, tenant, pipeline_id))

    async def begin_request(self, tenant: str, key: str, request: str, *, plan: str) -> idempotency.Repeat:
        """Take the work of a request that bears an idempotency key, or find its answer (`ledger.idempotency`).

        Raises:
            Invalid: the key stands for another request.
            Conflict: code `in_progress`: somebody is at work for it.
        """
        found = await self._read(lambda c: idempotency.find(c, tenant, key))
        if found is None or found.expired or (found.request == request and found.abandoned):
            found = await self._writer.write(lambda c: idempotency.begin(c, tenant, key, request, plan))
        return found.repeat(key, request)

    async def answer_request(self, tenant: str, key: str, status: int, body: str) -> None:
        """Keep the answer of a request that was taken."""
        await self._writer.write(lambda c: idempotency.keep(c, tenant, key, status, body))

    async def give_request_up(self, tenant: str, key: str) -> None:
        """Let whoever asks next take over a request of which nobody knows how far it came."""
        await self._writer.write(lambda c: idempotency.give_up(c, tenant, key))

    async def forget_request(self, tenant: str, key: str) -> None:
        """Free the key of a request that was refused: nothing was done for it."""
        await self._writer.write(lambda c: idempotency.forget(c, tenant, key))

    async def prune_requests(self) -> int:
        """Remove answers that were kept long enough; returns how many."""
        return await self._writer.write(idempotency.prune)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._query, query)

    def _query(self, query: Callable[[Connection], T]) -> T:
        try:
            with self._reading.connect() as connection:
                return query(connection)
        except TrilogueError:
            raise
        except Exception as error:
            raise translate(error, self._address) from error
