"""The audit: what people did, from where, and what became of it; appended to and never changed.

A deed that writes to the ledger has its line in the same transaction (`insert_deed`), so that neither is there
without the other. One that was refused, or that wrote nothing, has a line of its own.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, func, or_, select, tuple_

from trilogue.errors import Invalid, TrilogueError
from trilogue.identity import INSTALLATION, without_keys
from trilogue.ledger.chain import canonical
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.identities import AuditRow, Deed, Listed, Outcome, Sought
from trilogue.ledger.identity_tables import audit
from trilogue.ledger.store import Store, bad_cursor, select_listed

T = TypeVar("T")

LONGEST_OBJECT = 200
LONGEST_DETAIL = 16_384
"""Characters of its JSON; what is longer is kept as the beginning of its text, under `cut`."""

_LONGEST_SOURCE = 100
_ACTION = re.compile(r"[a-z_]+(\.[a-z_]+)*")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Audit:
    """The audit of a ledger: `Ledger.audit`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def append(self, tenant: str, deed: Deed) -> None:
        """Record `deed`. What concerns no tenant, such as a key that nobody knows, goes under `INSTALLATION`."""
        await self._store.write(lambda c: insert_deed(c, tenant, deed))

    async def perform(self, tenant: str, deed: Deed, unit: Callable[[Connection], T]) -> T:
        """Do `unit` and record `deed` in its transaction; where it raises, record that it was refused or failed.

        Args:
            unit: as `Writer.write` has it: it may run twice.
        """

        def performed(connection: Connection) -> T:
            result = unit(connection)
            insert_deed(connection, tenant, deed)
            return result

        try:
            return await self._store.write(performed)
        except Exception as error:
            await self.refused(tenant, deed, error)
            raise

    async def refused(self, tenant: str, deed: Deed, error: Exception) -> None:
        """Record that `deed` came to nothing because of `error`, if the ledger can still be written to."""
        code = error.code if isinstance(error, TrilogueError) else "internal"
        kept_under = INSTALLATION if code == "no_tenant" else tenant
        with suppress(TrilogueError):  # the first error is the one that is told
            await self.append(kept_under, replace(deed, outcome=Outcome.of(error), code=code))

    async def list(
        self, tenant: str, *, sought: Sought | None = None, limit: int = 50, cursor: str | None = None
    ) -> Listed[AuditRow]:
        """A page of a tenant's lines, newest first; a bad `cursor` or `limit` is `Invalid`."""
        return await self._store.read(
            partial(select_deeds, tenant=tenant, sought=sought or Sought(), limit=limit, cursor=cursor)
        )

    async def list_of_all_tenants(
        self, *, sought: Sought | None = None, limit: int = 50, cursor: str | None = None
    ) -> Listed[AuditRow]:
        """The same across tenants, for whoever owns the installation."""
        return await self._store.read(
            partial(select_deeds, tenant=None, sought=sought or Sought(), limit=limit, cursor=cursor)
        )


def insert_deed(connection: Connection, tenant: str, deed: Deed) -> None:
    """Record `deed` in the transaction of `connection`, as its last statement: until its end others wait for it.

    Raises:
        Invalid: an action that is none, or a detail that is no JSON.
    """
    if not _ACTION.fullmatch(deed.action):
        raise Invalid(f"no action is called {deed.action!r}: dotted lowercase words", code="invalid_action")
    values = {
        "tenant": tenant,
        "seq": select(func.coalesce(func.max(audit.c.seq), 0) + 1).where(audit.c.tenant == tenant).scalar_subquery(),
        "at": database_now(),
        "actor": _plain(deed.by.actor, LONGEST_OBJECT),
        "source": None if deed.by.source is None else _plain(deed.by.source, _LONGEST_SOURCE),
        "action": deed.action,
        "object": _plain(deed.object, LONGEST_OBJECT),
        "outcome": deed.outcome.value,
        "code": deed.code,
        "detail": _detail(deed),
    }
    insertion = insert_unless_present(connection, audit).values(values).returning(audit.c.seq)
    # Where another process takes the number first, its commit is waited for, and the next number tried.
    while connection.execute(insertion).one_or_none() is None:
        pass


def select_deeds(
    connection: Connection, *, tenant: str | None, sought: Sought, limit: int, cursor: str | None
) -> Listed[AuditRow]:
    """A page of a tenant's audit, or with None of everybody's, newest first."""
    order = (audit.c.at, audit.c.tenant, audit.c.seq)
    query = select(audit).where(*_narrowed(sought))
    if tenant is not None:
        query = query.where(audit.c.tenant == tenant)
    if cursor is not None:
        before: tuple[Any, ...] = _read_cursor(cursor)
        query = query.where(tuple_(*order) < tuple_(*before))
    rows, more = select_listed(connection, query.order_by(*(column.desc() for column in order)), limit=limit)
    items = [_row(row) for row in rows]
    return Listed(items=items, next=_write_cursor(items[-1]) if more else None)


def _narrowed(sought: Sought) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if sought.actor is not None:
        wanted.append(audit.c.actor == sought.actor)
    if sought.since is not None:
        wanted.append(audit.c.at >= sought.since)
    if sought.action is not None:
        below = f"{sought.action}."
        wanted.append(or_(audit.c.action == sought.action, func.substr(audit.c.action, 1, len(below)) == below))
    if sought.object is not None:
        wanted.append(audit.c.object == sought.object)
    if sought.outcome is not None:
        wanted.append(audit.c.outcome == sought.outcome.value)
    return wanted


def _detail(deed: Deed) -> str:
    what = f"the detail of {deed.action!r}"
    text = without_keys(canonical(dict(deed.detail), what=what))
    return text if len(text) <= LONGEST_DETAIL else canonical({"cut": text[:LONGEST_DETAIL]}, what=what)


def _plain(text: str, length: int) -> str:
    text = without_keys(_UNSEEN.sub("\ufffd", text))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _row(row: Any) -> AuditRow:
    return AuditRow(**{**row, "outcome": Outcome(row["outcome"]), "detail": json.loads(row["detail"])})


def _write_cursor(last: AuditRow) -> str:
    return f"{last.at}.{last.seq}.{last.tenant}"


def _read_cursor(cursor: str) -> tuple[int, str, int]:
    match cursor.split(".", 2):
        case [at, seq, tenant] if _whole(at) and _whole(seq) and not _UNSEEN.search(tenant):
            return int(at), tenant, int(seq)
    raise bad_cursor(cursor)


def _whole(digits: str) -> bool:
    return digits.isascii() and digits.isdecimal() and len(digits) <= 18
