"""Commands that look after an installation: blocks and the database."""

import asyncio
import os
from pathlib import Path

import typer

from trilogue.cli.reading import print_json
from trilogue.errors import Invalid
from trilogue.launch import prefect_configured
from trilogue.ledger import schema
from trilogue.ledger.opening import ledger_url
from trilogue.settings import load_settings


def register_blocks(*, save: bool, as_json: bool) -> None:
    settings = load_settings()
    if not prefect_configured():
        raise Invalid(
            "no Prefect server is configured: set PREFECT_API_URL, such as http://127.0.0.1:4200/api",
            code="no_prefect",
        )
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    from blocks.registration import register  # noqa: PLC0415  (imports Prefect)

    registered = asyncio.run(register(save=save, settings=settings))
    if as_json:
        items = [{"slug": block.slug, "document": block.document, "action": block.action} for block in registered]
        print_json({"items": items, "next": None})
        return
    for block in registered:
        name = f"{block.slug}/{block.document}" if block.document else block.slug
        typer.echo(f"{block.action:<12} {name}")


def upgrade_database(*, as_json: bool) -> None:
    settings = load_settings()
    url = ledger_url(settings)
    if settings.database_url is None:
        _make(settings.home)
    revision = schema.upgrade(url)
    if as_json:
        print_json({"revision": revision, "newest": schema.head()})
    else:
        typer.echo(f"the ledger is at revision {revision}")


def _make(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"TRILOGUE_HOME {str(home)!r} cannot be used: {error.strerror}", code="bad_home") from None


def current_database(*, as_json: bool) -> None:
    revision = schema.current(ledger_url(load_settings()))
    if as_json:
        print_json({"revision": revision, "newest": schema.head()})
    else:
        typer.echo(f"at {revision or 'no revision: empty'}; the newest is {schema.head()}")
