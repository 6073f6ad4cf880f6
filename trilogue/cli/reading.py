"""Commands that only read: `status`, `list`, `report`, `result`. They need the ledger and nothing else."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from trilogue.board import Board, fold
from trilogue.cli.finding import find
from trilogue.cli.showing import STATUS_STYLES, inert
from trilogue.errors import Invalid, NotFound
from trilogue.launch import effective
from trilogue.ledger import Ledger, PipelineRow, UsageRow
from trilogue.outcome import list_item, outcome_json, result_markdown
from trilogue.pipeline import Status
from trilogue.services import TENANT, open_ledger
from trilogue.settings import load_settings

T = TypeVar("T")


def print_json(document: Any) -> None:
    """The one document on stdout."""
    print(json.dumps(document, ensure_ascii=False, indent=2))  # noqa: T201


def with_ledger(use: Callable[[Ledger], Awaitable[T]]) -> T:
    """Open the ledger, use it, and close it."""

    async def opened() -> T:
        ledger = await open_ledger(await effective(load_settings()))
        try:
            return await use(ledger)
        finally:
            await ledger.close()

    return asyncio.run(opened())


async def everything(ledger: Ledger, given: str) -> tuple[PipelineRow, Board, list[UsageRow]]:
    """Row, board and usage of the pipeline that `given` means."""
    pipeline_id = await find(ledger, given)
    row = await ledger.get_pipeline(TENANT, pipeline_id)
    board = fold(await ledger.entries(TENANT, pipeline_id))
    return row, board, await ledger.usage(TENANT, pipeline_id)


def status(given: str, *, as_json: bool) -> None:
    row, board, usage = with_ledger(lambda ledger: everything(ledger, given))
    document = outcome_json(row, board, usage)
    if as_json:
        print_json(document)
        return
    console = Console()
    console.print(Text.assemble(row.pipeline_id, "  ", (row.status.value, STATUS_STYLES[row.status])))
    console.print(Text(inert(row.objective)))
    if board.error:
        console.print(Text(inert(f"{board.error['code']}: {board.error['message']}"), style="red"))
    if advice := advice_for(row, board):
        console.print(Text(advice, style="cyan"))
    phases = Table("phase", "started", "seconds", box=None, pad_edge=False)
    for phase in document["phases"]:
        phases.add_row(phase["phase"], phase["started_at"], f"{phase['seconds']:.1f}")
    agents = Table("agent", "status", "model", "turns", "tokens in/out", "cost", "errors", box=None, pad_edge=False)
    for agent in document["agents"]:
        cost = "unknown" if agent["cost_usd"] is None else f"${agent['cost_usd']:.4f}"
        tokens = f"{agent['tokens']['input']}/{agent['tokens']['output']}"
        agents.add_row(
            agent["agent_id"],
            agent["status"],
            inert(agent["model"]),
            str(agent["turns"]),
            tokens,
            cost,
            str(agent["errors"]),
        )
    console.print(phases)
    console.print(agents)


def advice_for(row: PipelineRow, board: Board) -> str | None:
    """What a person can do with a pipeline that does not go on by itself."""
    if row.orphaned or (row.status is Status.SPAWNED and not row.leased):
        return f"nobody works on it; `trilogue resume {row.pipeline_id}` takes it up"
    if row.status is Status.REPORT and not row.leased:
        reasons = "; ".join(board.report["continuation"]["reasons"]) if board.report else ""
        return f"held at REPORT ({reasons or 'interrupted'}); `trilogue continue {row.pipeline_id}` goes on"
    if row.status.continuable:
        return f"`trilogue continue {row.pipeline_id}` begins another round"
    return None


def list_(*, state: str | None, project: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    wanted = None
    if state is not None:
        wanted = next((known for known in Status if known == state.upper()), None)
        if wanted is None:
            raise Invalid(f"no status is called {state!r}; there are: {', '.join(Status)}", code="invalid_status")
    page = with_ledger(
        lambda ledger: ledger.list_pipelines(TENANT, limit=limit, cursor=cursor, status=wanted, project=project)
    )
    if as_json:
        print_json({"items": [list_item(row) for row in page.items], "next": page.next})
        return
    console = Console()
    if not page.items:
        console.print('No pipelines yet. Start one: trilogue run "Design a caching strategy"')
        return
    table = Table("id", "status", "phase", "created", "objective", box=None, pad_edge=False)
    for row in page.items:
        shown = Text(row.status.value, style=STATUS_STYLES[row.status])
        if row.orphaned:
            shown.append(" orphaned", style="yellow")
        item = list_item(row)
        table.add_row(row.pipeline_id, shown, row.phase.value, item["created_at"][:19], Text(_line(row.objective)))
    console.print(table)
    if page.next:
        console.print(Text(f"More: trilogue list --cursor {page.next}", style="dim"))


def report(given: str, *, as_json: bool) -> None:
    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    if board.report is None:
        raise NotFound(f"pipeline {row.pipeline_id!r} has no report: it is {row.status}", code="no_report")
    if as_json:
        print_json(dict(board.report))
    else:
        show_markdown(str(board.report["markdown"]))


def result(given: str, *, output: Path | None, as_json: bool) -> None:
    row, board, usage = with_ledger(lambda ledger: everything(ledger, given))
    markdown = result_markdown(row.pipeline_id, board)
    if output is not None:
        _write(output, markdown)
    if as_json:
        print_json(outcome_json(row, board, usage))
    elif output is None:
        show_markdown(markdown)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a temporary file beside it, renamed over it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Invalid(f"{str(path)!r} cannot be written: {error.strerror}", code="bad_output") from None


def show_markdown(markdown: str) -> None:
    """Rendered on a terminal, as it is elsewhere."""
    if sys.stdout.isatty():
        Console().print(Markdown(inert(markdown), hyperlinks=False))
    else:
        print(inert(markdown), end="")  # noqa: T201


def _line(text: str) -> str:
    return " ".join(inert(text).split())[:100]
