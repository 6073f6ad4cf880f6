"""Webhooks to be sent: recorded in the transaction that ends a pipeline, claimed by one process at a time.

A claim is nothing but a later `due_at`: whoever dies on the way leaves the webhook to be due again.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, tuple_, update

from trilogue.clock import Micros, iso
from trilogue.entry import Entry
from trilogue.errors import Invalid
from trilogue.ledger.engine import database_now
from trilogue.ledger.projections import Changes
from trilogue.ledger.queries import LONGEST_PAGE, select_pipeline, select_usage
from trilogue.ledger.rows import DeliveryPage, DeliveryRow, DeliveryStatus, PipelineRow, UsageRow
from trilogue.ledger.tables import deliveries
from trilogue.money import USD

LONGEST_OBJECTIVE = 200
"""Characters of the objective in a webhook; whoever wants all of it asks for the pipeline."""

_KEY = (deliveries.c.tenant, deliveries.c.id)


def record(connection: Connection, tenant: str, pipeline_id: str, changes: Changes) -> None:
    """A webhook for each end among `changes`, where the pipeline was spawned with one; at once due.

    Call it when everything else of `changes` is in the tables.
    """
    if not changes.ends:
        return
    row = select_pipeline(connection, tenant, pipeline_id)
    url = row.spec.get("webhook")
    if not isinstance(url, str):
        return
    usage = select_usage(connection, tenant, pipeline_id)
    for end in changes.ends:
        body = _body(end, row, usage, changes.consensus)
        connection.execute(
            insert(deliveries).values(
                tenant=tenant,
                id=_id(end),
                pipeline_id=pipeline_id,
                seq=end.seq,
                url=url,
                body=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
                status=DeliveryStatus.PENDING.value,
                tries=0,
                due_at=database_now(),
                created_at=end.at,
            )
        )


def _id(end: Entry) -> str:
    """The same for each try, and for no other end; without the dot, which the signature sets between its parts."""
    whole = json.dumps([end.tenant, end.pipeline_id, end.seq])
    return f"wh_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"


def _body(end: Entry, row: PipelineRow, usage: Sequence[UsageRow], consensus: Any) -> dict[str, Any]:
    status, error, costs = str(end.body["status"]), end.body.get("error"), [agent.cost_nanousd for agent in usage]
    return {
        "type": f"pipeline.{status.lower()}",
        "timestamp": iso(end.at),
        "data": {
            "pipeline_id": row.pipeline_id,
            "seq": end.seq,
            "tenant": row.tenant,
            "project": row.project,
            "status": status,
            "round": row.round,
            "objective": " ".join(row.objective.split())[:LONGEST_OBJECTIVE],
            "error": {"code": error["code"], "message": error["message"]} if error else None,
            "consensus": {name: consensus.get(name) for name in ("title", "decided_by", "uncontested")}
            if consensus
            else None,
            "cost_usd": None if None in costs else sum(cost for cost in costs if cost) / USD,
            "tokens": {
                "input": sum(agent.input_tokens for agent in usage),
                "output": sum(agent.output_tokens for agent in usage),
            },
            "ended_at": iso(end.at),
            "labels": list(row.spec.get("labels") or ()),
            "external_id": row.external_id,
        },
    }


def any_due(connection: Connection) -> bool:
    """Whether a webhook of any tenant is due."""
    query = select(deliveries.c.id).where(deliveries.c.due_at <= database_now()).limit(1)
    return connection.execute(query).one_or_none() is not None


def claim(
    connection: Connection, *, limit: int, per_receiver: int, busy: Collection[str], hold: Micros
) -> list[DeliveryRow]:
    """Take webhooks of all tenants that are due, those first that wait longest; nobody else gets them for `hold`.

    Args:
        per_receiver: at most so many to one URL, so that none keeps the others waiting.
        busy: URLs to which enough is under way.
    """
    place = func.row_number().over(partition_by=deliveries.c.url, order_by=(deliveries.c.due_at, deliveries.c.id))
    due = (
        select(*_KEY, deliveries.c.due_at, place.label("place"))
        .where(deliveries.c.due_at <= database_now(), deliveries.c.url.not_in(list(busy)))
        .subquery()
    )
    chosen = select(due.c.tenant, due.c.id).where(due.c.place <= per_receiver).order_by(due.c.due_at).limit(limit)
    locked = (
        select(*_KEY)
        .where(tuple_(*_KEY).in_(chosen), deliveries.c.due_at <= database_now())
        .with_for_update(skip_locked=True)
    )
    keys = [(row.tenant, row.id) for row in connection.execute(locked)]
    if not keys:
        return []
    taken = (
        update(deliveries)
        .where(tuple_(*_KEY).in_(keys))
        .values(tries=deliveries.c.tries + 1, due_at=database_now() + hold)
        .returning(*deliveries.c)
    )
    return [_row(row) for row in connection.execute(taken).mappings()]


def settle(connection: Connection, claimed: DeliveryRow, *, error: str | None, again_in: Micros | None) -> None:
    """How a claimed webhook's try went; nothing changes where somebody else has claimed it since.

    Args:
        error: what kept it from being delivered, None where nothing did.
        again_in: until the next try; None for none.
    """
    if again_in is not None:
        outcome: dict[str, Any] = {"due_at": database_now() + again_in}
    else:
        status = DeliveryStatus.FAILED if error else DeliveryStatus.DELIVERED
        outcome = {"status": status.value, "due_at": None, "ended_at": database_now()}
    mine = and_(
        deliveries.c.tenant == claimed.tenant,
        deliveries.c.id == claimed.delivery_id,
        deliveries.c.due_at == claimed.due_at,
    )
    connection.execute(update(deliveries).where(mine).values(error=error, **outcome))


def select_deliveries(
    connection: Connection,
    tenant: str,
    *,
    limit: int,
    cursor: str | None,
    status: DeliveryStatus | None,
    pipeline_id: str | None,
) -> DeliveryPage:
    """A page of a tenant's webhooks, newest first; the cursor is the id of the last one before it."""
    if not 1 <= limit <= LONGEST_PAGE:
        raise Invalid(f"a page has 1 to {LONGEST_PAGE} webhooks, not {limit!r}", code="bad_limit")
    query = select(deliveries).where(deliveries.c.tenant == tenant)
    if status is not None:
        query = query.where(deliveries.c.status == status.value)
    if pipeline_id is not None:
        query = query.where(deliveries.c.pipeline_id == pipeline_id)
    if cursor is not None:
        last = connection.execute(
            select(deliveries.c.created_at).where(deliveries.c.tenant == tenant, deliveries.c.id == cursor)
        ).scalar_one_or_none()
        if last is None:
            raise Invalid(f"{cursor!r} is no cursor of this list: pass on `next` as it came", code="bad_cursor")
        before: tuple[Any, Any] = (last, cursor)
        query = query.where(tuple_(deliveries.c.created_at, deliveries.c.id) < tuple_(*before))
    query = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit + 1)
    rows = [_row(row) for row in connection.execute(query).mappings()]
    return DeliveryPage(items=rows[:limit], next=rows[limit - 1].delivery_id if len(rows) > limit else None)


def prune(connection: Connection, *, older: Micros) -> int:
    """Remove webhooks that ended longer ago; returns how many."""
    removed = delete(deliveries).where(deliveries.c.ended_at < database_now() - older).returning(deliveries.c.id)
    return len(connection.execute(removed).all())


def _row(row: Any) -> DeliveryRow:
    values = dict(row)
    return DeliveryRow(delivery_id=values.pop("id"), **{**values, "status": DeliveryStatus(values["status"])})
