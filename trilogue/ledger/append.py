"""Appending entries: the statements of one unit of work.

Every function here runs inside a transaction that the writer begins and commits. The
head is advanced first, under the row's lock; the hashes follow from it.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from trilogue.clock import Micros
from trilogue.entry import GENESIS, Draft, Entry, Kind
from trilogue.errors import Conflict, Fenced, Invalid, NotFound
from trilogue.ledger import anchors, budgets, deliveries
from trilogue.ledger.chain import Prepared, prepare, seal
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.projections import Changes, project
from trilogue.ledger.queries import external_id_of, select_pipeline
from trilogue.ledger.rows import Fence, PipelineRow
from trilogue.ledger.tables import agents, checkpoints, entries, pipelines, usage
from trilogue.pipeline import Status

_THIS_PIPELINE = (
    pipelines.c.tenant == bindparam("this_tenant"),
    pipelines.c.id == bindparam("this_id"),
)
_ADVANCE = (
    update(pipelines)
    .where(
        *_THIS_PIPELINE,
        pipelines.c.attempt == bindparam("this_attempt"),
        pipelines.c.stop_requested_at.is_(None),
    )
    .values(head_seq=pipelines.c.head_seq + bindparam("count"))
    .returning(pipelines.c.head_seq, pipelines.c.head_hash, pipelines.c.status)
)
_SETTLE = update(pipelines).where(*_THIS_PIPELINE)
_WHY_NOT = select(pipelines.c.attempt, pipelines.c.stop_requested_at).where(*_THIS_PIPELINE)
_THESE_AGENTS = delete(agents).where(
    agents.c.tenant == bindparam("this_tenant"),
    agents.c.pipeline_id == bindparam("this_id"),
    agents.c.agent_id == bindparam("this_agent"),
)
_AGENT_STATUS = (
    update(agents)
    .where(
        agents.c.tenant == bindparam("this_tenant"),
        agents.c.pipeline_id == bindparam("this_id"),
        agents.c.agent_id == bindparam("this_agent"),
    )
    .values(status=bindparam("status"))
)


def prepare_all(drafts: Sequence[Draft]) -> list[Prepared]:
    """Check drafts before anything is written; none at all is `Invalid`."""
    if not drafts:
        raise Invalid("there is nothing to append: give at least one entry")
    return [prepare(draft) for draft in drafts]


def spawn(
    connection: Connection, tenant: str, pipeline_id: str, drafts: Sequence[Prepared], at: Micros, *, queued: bool
) -> list[Entry]:
    """Record a new pipeline with its first entries, of which the first is its `pipeline_spawned`."""
    if drafts[0].kind is not Kind.PIPELINE_SPAWNED:
        raise Invalid(f"a pipeline begins with {Kind.PIPELINE_SPAWNED.value!r}, not with {drafts[0].kind.value!r}")
    sealed = seal(drafts, tenant=tenant, pipeline_id=pipeline_id, attempt=0, at=at, after=0, prev_hash=GENESIS)
    changes = project(sealed, Status.SPAWNED)
    row = {
        "tenant": tenant,
        "id": pipeline_id,
        "attempt": 0,
        "head_seq": len(sealed),
        "head_hash": sealed[-1].hash,
        "updated_at": at,
        "queued_at": database_now() if queued else None,
        **changes.pipeline,
    }
    # The row that comes back tells; on PostgreSQL the rowcount of an INSERT is -1.
    inserted = insert_unless_present(connection, pipelines).values(row).returning(pipelines.c.id)
    if connection.execute(inserted).one_or_none() is None:
        raise _already_there(connection, tenant, pipeline_id, changes.pipeline["external_id"])
    budgets.open_rows(connection, tenant, pipeline_id)
    _insert(connection, sealed, drafts, changes)
    return sealed


def append(connection: Connection, fence: Fence, drafts: Sequence[Prepared], at: Micros) -> list[Entry]:
    """Append under `fence`."""
    key = {"this_tenant": fence.tenant, "this_id": fence.pipeline_id}
    head = connection.execute(_ADVANCE, {**key, "this_attempt": fence.attempt, "count": len(drafts)}).one_or_none()
    if head is None:
        raise _refused(connection, fence)
    return _append_behind(
        connection,
        fence,
        drafts,
        at,
        after=head.head_seq - len(drafts),
        prev_hash=head.head_hash,
        status=Status(head.status),
    )


def append_outside(
    connection: Connection,
    tenant: str,
    pipeline_id: str,
    decide: Callable[[PipelineRow], Sequence[Draft]],
    at: Micros,
    *,
    queued: bool,
) -> list[Entry]:
    """Lock the pipeline, ask `decide`, and append what it says under a new attempt, which fences off every worker."""
    present = select_pipeline(connection, tenant, pipeline_id, lock=True)
    decided = decide(present)
    if not decided:
        return []
    drafts = prepare_all(decided)
    fence = Fence(tenant=tenant, pipeline_id=pipeline_id, attempt=present.attempt + 1)
    connection.execute(
        _SETTLE.values(
            head_seq=present.head_seq + len(drafts),
            attempt=fence.attempt,
            # `release` notes when the owner, fenced off from here on, lets go; if it never does, it must by then.
            lease_until=None,
            released_at=present.released_at if present.lease_until is None else present.lease_until,
            queued_at=database_now() if queued else None,
        ),
        {"this_tenant": tenant, "this_id": pipeline_id},
    )
    return _append_behind(
        connection,
        fence,
        drafts,
        at,
        after=present.head_seq,
        prev_hash=present.head_hash,
        status=present.status,
    )


def _append_behind(
    connection: Connection,
    fence: Fence,
    drafts: Sequence[Prepared],
    at: Micros,
    *,
    after: int,
    prev_hash: str,
    status: Status,
) -> list[Entry]:
    sealed = seal(
        drafts,
        tenant=fence.tenant,
        pipeline_id=fence.pipeline_id,
        attempt=fence.attempt,
        at=at,
        after=after,
        prev_hash=prev_hash,
    )
    changes = project(sealed, status)
    connection.execute(
        _SETTLE.values(head_hash=sealed[-1].hash, updated_at=at, **changes.pipeline),
        {"this_tenant": fence.tenant, "this_id": fence.pipeline_id},
    )
    _insert(connection, sealed, drafts, changes)
    return sealed


def _insert(connection: Connection, sealed: Sequence[Entry], drafts: Sequence[Prepared], changes: Changes) -> None:
    connection.execute(
        insert(entries),
        [
            {
                "tenant": entry.tenant,
                "pipeline_id": entry.pipeline_id,
                "seq": entry.seq,
                "attempt": entry.attempt,
                "kind": entry.kind.value,
                "actor": entry.actor,
                "at": entry.at,
                "body": draft.text,
                "prev_hash": entry.prev_hash,
                "hash": entry.hash,
            }
            for entry, draft in zip(sealed, drafts, strict=True)
        ],
    )
    key = {"this_tenant": sealed[0].tenant, "this_id": sealed[0].pipeline_id}
    if replaced := [*changes.agents, *changes.agents_gone]:
        connection.execute(_THESE_AGENTS, [{**key, "this_agent": agent_id} for agent_id in replaced])
    if changes.agents:
        connection.execute(insert(agents), list(changes.agents.values()))
    for agent_id, status in changes.agent_statuses.items():
        changed = connection.execute(_AGENT_STATUS, {**key, "this_agent": agent_id, "status": status.value})
        if changed.rowcount == 0:
            raise NotFound(f"pipeline {key['this_id']!r} has no agent {agent_id!r} whose status could change")
    _keep_books(connection, key["this_tenant"], key["this_id"], changes)
    if changes.usage:
        connection.execute(insert(usage), changes.usage)
    if changes.checkpoints:
        connection.execute(insert(checkpoints), changes.checkpoints)
    deliveries.record(connection, key["this_tenant"], key["this_id"], changes)
    if changes.status.ended:
        anchors.mark_due(connection, key["this_tenant"], key["this_id"], sealed[-1].seq)


def _keep_books(connection: Connection, tenant: str, pipeline_id: str, changes: Changes) -> None:
    """Settle before reserving, so that room which comes free in the same commit can be used in it."""
    for agent_id, limits in changes.limits.items():
        budgets.limit(connection, tenant, pipeline_id, agent_id, limits)
    for entry, agent_id, freed, spent in changes.settled:
        budgets.settle(connection, entry, agent_id, freed, spent)
    for entry, agent_id, amount in changes.reserved:
        budgets.reserve(connection, entry, agent_id, amount)
    if changes.settle_whole:
        budgets.settle_whole(connection, tenant, pipeline_id)


def _already_there(connection: Connection, tenant: str, pipeline_id: str, external_id: str | None) -> Conflict:
    owner = external_id_of(connection, tenant, external_id) if external_id is not None else None
    if owner is None or owner == pipeline_id:
        return Conflict(f"pipeline {pipeline_id!r} exists already", code="exists")
    return Conflict(f"external id {external_id!r} belongs to pipeline {owner!r} already", code="external_id_taken")


def _refused(connection: Connection, fence: Fence) -> NotFound | Fenced:
    row = connection.execute(_WHY_NOT, {"this_tenant": fence.tenant, "this_id": fence.pipeline_id}).one_or_none()
    if row is None:
        return NotFound(f"no pipeline {fence.pipeline_id!r}", code="no_pipeline")
    if row.stop_requested_at is not None:
        return Fenced(
            f"pipeline {fence.pipeline_id!r} was stopped: it takes nothing until it is resumed", code="stopped"
        )
    return Fenced(
        f"another attempt has taken pipeline {fence.pipeline_id!r} up: it is at attempt {row.attempt!r} now, "
        f"and attempt {fence.attempt!r} may not write"
    )
