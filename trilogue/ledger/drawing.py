"""Drawing: which worker is given which of the pipelines that wait for any of them.

Drawing is no lease: between it and the lease Prefect begins a flow run, which takes a moment. For that
moment `queued_at` lies in the future, so that nobody else is given the same pipeline. If the lease is
not taken until then, the pipeline simply waits again.
"""

from sqlalchemy import ColumnElement, Connection, and_, or_, select, tuple_, update

from trilogue.clock import Micros
from trilogue.ledger.engine import database_now
from trilogue.ledger.queries import PIPELINE_COLUMNS, first_in_line, pipeline_row, select_orphans, select_waiting
from trilogue.ledger.rows import PipelineKey, PipelineRow
from trilogue.ledger.tables import pipelines

_CANDIDATES = 16
"""As many workers may draw at the same moment, each the next row that no other has just locked."""


def draw(connection: Connection, *, within: Micros) -> PipelineRow | None:
    """The next pipeline in the fair order, kept from others for `within`; None where none waits."""
    for row in select_waiting(connection, limit=_CANDIDATES):
        mine = _of(row.tenant, row.pipeline_id)
        # Without waiting for a lock: another unit of this transaction may hold one that its holder waits for.
        free = select(pipelines.c.id).where(mine, _waits()).with_for_update(skip_locked=True)
        if connection.execute(free).one_or_none() is not None:
            kept = update(pipelines).where(mine).values(queued_at=database_now() + within)
            return pipeline_row(connection.execute(kept.returning(*PIPELINE_COLUMNS)).mappings().one())
    return None


def put_back(connection: Connection, drawn: PipelineRow) -> None:
    """Let others draw at once what was drawn but not begun; nothing where it was begun, or drawn again, meanwhile."""
    connection.execute(
        update(pipelines)
        .where(_of(drawn.tenant, drawn.pipeline_id), pipelines.c.queued_at == drawn.queued_at)
        .values(queued_at=first_in_line())
    )


def queue_orphans(connection: Connection, *, let_go_for: Micros, limit: int) -> list[PipelineKey]:
    """Let any worker draw what is orphaned (`queries.select_orphans`); returns what was not waiting before."""
    orphans = select_orphans(connection, let_go_for=let_go_for, limit=limit)
    keys = [(row.tenant, row.pipeline_id) for row in orphans if row.queued_at is None]
    if not keys:
        return []
    still = and_(tuple_(pipelines.c.tenant, pipelines.c.id).in_(keys), pipelines.c.queued_at.is_(None), _unleased())
    free = select(pipelines.c.tenant, pipelines.c.id).where(still).with_for_update(skip_locked=True)
    found = [(row.tenant, row.id) for row in connection.execute(free)]
    if found:
        queued = update(pipelines).where(tuple_(pipelines.c.tenant, pipelines.c.id).in_(found))
        connection.execute(queued.values(queued_at=first_in_line()))
    return found


def _of(tenant: str, pipeline_id: str) -> ColumnElement[bool]:
    return and_(pipelines.c.tenant == tenant, pipelines.c.id == pipeline_id)


def _waits() -> ColumnElement[bool]:
    return and_(pipelines.c.queued_at <= database_now(), _unleased())


def _unleased() -> ColumnElement[bool]:
    return or_(pipelines.c.lease_until.is_(None), pipelines.c.lease_until <= database_now())
