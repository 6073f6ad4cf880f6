"""Tenants: made, suspended, deleted. Nothing here but what is named so crosses from one tenant to another.

A tenant that is deleted keeps its row, as its pipelines keep theirs: its name is not given out again, so that
nobody comes into what was somebody else's.
"""

from functools import partial
from typing import Any

from sqlalchemy import Connection, func, select, update

from trilogue.errors import Conflict
from trilogue.identity import check_name
from trilogue.ledger.audit import Audit
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.identities import By, Deed, Listed, TenantFigures, TenantRow, TenantStatus
from trilogue.ledger.identity_tables import api_keys, projects, tenants
from trilogue.ledger.keys import is_good, revoke_all
from trilogue.ledger.projects import DEFAULT, insert_project
from trilogue.ledger.rows import TENANT
from trilogue.ledger.standing import check_there, select_tenant, tenant_row
from trilogue.ledger.store import Store, check_cursor, select_listed
from trilogue.ledger.tables import pipelines
from trilogue.pipeline import Status

_OPEN = [status.value for status in Status if not status.ended]


class Tenants:
    """The tenants of a ledger: `Ledger.tenants`. What changes one is recorded in its audit."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def create(self, tenant: str, *, by: By, shared_model_key: bool = True) -> TenantRow:
        """Make a tenant, with the project `default`.

        Raises:
            Invalid: it cannot be called so.
            Conflict: code `exists`, also where it was deleted.
        """
        check_name("tenant", tenant)
        deed = Deed(by=by, action="tenant.create", object=tenant, detail={"shared_model_key": shared_model_key})
        return await self._audit.perform(tenant, deed, lambda c: _create(c, tenant, shared_model_key))

    async def get(self, tenant: str) -> TenantRow:
        """The tenant, also a deleted one; `NotFound`, code `no_tenant`, where there never was one."""
        return await self._store.read(lambda c: select_tenant(c, tenant))

    async def figures(self, tenant: str) -> TenantFigures:
        """How much it has."""
        return await self._store.read(lambda c: _figures(c, tenant))

    async def list_all(self, *, deleted: bool = False, limit: int = 50, cursor: str | None = None) -> Listed[TenantRow]:
        """A page of all tenants, by name; `deleted`: those, too."""
        return await self._store.read(partial(_select_all, deleted=deleted, limit=limit, cursor=cursor))

    async def suspend(self, tenant: str, *, by: By, reason: str = "") -> TenantRow:
        """Refuse a tenant's keys and let nothing of it begin; what runs goes on. Again, it changes nothing.

        Raises:
            Conflict: it is deleted, or is `default`, which the open local mode lives in.
        """
        return await self._become(tenant, TenantStatus.SUSPENDED, "tenant.suspend", by, reason)

    async def activate(self, tenant: str, *, by: By, reason: str = "") -> TenantRow:
        """Take a suspension back. Raises `Conflict` for a deleted one."""
        return await self._become(tenant, TenantStatus.ACTIVE, "tenant.activate", by, reason)

    async def delete(self, tenant: str, *, by: By) -> TenantRow:
        """Delete a tenant and revoke its keys; its record stays. `ledger.closing` stops its pipelines first.

        Raises:
            Conflict: code `pipelines_open`, and how many; `default_tenant`; `tenant_deleted` already.
        """
        deed = Deed(by=by, action="tenant.delete", object=tenant)
        return await self._audit.perform(tenant, deed, lambda c: _delete(c, tenant))

    async def open_pipelines(self, tenant: str, *, limit: int) -> list[str]:
        """The ids of some pipelines of a tenant that have not ended, those first that were begun first."""
        return await self._store.read(lambda c: _select_open(c, tenant, limit))

    async def _become(self, tenant: str, status: TenantStatus, action: str, by: By, reason: str) -> TenantRow:
        deed = Deed(by=by, action=action, object=tenant, detail={"reason": reason} if reason else {})
        return await self._audit.perform(tenant, deed, lambda c: _become(c, tenant, status))


def _create(connection: Connection, tenant: str, shared_model_key: bool) -> TenantRow:
    values = {
        "tenant": tenant,
        "status": TenantStatus.ACTIVE.value,
        "shared_model_key": shared_model_key,
        "created_at": database_now(),
        "changed_at": database_now(),
    }
    inserted = insert_unless_present(connection, tenants).values(values).returning(*tenants.c)
    row = connection.execute(inserted).mappings().one_or_none()
    if row is None:
        deleted = select_tenant(connection, tenant).status is TenantStatus.DELETED
        why = "was deleted, and a name is not given out again" if deleted else "exists already"
        raise Conflict(f"tenant {tenant!r} {why}; choose another name", code="exists")
    insert_project(connection, tenant, DEFAULT)
    return tenant_row(row)


def _become(connection: Connection, tenant: str, status: TenantStatus) -> TenantRow:
    present = check_there(connection, tenant, to_change=True)
    if tenant == TENANT and status is TenantStatus.SUSPENDED:
        raise Conflict(
            f"tenant {TENANT!r} cannot be suspended: what runs on this machine without keys is its",
            code="default_tenant",
        )
    return present if present.status is status else _set(connection, tenant, status)


def _delete(connection: Connection, tenant: str) -> TenantRow:
    check_there(connection, tenant, to_change=True)
    if tenant == TENANT:
        raise Conflict(
            f"tenant {TENANT!r} cannot be deleted: what runs on this machine without keys is its", code="default_tenant"
        )
    open_ = connection.execute(select(func.count()).where(*_open(tenant))).scalar_one()
    if open_:
        are = "1 pipeline that has" if open_ == 1 else f"{open_:,} pipelines that have"
        raise Conflict(
            f"tenant {tenant!r} has {are} not ended: stop them, or delete with --stop", code="pipelines_open"
        )
    revoke_all(connection, tenant)
    return _set(connection, tenant, TenantStatus.DELETED)


def _set(connection: Connection, tenant: str, status: TenantStatus) -> TenantRow:
    changed = (
        update(tenants)
        .where(tenants.c.tenant == tenant)
        .values(status=status.value, changed_at=database_now())
        .returning(*tenants.c)
    )
    return tenant_row(connection.execute(changed).mappings().one())


def _open(tenant: str) -> tuple[Any, Any]:
    return pipelines.c.tenant == tenant, pipelines.c.status.in_(_OPEN)


def _select_open(connection: Connection, tenant: str, limit: int) -> list[str]:
    query = select(pipelines.c.id).where(*_open(tenant)).order_by(pipelines.c.created_at, pipelines.c.id)
    return list(connection.execute(query.limit(limit)).scalars())


def _figures(connection: Connection, tenant: str) -> TenantFigures:
    def count(*wanted: Any) -> Any:
        return select(func.count()).where(*wanted).scalar_subquery()

    row = connection.execute(
        select(
            count(pipelines.c.tenant == tenant).label("pipelines"),
            count(*_open(tenant)).label("open"),
            count(projects.c.tenant == tenant, projects.c.deleted_at.is_(None)).label("projects"),
            count(api_keys.c.tenant == tenant, is_good()).label("keys"),
        )
    ).mappings()
    return TenantFigures(**row.one())


def _select_all(connection: Connection, *, deleted: bool, limit: int, cursor: str | None) -> Listed[TenantRow]:
    query = select(tenants).order_by(tenants.c.tenant)
    if not deleted:
        query = query.where(tenants.c.status != TenantStatus.DELETED.value)
    if cursor is not None:
        query = query.where(tenants.c.tenant > check_cursor(cursor))
    rows, more = select_listed(connection, query, limit=limit)
    items = [tenant_row(row) for row in rows]
    return Listed(items=items, next=items[-1].tenant if more else None)
