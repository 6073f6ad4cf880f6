"""Leases: which worker may act for a pipeline, and until when, by the database's clock."""

from collections.abc import Set as AbstractSet

from sqlalchemy import Connection, and_, case, null, or_, tuple_, update

from trilogue.clock import seconds
from trilogue.errors import Conflict
from trilogue.ledger.engine import database_now
from trilogue.ledger.queries import PIPELINE_COLUMNS, first_in_line, pipeline_row, select_pipeline
from trilogue.ledger.rows import Claim, Fence, PipelineKey
from trilogue.ledger.tables import pipelines


def claim(
    connection: Connection,
    tenant: str,
    pipeline_id: str,
    *,
    owner: str,
    lease_seconds: float,
    flow_run_id: str | None,
    expected_attempt: int | None,
) -> Claim:
    """Take the lease of a pipeline that nobody holds and that has not ended, under a new attempt."""
    present = select_pipeline(connection, tenant, pipeline_id, lock=True)
    if present.leased:
        raise Conflict(f"pipeline {pipeline_id!r} is held by {present.lease_owner!r}", code="leased")
    if present.status.ended:
        raise Conflict(f"pipeline {pipeline_id!r} is {present.status}: there is nothing to do for it", code="ended")
    if expected_attempt is not None and present.attempt != expected_attempt:
        raise Conflict(
            f"pipeline {pipeline_id!r} is at attempt {present.attempt!r}, not {expected_attempt!r}: look again",
            code="other_attempt",
        )
    taken = (
        update(pipelines)
        .where(pipelines.c.tenant == tenant, pipelines.c.id == pipeline_id)
        .values(
            attempt=present.attempt + 1,
            lease_owner=owner,
            lease_until=database_now() + seconds(lease_seconds),
            queued_at=None,
            released_at=None,
            flow_run_id=flow_run_id,
        )
        .returning(*PIPELINE_COLUMNS)
    )
    pipeline = pipeline_row(connection.execute(taken).mappings().one())
    return Claim(
        fence=pipeline.fence,
        pipeline=pipeline,
        previous_flow_run_id=present.flow_run_id,
        abandoned=present.lease_until is not None,
    )


def renew(
    connection: Connection, owner: str, keys: AbstractSet[PipelineKey], *, lease_seconds: float
) -> set[PipelineKey]:
    """Prolong those leases of `keys` that are still `owner`'s, also ones that ran out but that nobody took; returns
    which they are. A lease that its owner forgot runs out, so that its pipeline is not lost."""
    prolonged = (
        update(pipelines)
        .where(
            pipelines.c.lease_owner == owner,
            pipelines.c.lease_until.is_not(None),  # which a stop takes away
            tuple_(pipelines.c.tenant, pipelines.c.id).in_(list(keys)),
        )
        .values(lease_until=database_now() + seconds(lease_seconds))
        .returning(pipelines.c.tenant, pipelines.c.id)
    )
    return {(row.tenant, row.id) for row in connection.execute(prolonged)}


def queue(connection: Connection, tenant: str, pipeline_id: str) -> None:
    """Let any worker draw a pipeline that nobody holds and that has not ended; one that waits keeps its place."""
    present = select_pipeline(connection, tenant, pipeline_id, lock=True)
    if present.leased:
        raise Conflict(f"pipeline {pipeline_id!r} is being worked on", code="leased")
    if present.status.ended:
        raise Conflict(f"pipeline {pipeline_id!r} is {present.status}: there is nothing to do for it", code="ended")
    if present.queued_at is None:
        connection.execute(
            update(pipelines)
            .where(pipelines.c.tenant == tenant, pipelines.c.id == pipeline_id)
            .values(queued_at=database_now())
        )


def release(connection: Connection, fence: Fence, *, owner: str, queued: bool) -> None:
    """Give the lease back, where it is still `owner`'s under `fence`; `queued`: for any worker to draw.

    Where a stop took the lease away, only the time is noted at which its owner let go.
    """
    held = pipelines.c.attempt == fence.attempt
    taken_away = and_(pipelines.c.attempt > fence.attempt, pipelines.c.lease_until.is_(None))
    connection.execute(
        update(pipelines)
        .where(
            pipelines.c.tenant == fence.tenant,
            pipelines.c.id == fence.pipeline_id,
            pipelines.c.lease_owner == owner,
            or_(held, taken_away),
        )
        .values(
            lease_owner=None,
            lease_until=None,
            released_at=database_now(),
            queued_at=case((held, first_in_line() if queued else null()), else_=pipelines.c.queued_at),
        )
    )
