"""Commands that only read: `status`, `list`, `report`, `result`. They need the ledger, or a server that has it."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trilogue.board import Board, fold
from trilogue.cli.finding import find
from trilogue.cli.remote import Record, RemoteLedger
from trilogue.cli.server import Connection, Server, server_for
from trilogue.cli.showing import STATUS_STYLES, inert, short
from trilogue.clock import SECOND
from trilogue.errors import Invalid, NotFound
from trilogue.launch import effective
from trilogue.ledger.rows import TENANT, Cost, Page, PipelineRow, UsageRow
from trilogue.outcome import cost_in_all, list_items, outcome_json, result_markdown
from trilogue.pipeline import Status
from trilogue.settings import load_settings

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

T = TypeVar("T")
Everything = tuple[PipelineRow, Board, list[UsageRow]]
"""Of one pipeline: how it stands, its board, and what its agents used."""

_WIDE = 240
_FIRST = 'No pipelines yet. Start one: trilogue run "Design a caching strategy"'


def print_json(document: Any) -> None:
    """The one document on stdout."""
    print(json.dumps(document, ensure_ascii=False, indent=2))  # noqa: T201


def with_record(use: Callable[[Record], Awaitable[T]]) -> T:
    """Use the record of pipelines, and close it: the server's where one runs, else the ledger itself."""
    server = server_for(load_settings())
    if server is None:
        return with_ledger(use)

    async def opened(server: Server) -> T:
        async with Connection(server) as connection:
            return await use(RemoteLedger(connection))

    return asyncio.run(opened(server))


def with_ledger(use: "Callable[[Ledger], Awaitable[T]]") -> T:
    """Open the ledger itself, use it, and close it."""
    from trilogue.ledger.opening import open_ledger  # noqa: PLC0415  (SQLAlchemy takes 0.3 s to import)

    async def opened() -> T:
        ledger = await open_ledger(await effective(load_settings()))
        try:
            return await use(ledger)
        finally:
            await ledger.close()

    return asyncio.run(opened())


async def everything(ledger: Record, given: str) -> Everything:
    """Row, board and usage of the pipeline that `given` means."""
    pipeline_id = await find(ledger, given)
    row = await ledger.get_pipeline(TENANT, pipeline_id)
    board = fold(await ledger.entries(TENANT, pipeline_id))
    return row, board, await ledger.usage(TENANT, pipeline_id)


def status(given: str, *, as_json: bool) -> None:
    row, board, usage = with_record(lambda ledger: everything(ledger, given))
    document = outcome_json(row, board, usage)
    if as_json:
        print_json(document)
        return
    console = screen()
    console.print(Text.assemble(row.pipeline_id, "  ", standing(row)))
    console.print(Text(inert(row.objective)))
    if document["rehearsal"]:
        console.print(Text("Rehearsal: no language model is used.", style="yellow"))
    if board.error:
        console.print(Text(inert(f"{board.error['code']}: {board.error['message']}"), style="red"))
    if advice := advice_for(row, board):
        console.print(Text(advice, style="cyan"))
    console.print()
    phases = table("phase", "started (UTC)", "seconds")
    for phase in document["phases"]:
        phases.add_row(phase["phase"], _moment(phase["started_at"]), cut(f"{phase['seconds']:.1f}"))
    agents = table("agent", "status", "turns", "tokens in/out", "of budget", "cost", "errors", "model")
    for agent in document["agents"]:
        agents.add_row(
            agent["agent_id"],
            agent["status"],
            str(agent["turns"]),
            f"{agent['tokens']['input']:,}/{agent['tokens']['output']:,}",
            _share(agent["budget"]),
            cost(agent["cost_usd"]),
            str(agent["errors"]),
            cut(agent["model"]),
        )
    console.print(phases)
    if document["agents"]:
        console.print()
        console.print(agents)
        console.print(Text(_money(document["budget"]), style="dim"))
    for mediation in document["mediation"]:
        console.print(Text(f"mediation by {mediation['trigger']}: {inert(mediation['outcome'] or 'under way')}"))
    console.print(Text(f"{row.head_seq} entries in the ledger, the last with hash {row.head_hash[:16]}…", style="dim"))


def screen() -> Console:
    """Where people read: as wide as the terminal; elsewhere nothing is cut."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)


def table(*columns: str) -> Table:
    """A table without lines; only its last column, filled with `cut`, gives way on a narrow terminal."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        made.add_column(name, no_wrap=name != columns[-1])
    return made


def cut(text: str) -> Text:
    """One line, cut where the terminal ends."""
    return Text(short(text, _WIDE), no_wrap=True, overflow="ellipsis")


def standing(row: PipelineRow) -> Text:
    """The status, and whether nobody works on it though somebody should."""
    shown = Text(row.status.value, style=STATUS_STYLES[row.status])
    return shown.append(" (orphaned)", style="yellow") if row.orphaned else shown


def cost(usd: float | None) -> str:
    """Dollars; an unknown cost is never shown as nothing."""
    return "unknown" if usd is None else f"${usd:.4f}"


def _share(budget: dict[str, Any]) -> str:
    """How much of its tokens an agent was charged with; `~` where a call's end is not known."""
    if not budget["tokens"]:
        return "–" if budget["tokens"] is None else "100 %"
    return f"{'~' if budget['estimated'] else ''}{budget['spent'] / budget['tokens']:.0%}"


def _money(budget: dict[str, Any]) -> str:
    about = "about " if budget["estimated"] else ""
    limit = "no limit" if budget["cost_usd"] is None else f"{cost(budget['cost_usd'])} allowed"
    return f"charged {about}{cost(budget['spent_usd'])}, {limit}"


def _moment(iso: str) -> str:
    return f"{iso[:10]} {iso[11:19]}"


def advice_for(row: PipelineRow, board: Board) -> str | None:
    """What a person can do with a pipeline that does not go on by itself."""
    if row.queued_at is not None and not row.leased:
        return "waiting for a worker"
    if row.orphaned or (row.status is Status.SPAWNED and not row.leased):
        return f"nobody works on it; `trilogue resume {row.pipeline_id}` takes it up"
    if row.status is Status.REPORT and not row.leased:
        reasons = "; ".join(board.report["continuation"]["reasons"]) if board.report else ""
        return f"held at REPORT ({reasons or 'interrupted'}); `trilogue continue {row.pipeline_id}` goes on"
    if row.status.continuable:
        more = " --max-tokens N` or `--max-cost USD" if board.error and board.error["code"] == "budget_spent" else ""
        return f"`trilogue continue {row.pipeline_id}{more}` begins another round"
    return None


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Which pipelines a list is to show; what is left out narrows nothing."""

    search: str | None = None
    states: Sequence[str] = ()
    project: str | None = None

    @property
    def statuses(self) -> list[Status]:
        """What `states` mean. Raises `Invalid`."""
        for state in self.states:
            if state.upper() not in set(Status):
                raise Invalid(f"no status is called {state!r}; there are: {', '.join(Status)}", code="invalid_status")
        return [Status(state.upper()) for state in self.states]

    @property
    def options(self) -> list[str]:
        """The same as one would write it."""
        states = [("--status", state) for state in self.states]
        given = [("--search", self.search), *states, ("--project", self.project)]
        return [word for name, value in given if value is not None for word in (name, value)]


def list_(narrowed: Narrowed, *, limit: int, cursor: str | None, as_json: bool) -> None:
    statuses = narrowed.statuses

    async def read(ledger: Record) -> tuple[Page, Mapping[str, Cost]]:
        page = await ledger.list_pipelines(
            TENANT,
            limit=limit,
            cursor=cursor,
            statuses=statuses,
            project=narrowed.project,
            search=narrowed.search,
        )
        return page, await ledger.costs(TENANT, [row.pipeline_id for row in page.items])

    page, costs = with_record(read)
    items = list_items(page.items, costs)
    if as_json:
        print_json({"items": items, "next": page.next})
        return
    console = screen()
    if not items:
        none = "No such pipelines." if narrowed.options or cursor else _FIRST
        console.print(Text(none))
        return
    rows = table("id", "status", "created (UTC)", "cost", "objective")
    for row, item in zip(page.items, items, strict=True):
        created, spent = _moment(item["created_at"]), cost(item["cost_usd"])
        rows.add_row(row.pipeline_id, standing(row), created, spent, cut(row.objective))
    console.print(rows)
    if any(row.orphaned for row in page.items):
        console.print(Text("orphaned: nobody works on it; `trilogue resume ID` takes it up", style="dim"))
    if page.next:
        again = inert(shlex.join(["trilogue", "list", *narrowed.options, "--cursor", page.next]))
        console.print(Text(f"more: {again}", style="dim"), soft_wrap=True)


def report(given: str, *, as_json: bool) -> None:
    row, board, _ = with_record(lambda ledger: everything(ledger, given))
    if board.report is None:
        raise NotFound(f"pipeline {row.pipeline_id!r} has no report: it is {row.status}", code="no_report")
    if as_json:
        print_json(dict(board.report))
    else:
        show_markdown(str(board.report["markdown"]))


def result(given: str, *, output: Path | None, as_json: bool) -> None:
    row, board, usage = with_record(lambda ledger: everything(ledger, given))
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
        from rich.markdown import Markdown  # noqa: PLC0415  (a parser that most commands do without)

        Console().print(Markdown(inert(markdown), hyperlinks=False))
    else:
        print(inert(markdown))  # noqa: T201


def show_outcome(row: PipelineRow, board: Board, usage: list[UsageRow]) -> None:
    """How a pipeline that was just carried stands: the agreed text, or why there is none; and where to look further."""
    pipeline_id = row.pipeline_id
    if board.status is not Status.REPORT and (board.consensus or board.proposals):
        show_markdown(result_markdown(pipeline_id, board))
        print()  # noqa: T201
    console = screen()
    console.print(Text(_summary(board, usage), style="dim"), soft_wrap=True)
    if board.error:
        told = Text(f"trilogue: {board.status}: {inert(board.error['message'])}", style="red")
        Console(stderr=True, highlight=False).print(told, soft_wrap=True)
    if advice := advice_for(row, board):
        console.print(Text(advice, style="cyan"), soft_wrap=True)
    console.print(Text("look further with:", style="dim"))
    looks = ["report"] if board.report else []
    looks += ["status", "result"] if board.consensus else ["status"]
    for look in looks:
        console.print(Text(f"  trilogue {look} {pipeline_id}", style="dim"))


def _summary(board: Board, usage: list[UsageRow]) -> str:
    total = cost_in_all(usage)
    tokens = total.input_tokens + total.output_tokens
    seconds = (board.at - board.phases[0].started_at) / SECOND
    return f"{seconds:.1f} s, {board.turns} turns, {tokens:,} tokens, cost {cost(total.usd)}"
