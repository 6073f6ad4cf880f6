"""The list of a tenant's pipelines: its pages, what narrows them, and what the pipelines on them cost."""

import base64
import binascii
import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, cast, func, select, tuple_

from trilogue.errors import Invalid
from trilogue.ledger.engine import BETWEEN, containing, words_of
from trilogue.ledger.queries import LONGEST_PAGE, PIPELINE_COLUMNS, pipeline_row
from trilogue.ledger.rows import Cost, Page, PipelineRow
from trilogue.ledger.tables import pipelines, usage
from trilogue.pipeline import Status

LONGEST_SEARCH = 1_000
"""Characters; each becomes some fifteen bytes of a pattern, of which SQLite takes 50,000."""

_IN_NO_TEXT = f"\0{BETWEEN}"


def select_page(
    connection: Connection,
    tenant: str,
    *,
    limit: int,
    cursor: str | None,
    statuses: Collection[Status],
    project: str | None,
    search: str | None,
) -> Page:
    """A page of pipelines, newest first (`Ledger.list_pipelines`).

    Pipelines that come meanwhile do not move those on later pages.
    """
    if not 1 <= limit <= LONGEST_PAGE:
        raise Invalid(f"a page has 1 to {LONGEST_PAGE} pipelines, not {limit!r}", code="bad_limit")
    query: Select[Any] = select(*PIPELINE_COLUMNS).where(pipelines.c.tenant == tenant)
    if statuses:
        query = query.where(pipelines.c.status.in_([status.value for status in statuses]))
    if project is not None:
        query = query.where(pipelines.c.project == project)
    if sought := _sought(search):
        query = query.where(containing(connection, _searched(), sought))
    if cursor is not None:
        last: tuple[Any, Any] = _read_cursor(cursor)
        query = query.where(tuple_(pipelines.c.created_at, pipelines.c.id) < tuple_(*last))
    query = query.order_by(pipelines.c.created_at.desc(), pipelines.c.id.desc()).limit(limit + 1)
    rows = [pipeline_row(row) for row in connection.execute(query).mappings()]
    more = len(rows) > limit
    return Page(items=rows[:limit], next=_write_cursor(rows[limit - 1]) if more else None)


def select_costs(connection: Connection, tenant: str, pipeline_ids: Collection[str]) -> dict[str, Cost]:
    """What each of some pipelines used in all."""

    def total(column: Any) -> Any:
        # PostgreSQL sums big integers to NUMERIC.
        return cast(func.coalesce(func.sum(column), 0), BigInteger)

    query = (
        select(
            usage.c.pipeline_id,
            total(usage.c.cost_nanousd).label("nanousd"),
            (func.count() > func.count(usage.c.cost_nanousd)).label("unknown"),
            total(usage.c.input_tokens).label("input_tokens"),
            total(usage.c.output_tokens).label("output_tokens"),
        )
        .where(usage.c.tenant == tenant, usage.c.pipeline_id.in_(list(pipeline_ids)))
        .group_by(usage.c.pipeline_id)
    )
    found = {
        row.pipeline_id: Cost(
            nanousd=row.nanousd,
            unknown=bool(row.unknown),
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
        )
        for row in connection.execute(query)
    }
    return {pipeline_id: found.get(pipeline_id, Cost()) for pipeline_id in pipeline_ids}


def _sought(search: str | None) -> str:
    """What to look for; empty for nothing in particular.

    Raises:
        Invalid: no recorded text can hold it.
    """
    sought = (search or "").strip()
    if len(sought) > LONGEST_SEARCH:
        raise Invalid(
            f"search: has {len(sought):,} characters; at most {LONGEST_SEARCH:,}, so give a part of the text",
            code="invalid_search",
        )
    if any(character in _IN_NO_TEXT or 0xD800 <= ord(character) <= 0xDFFF for character in sought):
        raise Invalid("search: has a control character, or half of one, which no text has", code="invalid_search")
    return sought


def _searched() -> ColumnElement[str]:
    """Everything of a pipeline that a search looks at."""
    names = (pipelines.c.id, pipelines.c.external_id, pipelines.c.project)
    text: ColumnElement[str] = words_of(pipelines.c.spec)
    for name in names:
        text = text + BETWEEN + func.coalesce(name, "")
    return text


def _write_cursor(last: PipelineRow) -> str:
    text = json.dumps([last.created_at, last.pipeline_id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        created_at, pipeline_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if type(created_at) is int and abs(created_at) < 2**63 and isinstance(pipeline_id, str):
            return created_at, pipeline_id
    except (ValueError, TypeError, binascii.Error, RecursionError):
        pass
    raise Invalid(
        f"{cursor!r} is no cursor of this list: pass on `next` as it came, or leave it out", code="bad_cursor"
    )
