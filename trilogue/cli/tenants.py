"""`trilogue tenants`: on the ledger itself; each change has its line in the tenant's audit."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from trilogue.cli.owning import minute, moment, show_done, show_page, with_own_ledger
from trilogue.cli.reading import cut, print_json, screen, table
from trilogue.cli.showing import inert
from trilogue.ledger.identities import AT_THE_TERMINAL, TenantFigures, TenantRow, TenantStatus

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

_STYLES = {TenantStatus.ACTIVE: "green", TenantStatus.SUSPENDED: "yellow", TenantStatus.DELETED: "red"}


def create(tenant: str, *, shared_model_key: bool, as_json: bool) -> None:
    row = with_own_ledger(
        lambda ledger: ledger.tenants.create(tenant, by=AT_THE_TERMINAL, shared_model_key=shared_model_key)
    )
    hint = f"give it a key: trilogue keys create NAME --tenant {row.tenant}"
    show_done(tenant_json(row), f"tenant {row.tenant} is made; {hint}", as_json=as_json)


def list_(*, deleted: bool, limit: int, cursor: str | None, as_json: bool) -> None:
    page = with_own_ledger(lambda ledger: ledger.tenants.list_all(deleted=deleted, limit=limit, cursor=cursor))
    again = ["tenants", "list", "--deleted" if deleted else None, "--limit", str(limit)]
    show_page(page, tenant_json, _table, again=again, none="None.", as_json=as_json)


def show(tenant: str, *, as_json: bool) -> None:
    async def read(ledger: "Ledger") -> tuple[TenantRow, TenantFigures]:
        return await ledger.tenants.get(tenant), await ledger.tenants.figures(tenant)

    row, figures = with_own_ledger(read)
    if as_json:
        print_json({**tenant_json(row), **asdict(figures)})
        return
    console = screen()
    console.print(Text.assemble(inert(row.tenant), "  ", (row.status.value, _STYLES[row.status])))
    console.print(Text(f"since {minute(row.created_at)} UTC; its status since {minute(row.changed_at)} UTC"))
    console.print(Text(f"pipelines: {figures.pipelines:,}, of which {figures.open:,} have not ended"))
    console.print(Text(f"projects: {figures.projects:,}; good keys: {figures.keys:,}"))
    may = "may" if row.shared_model_key else "may not"
    console.print(Text(f"{may} use the installation's key for models", style="dim"))


def suspend(tenant: str, reason: str, *, as_json: bool) -> None:
    row = with_own_ledger(lambda ledger: ledger.tenants.suspend(tenant, by=AT_THE_TERMINAL, reason=reason))
    said = f"tenant {row.tenant} is suspended: its keys are refused, nothing of it begins; what runs goes on"
    show_done(tenant_json(row), said, as_json=as_json)


def activate(tenant: str, reason: str, *, as_json: bool) -> None:
    row = with_own_ledger(lambda ledger: ledger.tenants.activate(tenant, by=AT_THE_TERMINAL, reason=reason))
    show_done(tenant_json(row), f"tenant {row.tenant} is active", as_json=as_json)


def delete(tenant: str, *, stop: bool, as_json: bool) -> None:
    async def gone(ledger: "Ledger") -> tuple[TenantRow, list[str]]:
        if not stop:
            return await ledger.tenants.delete(tenant, by=AT_THE_TERMINAL), []
        from trilogue.ledger.closing import stop_and_delete  # noqa: PLC0415  (SQLAlchemy takes 0.3 s to import)

        return await stop_and_delete(ledger, tenant, by=AT_THE_TERMINAL)

    row, stopped = with_own_ledger(gone)
    said = f"tenant {row.tenant} is deleted: its keys are revoked, its record stays"
    if stopped:
        said += f"; stopped first: {', '.join(stopped)}"
    show_done({**tenant_json(row), "stopped": stopped}, said, as_json=as_json)


def tenant_json(row: TenantRow) -> dict[str, Any]:
    """A tenant as a document."""
    return {
        "tenant": row.tenant,
        "status": row.status.value,
        "shared_model_key": row.shared_model_key,
        "created_at": moment(row.created_at),
        "changed_at": moment(row.changed_at),
    }


def _table(rows: Sequence[TenantRow]) -> Table:
    tenants = table("tenant", "status", "shared model key", "created (UTC)")
    for row in rows:
        status, shared = Text(row.status.value, style=_STYLES[row.status]), "yes" if row.shared_model_key else "no"
        tenants.add_row(inert(row.tenant), status, shared, cut(minute(row.created_at)))
    return tenants
