"""`trilogue projects`: on the ledger itself; each change has its line in the tenant's audit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from trilogue.cli.owning import minute, moment, show_done, show_page, with_own_ledger
from trilogue.cli.reading import cut, table
from trilogue.cli.showing import inert
from trilogue.ledger.identities import AT_THE_TERMINAL, Listed, ProjectRow

if TYPE_CHECKING:
    from trilogue.ledger import Ledger


def create(tenant: str, project: str, *, as_json: bool) -> None:
    row = with_own_ledger(lambda ledger: ledger.projects.create(tenant, project, by=AT_THE_TERMINAL))
    show_done(project_json(row), f"project {row.project} of tenant {row.tenant} is there", as_json=as_json)


def list_(tenant: str, *, limit: int, cursor: str | None, as_json: bool) -> None:
    async def read(ledger: "Ledger") -> Listed[ProjectRow]:
        await ledger.tenants.get(tenant)
        return await ledger.projects.list(tenant, limit=limit, cursor=cursor)

    again = ["projects", "list", "--tenant", tenant, "--limit", str(limit)]
    show_page(with_own_ledger(read), project_json, _table, again=again, none="None.", as_json=as_json)


def delete(tenant: str, project: str, *, as_json: bool) -> None:
    row = with_own_ledger(lambda ledger: ledger.projects.delete(tenant, project, by=AT_THE_TERMINAL))
    said = f"project {row.project} of tenant {row.tenant} takes nothing new; its pipelines stay"
    show_done(project_json(row), said, as_json=as_json)


def project_json(row: ProjectRow) -> dict[str, Any]:
    """A project as a document."""
    return {
        "tenant": row.tenant,
        "project": row.project,
        "created_at": moment(row.created_at),
        "deleted_at": moment(row.deleted_at),
    }


def _table(rows: Sequence[ProjectRow]) -> Table:
    projects = table("project", "created (UTC)")
    for row in rows:
        projects.add_row(inert(row.project), cut(minute(row.created_at)))
    return projects
