"""Which checkpoints need not be kept: a long ended pipeline goes on from its last one, or is read by its report.

What they named can still be found: every checkpoint is an entry, too, and entries stay.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, exists, select, tuple_
from sqlalchemy import delete as delete_from

from trilogue.clock import Micros
from trilogue.ledger.engine import database_now
from trilogue.ledger.tables import checkpoints, pipelines

_KEPT = "report"
_KEY = (checkpoints.c.tenant, checkpoints.c.pipeline_id, checkpoints.c.seq)

CheckpointKey = tuple[str, str, int]


def select_prunable(connection: Connection, *, older: Micros, limit: int) -> list[CheckpointKey]:
    """Checkpoints of pipelines that ended longer than `older` ago, but each one's last and `report`."""
    later = checkpoints.alias()
    superseded = exists().where(
        later.c.tenant == checkpoints.c.tenant,
        later.c.pipeline_id == checkpoints.c.pipeline_id,
        later.c.seq > checkpoints.c.seq,
    )
    query = select(*_KEY).where(_of_long_ended(older), checkpoints.c.name != _KEPT, superseded).limit(limit)
    return [(row.tenant, row.pipeline_id, row.seq) for row in connection.execute(query)]


def delete(connection: Connection, keys: Sequence[CheckpointKey], *, older: Micros) -> int:
    """Remove those of `keys` whose pipelines have not gone on meanwhile; returns how many."""
    removed = delete_from(checkpoints).where(tuple_(*_KEY).in_(list(keys)), _of_long_ended(older)).returning(_KEY[2])
    return len(connection.execute(removed).all())


def _of_long_ended(older: Micros) -> ColumnElement[bool]:
    return exists().where(
        pipelines.c.tenant == checkpoints.c.tenant,
        pipelines.c.id == checkpoints.c.pipeline_id,
        pipelines.c.ended_at < database_now() - older,
    )
