"""The commands and their options."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trilogue.cli.ledger import ledger_app
from trilogue.cli.options import Json
from trilogue.cli.tenancy import audit, keys_app, projects_app, tenants_app

app = typer.Typer(
    name="trilogue",
    help="Governed multi-agent pipelines: two agents research and negotiate, a mediator helps, one text is agreed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
blocks_app = typer.Typer(
    help="Prefect blocks: VaultSecrets, Dragonfly, OpenRouter, LedgerDatabase.", no_args_is_help=True
)
db_app = typer.Typer(help="The ledger's database.", no_args_is_help=True)
webhooks_app = typer.Typer(help="What is sent to your own address whenever a pipeline ends.", no_args_is_help=True)
checkpoints_app = typer.Typer(
    help="Named states of a pipeline, to look at, to compare and to go on from.", no_args_is_help=True
)
app.add_typer(checkpoints_app, name="checkpoints")
app.add_typer(blocks_app, name="blocks")
app.add_typer(webhooks_app, name="webhooks")
# Not shown: no face asks for keys yet, so they would promise what is not kept.
app.add_typer(tenants_app, name="tenants", hidden=True)
app.add_typer(projects_app, name="projects", hidden=True)
app.add_typer(keys_app, name="keys", hidden=True)
app.add_typer(db_app, name="db")
app.command()(audit)
app.add_typer(ledger_app, name="ledger")


class ModeName(StrEnum):
    """Where models are called."""

    openrouter = "openrouter"
    local = "local"


PipelineRef = Annotated[str, typer.Argument(metavar="ID", help="A pipeline's id, or the beginning of it.")]
Mode = Annotated[ModeName | None, typer.Option(help="Where models are called. Default: what is configured.")]
Model = Annotated[str | None, typer.Option(help="The model of all agents, such as anthropic/claude-sonnet-4.")]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens that each agent may spend in all. Default: 200,000.")]
MaxCost = Annotated[float | None, typer.Option(help="US dollars that the pipeline may spend in all. Default: 2.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds that a round of negotiation may take.")]


def _version(wanted: bool) -> None:
    if wanted:
        from trilogue import __version__  # noqa: PLC0415

        typer.echo(f"trilogue {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    objective: Annotated[str, typer.Argument(help="What you want, in plain text.")],
    hold: Annotated[bool, typer.Option("--hold", help="Hold at the report until `trilogue continue`.")] = False,
    mode: Mode = None,
    model: Model = None,
    model_for: Annotated[
        list[str] | None, typer.Option("--model-for", metavar="ROLE=MODEL", help="A model for ALPHA, BETA or GAMMA.")
    ] = None,
    timeout: Timeout = None,
    agent_timeout: Annotated[float | None, typer.Option(help="Seconds that each agent may research.")] = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    errors: Annotated[
        str | None,
        typer.Option(metavar="ALL/ALIKE/VIOLATIONS", help="Errors that take an agent out. Default: 8/2/1."),
    ] = None,
    replacements: Annotated[
        int | None, typer.Option(help="How often in a round an agent that was taken out is replaced. Default: 0.")
    ] = None,
    context: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A text given to both agents; repeatable.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="The project that it belongs to.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A word to find it by; repeatable.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Your own id for it, unique.")] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Where a signed POST goes whenever the pipeline ends.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take an objective through all phases, and show what happens."""
    from trilogue.cli import carrying  # noqa: PLC0415
    from trilogue.cli.documents import read_documents, read_models  # noqa: PLC0415
    from trilogue.spec import checked_spec  # noqa: PLC0415

    spec = checked_spec(
        objective=objective,
        auto_continue=not hold,
        mode=mode.value if mode else None,
        model=model,
        models=read_models(model_for or []),
        timeout=timeout,
        agent_timeout=agent_timeout,
        max_tokens=max_tokens,
        max_cost=max_cost,
        errors=errors,
        replacements=replacements,
        context=read_documents(context or []),
        project=project,
        labels=tuple(label or ()),
        external_id=external_id,
        webhook=webhook,
    )
    raise typer.Exit(carrying.run(spec, as_json=as_json))


@app.command("continue")
def continue_(
    pipeline: PipelineRef,
    mode: Mode = None,
    model: Model = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept on record.")] = None,
    guidance: Annotated[str | None, typer.Option(help="What the agents should heed.")] = None,
    as_json: Json = False,
) -> None:
    """Begin another round: from a held report, or after a round that ended without agreement."""
    from trilogue.cli import carrying  # noqa: PLC0415
    from trilogue.spec import checked_round  # noqa: PLC0415

    asked = checked_round(
        mode=mode.value if mode else None,
        model=model,
        timeout=timeout,
        max_tokens=max_tokens,
        max_cost=max_cost,
        reason=reason,
        guidance=guidance,
    )
    raise typer.Exit(carrying.continue_(pipeline, asked, as_json=as_json))


@app.command()
def resume(
    pipeline: PipelineRef,
    reason: Annotated[str | None, typer.Option(help="Why; needed for a stopped one, and kept on record.")] = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    as_json: Json = False,
) -> None:
    """Take up an interrupted, failed or stopped pipeline from where it stood."""
    from trilogue.cli import carrying  # noqa: PLC0415
    from trilogue.spec import checked_round  # noqa: PLC0415

    asked = checked_round(reason=reason, max_tokens=max_tokens, max_cost=max_cost)
    raise typer.Exit(carrying.resume(pipeline, asked, as_json=as_json))


@app.command()
def stop(
    pipeline: PipelineRef,
    reason: Annotated[str, typer.Option(help="Why; kept on record.")] = "",
    as_json: Json = False,
) -> None:
    """Stop a pipeline at once, wherever it runs: from now on its agents can neither act nor spend."""
    from trilogue.cli import stopping  # noqa: PLC0415

    stopping.stop(pipeline, reason, as_json=as_json)


@app.command()
def replay(
    pipeline: PipelineRef,
    until: Annotated[int | None, typer.Option(metavar="SEQ", help="Up to this entry of the ledger.")] = None,
    as_json: Json = False,
) -> None:
    """The story of a pipeline, and the board as it stood then."""
    from trilogue.cli import history  # noqa: PLC0415

    history.replay(pipeline, until=until, json_wanted=as_json)


CheckpointRef = Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint's name, or the `seq` it stands at.")]


@checkpoints_app.command("list")
def checkpoints_list(pipeline: PipelineRef, as_json: Json = False) -> None:
    """The checkpoints of a pipeline, oldest first."""
    from trilogue.cli import history  # noqa: PLC0415

    history.list_checkpoints(pipeline, as_json=as_json)


@checkpoints_app.command("show")
def checkpoints_show(pipeline: PipelineRef, name: CheckpointRef, as_json: Json = False) -> None:
    """The board as it stood at a checkpoint, and the details of a failure."""
    from trilogue.cli import history  # noqa: PLC0415

    history.show_checkpoint(pipeline, name, json_wanted=as_json)


@checkpoints_app.command("diff")
def checkpoints_diff(pipeline: PipelineRef, first: CheckpointRef, second: CheckpointRef, as_json: Json = False) -> None:
    """What changed from one checkpoint to another."""
    from trilogue.cli import history  # noqa: PLC0415

    history.diff_checkpoints(pipeline, first, second, as_json=as_json)


@checkpoints_app.command("resume")
def checkpoints_resume(
    pipeline: PipelineRef,
    name: CheckpointRef,
    reason: Annotated[str, typer.Option(help="Why; needed where it was stopped, and kept on record.")] = "",
    as_json: Json = False,
) -> None:
    """Go on from a checkpoint: everything after it is undone, except what it cost."""
    from trilogue.cli import carrying  # noqa: PLC0415

    raise typer.Exit(carrying.rewind(pipeline, name, reason, as_json=as_json))


@app.command()
def watch(pipeline: PipelineRef) -> None:
    """Show what has happened in a pipeline, and go on until it ends or is held."""
    from trilogue.cli import carrying  # noqa: PLC0415

    raise typer.Exit(carrying.watch(pipeline))


@app.command()
def status(pipeline: PipelineRef, as_json: Json = False) -> None:
    """Where a pipeline is, its agents, and what they used."""
    from trilogue.cli import reading  # noqa: PLC0415

    reading.status(pipeline, as_json=as_json)


@app.command("list")
def list_(
    search: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only pipelines whose objective, ids, project or a label hold this text."),
    ] = None,
    states: Annotated[
        list[str] | None, typer.Option("--status", help="Only pipelines of this status; may be repeated.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only pipelines of this project.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Pipelines, newest first."""
    from trilogue.cli import reading  # noqa: PLC0415

    narrowed = reading.Narrowed(search=search, states=states or [], project=project)
    reading.list_(narrowed, limit=limit, cursor=cursor, as_json=as_json)


@app.command()
def report(pipeline: PipelineRef, as_json: Json = False) -> None:
    """The report: what the agents found, and whether the pipeline may go on."""
    from trilogue.cli import reading  # noqa: PLC0415

    reading.report(pipeline, as_json=as_json)


@app.command()
def result(
    pipeline: PipelineRef,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write it to a file, as Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """The agreed text, who decided it, and any dissent."""
    from trilogue.cli import reading  # noqa: PLC0415

    reading.result(pipeline, output=output, as_json=as_json)


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Of the API.")] = 3000,
    prefect_port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Of Prefect's server. Default: the one it had last, at first 4200."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show what the parts log.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON with the addresses on stdout, once all is ready.")
    ] = False,
) -> None:
    """Run everything on this machine: the dashboard and API, Prefect with its UI, a warm worker. Ctrl-C ends it."""
    from trilogue.cli.up import up as run_up  # noqa: PLC0415

    raise typer.Exit(run_up(port=port, prefect_port=prefect_port, quiet=quiet, as_json=as_json))


@app.command()
def api(
    host: Annotated[str, typer.Option(help="The address to listen at; any but loopback needs TRILOGUE_API_KEY.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen at.")] = 3000,
    descriptor: Annotated[int | None, typer.Option(hidden=True, help="A socket that listens already.")] = None,
    may_rehearse: Annotated[bool, typer.Option("--may-rehearse", hidden=True, help="Where no model is named.")] = False,
) -> None:
    """Serve the HTTP API, described at /docs. Workers carry what is asked of it."""
    from trilogue.cli import serving  # noqa: PLC0415

    serving.api(host, port, descriptor=descriptor, may_rehearse=may_rehearse)


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1000, help="How many pipelines at once. Default: TRILOGUE_CONCURRENCY.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(min=0, max=86_400, help="Seconds for what runs when it is told to end.")
    ] = None,
) -> None:
    """Carry pipelines that wait or were left behind, until Ctrl-C or SIGTERM."""
    from trilogue.cli import serving  # noqa: PLC0415

    serving.worker(concurrency, grace)


@app.command(hidden=True)
def deployments() -> None:
    """Deploy what prefect.yaml names, and run its flow runs. A part of `up`."""
    from trilogue.cli import serving  # noqa: PLC0415

    serving.deployments()


@blocks_app.command("register")
def blocks_register(
    save: Annotated[
        bool, typer.Option("--save", help="Also save the blocks named `trilogue` from the environment.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register the block types with the Prefect server."""
    from trilogue.cli import administering  # noqa: PLC0415

    administering.register_blocks(save=save, as_json=as_json)


@webhooks_app.command("test")
def webhooks_test(
    url: Annotated[str | None, typer.Argument(help="Where to. Default: TRILOGUE_WEBHOOK_URL.")] = None,
    secret_env: Annotated[
        str, typer.Option(metavar="NAME", help="The variable that holds the secret to sign with.")
    ] = "TRILOGUE_WEBHOOK_SECRET",  # noqa: S107  (its name)
    as_json: Json = False,
) -> None:
    """Send a signed ping, once, and show what came back."""
    from trilogue.cli import webhooks  # noqa: PLC0415

    raise typer.Exit(webhooks.test(url, secret_env, as_json=as_json))


@webhooks_app.command("list")
def webhooks_list(
    state: Annotated[str | None, typer.Option("--status", help="Only pending, delivered or failed ones.")] = None,
    pipeline: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this pipeline.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Webhooks, newest first: which were delivered, and what keeps the others."""
    from trilogue.cli import webhooks  # noqa: PLC0415

    webhooks.list_(state=state, pipeline=pipeline, limit=limit, cursor=cursor, as_json=as_json)


@db_app.command("upgrade")
def db_upgrade(as_json: Json = False) -> None:
    """Bring the ledger's database to the newest schema revision."""
    from trilogue.cli import administering  # noqa: PLC0415

    administering.upgrade_database(as_json=as_json)


@db_app.command("current")
def db_current(as_json: Json = False) -> None:
    """The schema revision of the ledger's database, and the newest one."""
    from trilogue.cli import administering  # noqa: PLC0415

    administering.current_database(as_json=as_json)
