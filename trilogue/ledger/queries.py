"""Reading the ledger: the statements, and rows as values."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    cast,
    func,
    or_,
    select,
    tuple_,
)

from trilogue.agent import AgentStatus, Role, Tier
from trilogue.clock import Micros
from trilogue.entry import Entry, Kind
from trilogue.errors import NotFound
from trilogue.ledger.chain import decode
from trilogue.ledger.engine import database_now
from trilogue.ledger.rows import (
    AgentRow,
    CheckpointRow,
    Head,
    PipelineKey,
    PipelineRow,
    StoredError,
    UsageRow,
)
from trilogue.ledger.tables import agents, checkpoints, entries, pipelines, usage
from trilogue.pipeline import Phase, Status

LONGEST_PAGE = 500
_LAST_CHARACTER = "\U0010ffff"

PIPELINE_COLUMNS = (*pipelines.c, database_now().label("read_at"))


def select_pipeline(connection: Connection, tenant: str, pipeline_id: str, *, lock: bool = False) -> PipelineRow:
    """One pipeline; `lock` holds its row until the transaction ends.

    Raises:
        NotFound: the tenant has none of that id.
    """
    query = select(*PIPELINE_COLUMNS).where(pipelines.c.tenant == tenant, pipelines.c.id == pipeline_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no pipeline {pipeline_id!r}", code="no_pipeline")
    return pipeline_row(row)


def external_id_of(connection: Connection, tenant: str, external_id: str) -> str | None:
    """The id of the pipeline that bears `external_id`."""
    query = select(pipelines.c.id).where(pipelines.c.tenant == tenant, pipelines.c.external_id == external_id)
    return connection.execute(query).scalar_one_or_none()


def select_pipelines_by_prefix(connection: Connection, tenant: str, prefix: str, limit: int) -> list[PipelineRow]:
    """Pipelines whose id begins with `prefix`, by id."""
    query = (
        select(*PIPELINE_COLUMNS)
        .where(
            pipelines.c.tenant == tenant,
            pipelines.c.id >= prefix,
            pipelines.c.id < prefix + _LAST_CHARACTER,
        )
        .order_by(pipelines.c.id)
        .limit(limit)
    )
    return [pipeline_row(row) for row in connection.execute(query).mappings()]


def select_entries(
    connection: Connection, tenant: str, pipeline_id: str, *, after: int, limit: int | None
) -> list[Entry]:
    """Entries with a `seq` above `after`, in order."""
    query = (
        select(entries)
        .where(entries.c.tenant == tenant, entries.c.pipeline_id == pipeline_id, entries.c.seq > after)
        .order_by(entries.c.seq)
        .limit(limit)
    )
    return [
        Entry(**{**row, "kind": Kind(row["kind"]), "body": decode(row["body"])})
        for row in connection.execute(query).mappings()
    ]


def select_heads(connection: Connection, keys: Iterable[PipelineKey]) -> dict[PipelineKey, Head]:
    """The heads of those of `keys` that exist."""
    query = select(
        pipelines.c.tenant, pipelines.c.id, pipelines.c.head_seq, pipelines.c.attempt, pipelines.c.stop_requested_at
    ).where(tuple_(pipelines.c.tenant, pipelines.c.id).in_(list(keys)))
    return {
        (row.tenant, row.id): Head(row.head_seq, row.attempt, row.stop_requested_at is not None)
        for row in connection.execute(query)
    }


def select_orphans(connection: Connection, *, let_go_for: Micros, limit: int) -> list[PipelineRow]:
    """Pipelines of all tenants that are `orphaned`, those first that have stood still for longest.

    Args:
        let_go_for: for how long one must have been without a lease that nobody left behind: whoever
            begins a round from outside takes the lease only a moment later.
    """
    open_ = [status.value for status in Status if not status.ended]
    at_work = [Status.RUNNING.value, Status.ORCHESTRATING.value]
    let_go = and_(
        pipelines.c.status.in_(at_work),
        pipelines.c.lease_until.is_(None),
        pipelines.c.queued_at.is_(None),
        pipelines.c.updated_at <= database_now() - let_go_for,
    )
    query = (
        select(*PIPELINE_COLUMNS)
        .where(pipelines.c.status.in_(open_), or_(pipelines.c.lease_until <= database_now(), let_go))
        .order_by(pipelines.c.updated_at)
        .limit(limit)
    )
    return [pipeline_row(row) for row in connection.execute(query).mappings()]


def first_in_line() -> ColumnElement[int]:
    """The `queued_at` of what was under way already: its deadlines run on, so it goes before what was created later."""
    return case((pipelines.c.created_at < database_now(), pipelines.c.created_at), else_=database_now())


def select_waiting(connection: Connection, *, limit: int) -> list[PipelineRow]:
    """Pipelines that wait for a worker, in the fair order: the next one of the tenant with the fewest under way."""
    open_ = [status.value for status in Status if not status.ended]
    # What was drawn is as good as under way: its `queued_at` lies in the future until it is leased (`drawing`).
    under_way = (
        select(pipelines.c.tenant, func.count().label("pipelines"))
        .where(
            pipelines.c.status.in_(open_),
            or_(pipelines.c.lease_until > database_now(), pipelines.c.queued_at > database_now()),
        )
        .group_by(pipelines.c.tenant)
        .subquery()
    )
    place = func.row_number().over(partition_by=pipelines.c.tenant, order_by=(pipelines.c.queued_at, pipelines.c.id))
    query = (
        select(*PIPELINE_COLUMNS)
        .outerjoin_from(pipelines, under_way, under_way.c.tenant == pipelines.c.tenant)
        .where(
            pipelines.c.queued_at <= database_now(),
            pipelines.c.status.in_(open_),
            or_(pipelines.c.lease_until.is_(None), pipelines.c.lease_until <= database_now()),
        )
        .order_by(func.coalesce(under_way.c.pipelines, 0) + place, pipelines.c.queued_at, pipelines.c.id)
        .limit(limit)
    )
    return [pipeline_row(row) for row in connection.execute(query).mappings()]


def select_ended(connection: Connection, *, within: Micros, limit: int) -> list[PipelineKey]:
    """Pipelines of all tenants that ended at most `within` ago."""
    query = (
        select(pipelines.c.tenant, pipelines.c.id)
        .where(pipelines.c.ended_at >= database_now() - within)
        .order_by(pipelines.c.ended_at)
        .limit(limit)
    )
    return [(row.tenant, row.id) for row in connection.execute(query)]


def select_agents(connection: Connection, tenant: str, pipeline_id: str) -> list[AgentRow]:
    """A pipeline's agents in the order in which they came."""
    query = (
        select(agents)
        .where(agents.c.tenant == tenant, agents.c.pipeline_id == pipeline_id)
        .order_by(agents.c.spawned_at, agents.c.agent_id)
    )
    return [
        AgentRow(
            agent_id=row.agent_id,
            role=Role(row.role),
            tier=Tier(row.tier),
            runtime=row.runtime,
            model=row.model,
            status=AgentStatus(row.status),
            spawned_at=row.spawned_at,
        )
        for row in connection.execute(query)
    ]


def select_usage(connection: Connection, tenant: str, pipeline_id: str) -> list[UsageRow]:
    """What each agent used in all, by agent id."""

    def total(column: Any) -> Any:
        # PostgreSQL sums big integers to NUMERIC.
        return cast(func.coalesce(func.sum(column), 0), BigInteger)

    query = (
        select(
            usage.c.agent_id,
            func.count().label("turns"),
            total(usage.c.input_tokens).label("input_tokens"),
            total(usage.c.output_tokens).label("output_tokens"),
            total(usage.c.cached_tokens).label("cached_tokens"),
            total(usage.c.cost_nanousd).label("cost_nanousd"),
            func.count(usage.c.cost_nanousd).label("known_costs"),
            total(usage.c.calls).label("calls"),
        )
        .where(usage.c.tenant == tenant, usage.c.pipeline_id == pipeline_id)
        .group_by(usage.c.agent_id)
        .order_by(usage.c.agent_id)
    )
    return [
        UsageRow(
            agent_id=row.agent_id,
            turns=row.turns,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cached_tokens=row.cached_tokens,
            cost_nanousd=row.cost_nanousd if row.known_costs == row.turns else None,
            calls=row.calls,
        )
        for row in connection.execute(query)
    ]


def select_checkpoints(connection: Connection, tenant: str, pipeline_id: str) -> list[CheckpointRow]:
    """A pipeline's checkpoints, oldest first."""
    query = (
        select(checkpoints)
        .where(checkpoints.c.tenant == tenant, checkpoints.c.pipeline_id == pipeline_id)
        .order_by(checkpoints.c.seq)
    )
    return [
        CheckpointRow(
            seq=row.seq,
            name=row.name,
            to_seq=row.to_seq,
            status=Status(row.status),
            phase=Phase(row.phase),
            round=row.round,
            details=None if row.details is None else decode(row.details),
            at=row.at,
        )
        for row in connection.execute(query)
    ]


def pipeline_row(row: RowMapping) -> PipelineRow:
    """A row of `PIPELINE_COLUMNS` as a value."""
    values = dict(row)
    code, message, at = values.pop("error_code"), values.pop("error_message"), values.pop("error_at")
    values |= {
        "pipeline_id": values.pop("id"),
        "spec": decode(values["spec"]),
        "status": Status(values["status"]),
        "phase": Phase(values["phase"]),
        "error": StoredError(code=code, message=message, at=at) if code is not None else None,
    }
    return PipelineRow(**values)
