"""The commands about who may call, and what people did: `tenants`, `projects`, `keys`, `audit`, with their options.

They work on the ledger itself: who has its database owns the installation.
"""

from typing import Annotated

import typer

from trilogue.cli.options import Cursor, Json, Limit
from trilogue.identity import Access

tenants_app = typer.Typer(help="Who shares this installation without seeing each other.", no_args_is_help=True)
projects_app = typer.Typer(help="What a tenant parts its pipelines into.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: shown once, kept as hashes.", no_args_is_help=True)

Tenant = Annotated[str, typer.Argument(metavar="TENANT", help="A tenant's name.")]
OfTenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose.")]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="A project's name.")]
KeyRef = Annotated[str, typer.Argument(metavar="ID", help="A key's id; the whole key will do.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]
Expires = Annotated[
    str | None, typer.Option(metavar="WHEN", help="90d, or a moment such as 2026-12-31T23:59Z. Default: never.")
]


@tenants_app.command("create")
def tenants_create(
    tenant: Tenant,
    shared_model_key: Annotated[
        bool, typer.Option(help="Whether it may use the installation's key for models where it has none of its own.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Make a tenant: a-z, 0-9 and '-', at most 40 characters."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.create(tenant, shared_model_key=shared_model_key, as_json=as_json)


@tenants_app.command("list")
def tenants_list(
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that were deleted, too.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """All tenants, by name."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.list_(deleted=deleted, limit=limit, cursor=cursor, as_json=as_json)


@tenants_app.command("show")
def tenants_show(tenant: Tenant, as_json: Json = False) -> None:
    """How a tenant stands, and how much it has."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.show(tenant, as_json=as_json)


@tenants_app.command("suspend")
def tenants_suspend(tenant: Tenant, reason: Reason = "", as_json: Json = False) -> None:
    """Refuse a tenant's keys and let nothing of it begin. What runs goes on."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.suspend(tenant, reason, as_json=as_json)


@tenants_app.command("activate")
def tenants_activate(tenant: Tenant, reason: Reason = "", as_json: Json = False) -> None:
    """Take a suspension back."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.activate(tenant, reason, as_json=as_json)


@tenants_app.command("delete")
def tenants_delete(
    tenant: Tenant,
    stop: Annotated[bool, typer.Option("--stop", help="Stop its pipelines first.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a tenant for good: its keys are revoked, its record stays, its name is not given out again."""
    from trilogue.cli import tenants  # noqa: PLC0415

    tenants.delete(tenant, stop=stop, as_json=as_json)


@projects_app.command("create")
def projects_create(project: Project, tenant: OfTenant = "default", as_json: Json = False) -> None:
    """Make a project, or bring a deleted one back."""
    from trilogue.cli import projects  # noqa: PLC0415

    projects.create(tenant, project, as_json=as_json)


@projects_app.command("list")
def projects_list(
    tenant: OfTenant = "default", limit: Limit = 50, cursor: Cursor = None, as_json: Json = False
) -> None:
    """A tenant's projects, by name."""
    from trilogue.cli import projects  # noqa: PLC0415

    projects.list_(tenant, limit=limit, cursor=cursor, as_json=as_json)


@projects_app.command("delete")
def projects_delete(project: Project, tenant: OfTenant = "default", as_json: Json = False) -> None:
    """Let a project take nothing new, and revoke its keys; its pipelines stay."""
    from trilogue.cli import projects  # noqa: PLC0415

    projects.delete(tenant, project, as_json=as_json)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What you call it, such as ci.")],
    tenant: OfTenant = "default",
    access: Annotated[
        Access, typer.Option(help="viewer reads; operator also spawns and stops; admin also has keys and projects.")
    ] = Access.OPERATOR,
    expires: Expires = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="The only project that it opens.")] = None,
    as_json: Json = False,
) -> None:
    """Make an API key and show it, this once, on stdout."""
    from trilogue.cli import keys  # noqa: PLC0415

    keys.create(tenant, name, access=access, expires=expires, project=project, as_json=as_json)


@keys_app.command("list")
def keys_list(
    tenant: OfTenant = "default",
    gone: Annotated[bool, typer.Option("--all", help="Those that expired or were revoked, too.")] = False,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """A tenant's keys, newest first: what they open, until when, and when they were used last."""
    from trilogue.cli import keys  # noqa: PLC0415

    keys.list_(tenant, gone=gone, limit=limit, cursor=cursor, as_json=as_json)


@keys_app.command("rotate")
def keys_rotate(
    key: KeyRef,
    tenant: OfTenant = "default",
    grace: Annotated[str, typer.Option(metavar="DURATION", help="How long the old one stays good, 0s to 30d.")] = "24h",
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Of the new one. Default: as long a life as the old one had.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key in another's place and show it, this once, on stdout."""
    from trilogue.cli import keys  # noqa: PLC0415

    keys.rotate(tenant, key, grace=grace, expires=expires, as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(key: KeyRef, tenant: OfTenant = "default", reason: Reason = "", as_json: Json = False) -> None:
    """From now on a key opens nothing."""
    from trilogue.cli import keys  # noqa: PLC0415

    keys.revoke(tenant, key, reason, as_json=as_json)


def audit(
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one's. Default: everybody's.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this key did, or local, or installation.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Not older than 7d, or a moment such as 2026-11-22.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="Only these: key.create, or key for all about keys.")] = None,
    on: Annotated[str | None, typer.Option("--object", metavar="ID", help="Only what was done to this.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only what was ok, refused or failed.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """What people did, from where, and what became of it, newest first."""
    from trilogue.cli import auditing  # noqa: PLC0415

    narrowed = auditing.Narrowed(tenant=tenant, actor=actor, since=since, action=action, on=on, outcome=outcome)
    auditing.list_(narrowed, limit=limit, cursor=cursor, as_json=as_json)
