"""How a tenant and its projects stand: asked by every unit that makes something for one.

The locks keep the answer true until the transaction ends.
"""

from typing import Any

from sqlalchemy import Connection, select

from trilogue.errors import Conflict, Denied, NotFound
from trilogue.ledger.identities import ProjectRow, TenantRow, TenantStatus
from trilogue.ledger.identity_tables import projects, tenants


def tenant_row(row: Any) -> TenantRow:
    """A row of the table as a value."""
    return TenantRow(**{**row, "status": TenantStatus(row["status"])})


def select_tenant(connection: Connection, tenant: str) -> TenantRow:
    """One tenant, also a deleted one. Raises `NotFound`, code `no_tenant`."""
    return _select(connection, tenant, select(tenants))


def check_active(connection: Connection, tenant: str) -> TenantRow:
    """The tenant, which is not suspended or deleted before the transaction ends: for whatever begins.

    Raises:
        NotFound: there is none, or it is deleted.
        Denied: code `tenant_suspended`.
    """
    row = _select(connection, tenant, select(tenants).with_for_update(read=True))
    if row.status is TenantStatus.DELETED:
        raise NotFound(f"no tenant {tenant!r}", code="no_tenant")
    if row.status is TenantStatus.SUSPENDED:
        raise Denied(f"tenant {tenant!r} is suspended: nothing of it begins", code="tenant_suspended")
    return row


def check_there(connection: Connection, tenant: str, *, to_change: bool = False) -> TenantRow:
    """The tenant, which is not deleted before the transaction ends, nor anything else where it is `to_change`.

    Raises:
        NotFound: there never was one.
        Conflict: code `tenant_deleted`.
    """
    row = _select(connection, tenant, select(tenants).with_for_update(read=not to_change))
    if row.status is TenantStatus.DELETED:
        raise Conflict(f"tenant {tenant!r} is deleted, for good", code="tenant_deleted")
    return row


def select_project(connection: Connection, tenant: str, project: str, *, lock: bool = False) -> ProjectRow:
    """A project, which with `lock` is not deleted before the transaction ends.

    Raises:
        NotFound: code `no_project`: there is none, or it is deleted.
    """
    query = select(projects).where(
        projects.c.tenant == tenant, projects.c.project == project, projects.c.deleted_at.is_(None)
    )
    row = connection.execute(query.with_for_update(read=True) if lock else query).mappings().one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant!r} has no project {project!r}", code="no_project")
    return ProjectRow(**row)


def _select(connection: Connection, tenant: str, query: Any) -> TenantRow:
    row = connection.execute(query.where(tenants.c.tenant == tenant)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no tenant {tenant!r}", code="no_tenant")
    return tenant_row(row)
