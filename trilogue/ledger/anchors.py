"""Anchors in the database: what is to be anchored, appending to a tenant's chain, how far it was sent outside.

An anchor is drafted by reading, signed by whoever has the key, and appended only where the chain still ends as it
did when it was drafted. So any number of workers may try at once: one gets its anchor in, the others' drafts are void.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, literal, or_, select, update

from trilogue.clock import Micros
from trilogue.ledger.chain import canonical
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.tables import anchor_chains, anchor_due, anchor_keys, anchored, anchors, pipelines
from trilogue.pipeline import Status
from trilogue.proof.anchors import VERSION, Anchor, AnchoredHead, anchor_hash, key_id_of
from trilogue.proof.chain import GENESIS

_OPEN = [status.value for status in Status if not status.ended]
_HEADS_AT_ONCE = 500
"""Of which databases take so many as parameters of one statement."""


@dataclass(frozen=True, kw_only=True)
class AnchorDraft:
    """An anchor that wants to be signed.

    Attributes:
        all_open: whether every pipeline that has not ended was looked at for it.
    """

    tenant: str
    seq: int
    at: Micros
    body: str
    prev_hash: str
    hash: str
    heads: Sequence[AnchoredHead]
    all_open: bool


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signature and who made it; `origin` says where the key is kept."""

    public_key: bytes
    signature: bytes
    origin: str


@dataclass(frozen=True, kw_only=True)
class AnchorKeyRow:
    """A key that signed anchors of a tenant: from the anchor `first` to `last`, `count` in all."""

    tenant: str
    key_id: str
    public_key: bytes
    origin: str
    at: Micros
    first: int | None
    last: int | None
    count: int


def mark_due(connection: Connection, tenant: str, pipeline_id: str, seq: int) -> None:
    """A pipeline that has ended is to be anchored at `seq`."""
    due = insert_unless_present(connection, anchor_due)
    connection.execute(due.values(tenant=tenant, pipeline_id=pipeline_id, seq=seq))


def select_due_tenants(connection: Connection, *, every: Micros) -> list[str]:
    """The tenants for whom there may be something to anchor, by name."""
    ended = connection.execute(select(anchor_due.c.tenant).distinct()).scalars()
    under_way = (
        select(pipelines.c.tenant)
        .distinct()
        .outerjoin_from(pipelines, anchor_chains, anchor_chains.c.tenant == pipelines.c.tenant)
        .where(pipelines.c.status.in_(_OPEN), _open_due(every))
    )
    return sorted({*ended, *connection.execute(under_way).scalars()})


def draft(connection: Connection, tenant: str, *, every: Micros, limit: int) -> AnchorDraft | None:
    """The next anchor of a tenant: what ended, and what is under way where that is due; None where nothing changed."""
    # First, where the chain ends: whoever lengthens it from here on makes this draft void.
    place = connection.execute(
        select(anchor_chains.c.seq, anchor_chains.c.hash, _open_due(every).label("open_due")).where(
            anchor_chains.c.tenant == tenant
        )
    ).one_or_none()
    heads = {head.pipeline_id: head for head in _ended_heads(connection, tenant, limit)}
    all_open = False
    if (place is None or place.open_due) and len(heads) < limit:
        more = _open_heads(connection, tenant, limit - len(heads))
        all_open = len(more) < limit - len(heads)
        heads |= {head.pipeline_id: head for head in more}
    if not heads:
        return None
    named = sorted(heads.values(), key=lambda head: head.pipeline_id)
    body = canonical({"version": VERSION, "heads": [vars(head) for head in named]}, what="an anchor")
    seq, prev_hash = (place.seq + 1, place.hash) if place else (1, GENESIS)
    at = int(connection.execute(select(database_now())).scalar_one())
    return AnchorDraft(
        tenant=tenant,
        seq=seq,
        at=at,
        body=body,
        prev_hash=prev_hash,
        hash=anchor_hash(tenant, seq, at, body, prev_hash),
        heads=named,
        all_open=all_open,
    )


def append(connection: Connection, drafted: AnchorDraft, signed: Signed) -> Anchor | None:
    """Append a signed draft; None where the chain has gone on since it was drafted."""
    tenant = drafted.tenant
    first = insert_unless_present(connection, anchor_chains)
    connection.execute(first.values(tenant=tenant, seq=0, hash=GENESIS, sent_seq=0, send_at=0))
    taken = (
        update(anchor_chains)
        .where(
            anchor_chains.c.tenant == tenant,
            anchor_chains.c.seq == drafted.seq - 1,
            anchor_chains.c.hash == drafted.prev_hash,
        )
        .values(
            seq=drafted.seq,
            hash=drafted.hash,
            open_at=literal(drafted.at) if drafted.all_open else anchor_chains.c.open_at,
        )
        .returning(anchor_chains.c.seq)
    )
    if connection.execute(taken).one_or_none() is None:
        return None
    key_id = key_id_of(signed.public_key)
    if not _knows(connection, tenant, key_id):  # whoever signs for this tenant waits for the row that was just updated
        connection.execute(
            insert(anchor_keys).values(
                tenant=tenant,
                key_id=key_id,
                public_key=base64.b64encode(signed.public_key).decode(),
                origin=signed.origin,
                at=drafted.at,
            )
        )
    anchor = Anchor(
        tenant=tenant,
        seq=drafted.seq,
        at=drafted.at,
        body=drafted.body,
        prev_hash=drafted.prev_hash,
        hash=drafted.hash,
        signature=base64.b64encode(signed.signature).decode(),
        key_id=key_id,
    )
    connection.execute(insert(anchors).values(**vars(anchor)))
    _note(connection, tenant, drafted.heads)
    return anchor


def select_anchors(connection: Connection, tenant: str, *, after: int, limit: int) -> list[Anchor]:
    """Anchors of a tenant with a `seq` above `after`, in order."""
    query = (
        select(anchors).where(anchors.c.tenant == tenant, anchors.c.seq > after).order_by(anchors.c.seq).limit(limit)
    )
    return [Anchor(**row) for row in connection.execute(query).mappings()]


def select_chains(connection: Connection) -> dict[str, int]:
    """The last anchor's `seq` of each tenant that has one."""
    query = select(anchor_chains.c.tenant, anchor_chains.c.seq).where(anchor_chains.c.seq > 0)
    return {row.tenant: row.seq for row in connection.execute(query)}


def select_keys(connection: Connection, tenant: str | None) -> list[AnchorKeyRow]:
    """The keys that signed, of a tenant or of all, oldest first."""
    signed = (
        select(
            anchors.c.tenant,
            anchors.c.key_id,
            func.min(anchors.c.seq).label("first"),
            func.max(anchors.c.seq).label("last"),
            func.count().label("count"),
        )
        .group_by(anchors.c.tenant, anchors.c.key_id)
        .subquery()
    )
    query = (
        select(anchor_keys, signed.c.first, signed.c.last, func.coalesce(signed.c.count, 0).label("count"))
        .outerjoin_from(
            anchor_keys,
            signed,
            and_(signed.c.tenant == anchor_keys.c.tenant, signed.c.key_id == anchor_keys.c.key_id),
        )
        .order_by(anchor_keys.c.tenant, anchor_keys.c.at, anchor_keys.c.key_id)
    )
    if tenant is not None:
        query = query.where(anchor_keys.c.tenant == tenant)
    return [
        AnchorKeyRow(**{**row, "public_key": base64.b64decode(row["public_key"])})
        for row in connection.execute(query).mappings()
    ]


def claim_sending(connection: Connection, *, hold: Micros) -> dict[str, int]:
    """Take the tenants whose anchors are to be sent outside; nobody else gets them for `hold`.

    Returns how far each one's were sent.
    """
    taken = (
        update(anchor_chains)
        .where(anchor_chains.c.sent_seq < anchor_chains.c.seq, anchor_chains.c.send_at <= database_now())
        .values(send_at=database_now() + hold)
        .returning(anchor_chains.c.tenant, anchor_chains.c.sent_seq)
    )
    return {row.tenant: row.sent_seq for row in connection.execute(taken)}


def any_to_send(connection: Connection) -> bool:
    """Whether anchors of any tenant are to be sent outside."""
    query = (
        select(anchor_chains.c.tenant)
        .where(anchor_chains.c.sent_seq < anchor_chains.c.seq, anchor_chains.c.send_at <= database_now())
        .limit(1)
    )
    return connection.execute(query).one_or_none() is not None


def settle_sending(connection: Connection, tenant: str, sent_seq: int, *, again_in: Micros) -> None:
    """Note how far a tenant's anchors were sent, and when to go on."""
    connection.execute(
        update(anchor_chains)
        .where(anchor_chains.c.tenant == tenant, anchor_chains.c.sent_seq <= sent_seq)
        .values(sent_seq=sent_seq, send_at=database_now() + again_in)
    )


def _knows(connection: Connection, tenant: str, key_id: str) -> bool:
    query = select(anchor_keys.c.key_id).where(anchor_keys.c.tenant == tenant, anchor_keys.c.key_id == key_id)
    return connection.execute(query).one_or_none() is not None


def _note(connection: Connection, tenant: str, heads: Sequence[AnchoredHead]) -> None:
    """How far these pipelines are anchored from now on, and that they are no longer due."""
    for start in range(0, len(heads), _HEADS_AT_ONCE):
        some = heads[start : start + _HEADS_AT_ONCE]
        ids = [head.pipeline_id for head in some]
        connection.execute(delete(anchored).where(anchored.c.tenant == tenant, anchored.c.pipeline_id.in_(ids)))
        connection.execute(
            insert(anchored),
            [{"tenant": tenant, "pipeline_id": head.pipeline_id, "seq": head.seq} for head in some],
        )
        reached = (
            select(anchored.c.seq)
            .where(anchored.c.tenant == anchor_due.c.tenant, anchored.c.pipeline_id == anchor_due.c.pipeline_id)
            .scalar_subquery()
        )
        # Whoever ended anew meanwhile is due at a later `seq`, in a row of its own.
        connection.execute(
            delete(anchor_due).where(
                anchor_due.c.tenant == tenant, anchor_due.c.pipeline_id.in_(ids), anchor_due.c.seq <= reached
            )
        )


def _open_due(every: Micros) -> ColumnElement[bool]:
    return or_(anchor_chains.c.open_at.is_(None), anchor_chains.c.open_at <= database_now() - every)


def _ended_heads(connection: Connection, tenant: str, limit: int) -> list[AnchoredHead]:
    query = (
        select(pipelines.c.id, pipelines.c.head_seq, pipelines.c.head_hash, pipelines.c.status)
        .distinct()
        .join_from(
            anchor_due,
            pipelines,
            and_(pipelines.c.tenant == anchor_due.c.tenant, pipelines.c.id == anchor_due.c.pipeline_id),
        )
        .where(anchor_due.c.tenant == tenant)
        .limit(limit)
    )
    return [_head(row) for row in connection.execute(query)]


def _open_heads(connection: Connection, tenant: str, limit: int) -> list[AnchoredHead]:
    query = (
        select(pipelines.c.id, pipelines.c.head_seq, pipelines.c.head_hash, pipelines.c.status)
        .outerjoin_from(
            pipelines,
            anchored,
            and_(anchored.c.tenant == pipelines.c.tenant, anchored.c.pipeline_id == pipelines.c.id),
        )
        .where(
            pipelines.c.tenant == tenant,
            pipelines.c.status.in_(_OPEN),
            pipelines.c.head_seq > func.coalesce(anchored.c.seq, 0),
        )
        .limit(limit)
    )
    return [_head(row) for row in connection.execute(query)]


def _head(row: Row[Any]) -> AnchoredHead:
    return AnchoredHead(pipeline_id=row.id, seq=row.head_seq, hash=row.head_hash, status=row.status)
