"""`trilogue ledger …`: proving that the record was not changed."""

from pathlib import Path
from typing import Annotated

import typer

ledger_app = typer.Typer(help="Prove that the record was not changed.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else there.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's. Default: all.")]
Keys = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Public keys (PEM), kept elsewhere; no others may have signed."),
]
Copy = Annotated[
    Path | None,
    typer.Option("--anchors", metavar="FILE", help="The anchors as kept outside, such as TRILOGUE_ANCHOR_FILE."),
]
PipelineRef = Annotated[str, typer.Argument(metavar="ID", help="A pipeline's id, or the beginning of it.")]


@ledger_app.command("verify")
def verify(
    tenant: Tenant = None,
    pipeline: Annotated[str | None, typer.Option(metavar="ID", help="Only this pipeline's entries.")] = None,
    anchors: Copy = None,
    key: Keys = None,
    as_json: Json = False,
) -> None:
    """Say what of the record is whole, the first place that is not, and what is proved. Exit code 1: not whole."""
    from trilogue.cli import proving  # noqa: PLC0415

    raise typer.Exit(proving.verify(tenant=tenant, pipeline=pipeline, anchors=anchors, key=key, as_json=as_json))


@ledger_app.command("export")
def export(
    pipeline: PipelineRef,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: ID.bundle.jsonl; - is stdout.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Whose pipeline it is.")] = None,
    as_json: Json = False,
) -> None:
    """Write one file with all that proves a pipeline: entries, anchors, keys, checkpoints, report."""
    from trilogue.cli import proving  # noqa: PLC0415

    proving.export(pipeline, tenant=tenant, output=output, as_json=as_json)


@ledger_app.command("verify-bundle")
def verify_bundle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `trilogue ledger export` wrote.")],
    key: Keys = None,
    anchors: Copy = None,
    as_json: Json = False,
) -> None:
    """Check such a file, with no database and no network. Exit code 1: not whole."""
    from trilogue.cli import bundles  # noqa: PLC0415

    raise typer.Exit(bundles.verify_bundle(file, key=key, anchors=anchors, as_json=as_json))


@ledger_app.command("keys")
def keys(
    tenant: Tenant = None,
    pem: Annotated[bool, typer.Option("--pem", help="The public keys alone, to be kept elsewhere.")] = False,
    as_json: Json = False,
) -> None:
    """The keys that signed anchors."""
    from trilogue.cli import proving  # noqa: PLC0415

    proving.keys(tenant=tenant, pem=pem, as_json=as_json)


@ledger_app.command("anchors")
def anchors(
    tenant: Tenant = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: stdout.")] = None,
) -> None:
    """All anchors, one JSON object a line: the copy to be kept outside, made by hand."""
    from trilogue.cli import proving  # noqa: PLC0415

    proving.anchors(tenant=tenant, output=output)
