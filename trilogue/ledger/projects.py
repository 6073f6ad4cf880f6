"""Projects: what a tenant parts its pipelines into.

One that is deleted takes nothing new. Its pipelines stay as they are, and it comes back with them when it is made
again, which only its own tenant can.
"""

from functools import partial
from typing import Any

from sqlalchemy import Connection, func, select, update

from trilogue.errors import Conflict, NotFound
from trilogue.identity import check_name
from trilogue.ledger.audit import Audit
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.identities import By, Deed, Listed, ProjectRow
from trilogue.ledger.identity_tables import projects
from trilogue.ledger.keys import revoke_all
from trilogue.ledger.standing import check_there, select_project
from trilogue.ledger.store import Store, check_cursor, select_listed
from trilogue.ledger.tables import pipelines
from trilogue.pipeline import Status

DEFAULT = "default"
"""The project that every tenant has, and in which pipelines are that name none."""


class Projects:
    """The projects of a ledger: `Ledger.projects`. What changes one is recorded in its tenant's audit."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def create(self, tenant: str, project: str, *, by: By) -> ProjectRow:
        """Make a project, or bring a deleted one back.

        Raises:
            Invalid: it cannot be called so.
            Conflict: code `exists`.
        """
        check_name("project", project)
        deed = Deed(by=by, action="project.create", object=project)
        return await self._audit.perform(tenant, deed, lambda c: _create(c, tenant, project))

    async def get(self, tenant: str, project: str) -> ProjectRow:
        """The project; `NotFound`, code `no_project`, where there is none or it is deleted."""
        return await self._store.read(lambda c: select_project(c, tenant, project))

    async def list(self, tenant: str, *, limit: int = 50, cursor: str | None = None) -> Listed[ProjectRow]:
        """A page of a tenant's projects, by name, without deleted ones."""
        return await self._store.read(partial(_select_page, tenant=tenant, limit=limit, cursor=cursor))

    async def delete(self, tenant: str, project: str, *, by: By) -> ProjectRow:
        """Let a project take nothing new, and revoke the keys that were for it alone.

        Raises:
            Conflict: code `pipelines_open`, and how many; `default_project`.
        """
        deed = Deed(by=by, action="project.delete", object=project)
        return await self._audit.perform(tenant, deed, lambda c: _delete(c, tenant, project))


def insert_project(connection: Connection, tenant: str, project: str) -> ProjectRow | None:
    """Make a project, or bring a deleted one back; None where it is there."""
    values = {"tenant": tenant, "project": project, "created_at": database_now()}
    inserted = insert_unless_present(connection, projects).values(values).returning(*projects.c)
    row = connection.execute(inserted).mappings().one_or_none()
    if row is None:
        again = update(projects).where(*_this(tenant, project), projects.c.deleted_at.is_not(None))
        row = connection.execute(again.values(deleted_at=None).returning(*projects.c)).mappings().one_or_none()
    return None if row is None else ProjectRow(**row)


def _this(tenant: str, project: str) -> tuple[Any, Any]:
    return projects.c.tenant == tenant, projects.c.project == project


def _create(connection: Connection, tenant: str, project: str) -> ProjectRow:
    check_there(connection, tenant)
    made = insert_project(connection, tenant, project)
    if made is None:
        raise Conflict(f"tenant {tenant!r} has a project {project!r} already", code="exists")
    return made


def _delete(connection: Connection, tenant: str, project: str) -> ProjectRow:
    check_there(connection, tenant)
    # The row first: whatever begins in the project meanwhile holds it, and is counted below.
    query = update(projects).where(*_this(tenant, project), projects.c.deleted_at.is_(None))
    row = connection.execute(query.values(deleted_at=database_now()).returning(*projects.c)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"tenant {tenant!r} has no project {project!r}", code="no_project")
    if project == DEFAULT:
        raise Conflict(f"project {DEFAULT!r} cannot be deleted: what names no project is in it", code="default_project")
    statuses = [status.value for status in Status if not status.ended]
    of_it = (pipelines.c.tenant == tenant, pipelines.c.project == project, pipelines.c.status.in_(statuses))
    open_ = connection.execute(select(func.count()).where(*of_it)).scalar_one()
    if open_:
        are = "1 pipeline that has" if open_ == 1 else f"{open_:,} pipelines that have"
        raise Conflict(f"project {project!r} has {are} not ended: stop them first", code="pipelines_open")
    revoke_all(connection, tenant, project=project)
    return ProjectRow(**row)


def _select_page(connection: Connection, *, tenant: str, limit: int, cursor: str | None) -> Listed[ProjectRow]:
    query = select(projects).where(projects.c.tenant == tenant, projects.c.deleted_at.is_(None))
    if cursor is not None:
        query = query.where(projects.c.project > check_cursor(cursor))
    rows, more = select_listed(connection, query.order_by(projects.c.project), limit=limit)
    items = [ProjectRow(**row) for row in rows]
    return Listed(items=items, next=items[-1].project if more else None)
