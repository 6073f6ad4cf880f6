"""Writing a pipeline's bundle (`trilogue.proof.bundle`) out of the database, as it stood at one moment."""

import json
from typing import IO, Any

from sqlalchemy import Connection, Engine, select

from trilogue.clock import SECOND, Micros
from trilogue.errors import NotFound
from trilogue.ledger.tables import anchor_keys, anchors, entries, pipelines
from trilogue.ledger.verifying import PARTS, batches, one_moment
from trilogue.proof.anchors import Anchor, heads_of
from trilogue.proof.bundle import CHECKPOINT, REPORT, BundleWriter
from trilogue.proof.chain import Stored
from trilogue.proof.problems import UnreadableError

_CLOCKS_APART: Micros = 86_400 * SECOND
"""Anchors bear the database's time, pipelines their worker's."""


def export(engine: Engine, tenant: str, pipeline_id: str, out: IO[bytes]) -> int:
    """Write the bundle of a pipeline, as stored, whole or not; returns how many entries it has.

    Raises:
        NotFound: the tenant has no such pipeline.
    """
    with one_moment(engine) as connection:
        row = connection.execute(
            select(pipelines.c.head_seq, pipelines.c.head_hash, pipelines.c.created_at).where(
                pipelines.c.tenant == tenant, pipelines.c.id == pipeline_id
            )
        ).one_or_none()
        if row is None:
            raise NotFound(f"no pipeline {pipeline_id!r}", code="no_pipeline")
        writer = BundleWriter(out, tenant, pipeline_id)
        for key in connection.execute(select(anchor_keys).where(anchor_keys.c.tenant == tenant)):
            writer.add("key", {"key_id": key.key_id, "public_key": key.public_key})
        _write_anchors(connection, tenant, pipeline_id, writer, since=row.created_at - _CLOCKS_APART)
        written = _write_entries(connection, tenant, pipeline_id, writer, {"seq": row.head_seq, "hash": row.head_hash})
        writer.end()
    return written


def _write_anchors(
    connection: Connection, tenant: str, pipeline_id: str, writer: BundleWriter, *, since: Micros
) -> None:
    query = select(anchors).where(
        anchors.c.tenant == tenant, anchors.c.at >= since, anchors.c.body.contains(pipeline_id, autoescape=True)
    )
    for batch in batches(connection, query.order_by(anchors.c.seq)):
        for row in batch:
            anchor = Anchor(**row._mapping)
            if _names(anchor, pipeline_id):
                writer.add("anchor", anchor.as_json())


def _names(anchor: Anchor, pipeline_id: str) -> bool:
    try:
        return any(head.pipeline_id == pipeline_id for head in heads_of(anchor))
    except UnreadableError:
        return False


def _write_entries(
    connection: Connection, tenant: str, pipeline_id: str, writer: BundleWriter, head: dict[str, Any]
) -> int:
    query = select(*PARTS).where(entries.c.tenant == tenant, entries.c.pipeline_id == pipeline_id)
    written, checkpoints, report = 0, list[dict[str, Any]](), None
    for batch in batches(connection, query.order_by(entries.c.seq)):
        for row in batch:
            stored = Stored(*row)
            writer.add("entry", stored._asdict())
            written += 1
            if stored.kind in {CHECKPOINT, REPORT} and (body := _body(stored)) is not None:
                if stored.kind == CHECKPOINT:
                    checkpoints.append(body)
                else:
                    report = body
    writer.add("head", head)
    for checkpoint in checkpoints:
        writer.add(CHECKPOINT, checkpoint)
    if report is not None:
        writer.add(REPORT, report)
    return written


def _body(stored: Stored) -> dict[str, Any] | None:
    try:
        return {"seq": stored.seq, **json.loads(stored.body)}
    except (ValueError, TypeError):
        return None  # somebody changed it, which the chain shows
