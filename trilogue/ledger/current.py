"""The pipelines of a tenant that somebody who watches all of them would look at: open, or ended recently."""

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from trilogue.clock import Micros
from trilogue.ledger.engine import database_now
from trilogue.ledger.queries import PIPELINE_COLUMNS, pipeline_row
from trilogue.ledger.rows import PipelineRow
from trilogue.ledger.tables import pipelines
from trilogue.pipeline import Status


def select_current(connection: Connection, tenant: str, *, ended_within: Micros, limit: int) -> list[PipelineRow]:
    """At most `limit` of them, newest first."""
    query = (
        select(*PIPELINE_COLUMNS)
        .where(_current(tenant, ended_within))
        .order_by(pipelines.c.created_at.desc(), pipelines.c.id.desc())
        .limit(limit)
    )
    return [pipeline_row(row) for row in connection.execute(query).mappings()]


def select_current_heads(connection: Connection, tenant: str, *, ended_within: Micros) -> dict[str, int]:
    """The last `seq` of each."""
    query = select(pipelines.c.id, pipelines.c.head_seq).where(_current(tenant, ended_within))
    return {row.id: row.head_seq for row in connection.execute(query)}


def _current(tenant: str, ended_within: Micros) -> ColumnElement[bool]:
    open_ = [status.value for status in Status if not status.ended]
    recent = pipelines.c.ended_at >= database_now() - ended_within
    return and_(pipelines.c.tenant == tenant, or_(pipelines.c.status.in_(open_), recent))
