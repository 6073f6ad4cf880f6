"""Commands that carry a pipeline: `run`, `continue`, `resume`, and `watch`, which only looks on."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from trilogue.board import Board
from trilogue.cli.finding import find
from trilogue.cli.reading import everything, print_json, show_markdown, with_ledger
from trilogue.cli.viewing import View
from trilogue.errors import Conflict, Unavailable
from trilogue.launch import carry, carry_on, effective, prefect_server, serving
from trilogue.outcome import outcome_json, result_markdown
from trilogue.phases import check_continuable
from trilogue.pipeline import Status
from trilogue.services import TENANT, Services, open_services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec, RoundSpec

_INTERRUPTED = 130
_LAST_LOOK = 5.0


def run(spec: PipelineSpec, *, as_json: bool) -> int:
    """Record a new pipeline and carry it. Returns the exit code."""

    async def start(services: Services, view: View) -> Work:
        pipeline_id = await services.spawn(spec, may_rehearse=True)
        await _introduce(services, view, pipeline_id)
        return Work(pipeline_id=pipeline_id, seen=0, flow=lambda: carry(pipeline_id, spec))

    return _carried(start, as_json=as_json, hold=not spec.auto_continue)


def continue_(given: str, asked: RoundSpec, *, as_json: bool) -> int:
    """Begin another round and carry it. Returns the exit code."""
    # Known before any server is started, and checked again when the round begins.
    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    check_continuable(board)

    async def start(services: Services, view: View) -> Work:
        await _introduce(services, view, row.pipeline_id)
        return Work(pipeline_id=row.pipeline_id, seen=board.seq, flow=lambda: carry_on(row.pipeline_id, asked))

    return _carried(start, as_json=as_json, hold=False)


def resume(given: str, *, as_json: bool) -> int:
    """Take up an interrupted pipeline. Returns the exit code."""
    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    if row.status.ended:
        raise Conflict(f"pipeline {row.pipeline_id!r} is {row.status}; only an interrupted one can be taken up")
    if row.leased:
        raise Conflict(f"pipeline {row.pipeline_id!r} is being worked on; `trilogue watch {row.pipeline_id}` shows it")
    spec = PipelineSpec(objective=row.objective, auto_continue=bool(row.spec["auto_continue"]))

    async def start(services: Services, view: View) -> Work:
        await _introduce(services, view, row.pipeline_id)
        return Work(pipeline_id=row.pipeline_id, seen=board.seq, flow=lambda: carry(row.pipeline_id, spec))

    return _carried(start, as_json=as_json, hold=not spec.auto_continue)


async def _introduce(services: Services, view: View, pipeline_id: str) -> None:
    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    view.say(f"pipeline {pipeline_id}: {' '.join(row.objective.split())[:200]}", style="bold")
    if row.spec["rehearsal"]:
        view.say(
            "Rehearsal: no language model is used; set OPENROUTER_API_KEY or LOCAL_MODEL_URL to use one.",
            style="yellow",
        )
    try:
        await services.live.ping()
    except Unavailable as error:
        view.say(f"{error.message}; going on without it, by reading the ledger", style="yellow")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A pipeline to be carried: the flow run that does it, and up to which `seq` the user has seen it."""

    pipeline_id: str
    seen: int
    flow: Callable[[], Awaitable[None]]


def _carried(start: Callable[[Services, View], Awaitable[Work]], *, as_json: bool, hold: bool) -> int:
    """Servers up, services open, the flow run and its view side by side, then the outcome."""
    settings = load_settings()
    view = View(to_stderr=as_json)
    try:
        with view, prefect_server(settings, view.progress):
            view.progress("loading Prefect")
            return asyncio.run(_side_by_side(start, view, as_json=as_json, hold=hold))
    except KeyboardInterrupt:
        return _INTERRUPTED


async def _side_by_side(
    start: Callable[[Services, View], Awaitable[Work]], view: View, *, as_json: bool, hold: bool
) -> int:
    async with serving(load_settings()) as services:
        work = await start(services, view)
        pipeline_id = work.pipeline_id
        shown = asyncio.create_task(view.follow(services, pipeline_id, after=work.seen))
        try:
            await work.flow()
            with suppress(TimeoutError):
                await asyncio.wait_for(shown, _LAST_LOOK)
        except asyncio.CancelledError:
            view.say(f"interrupted; `trilogue resume {pipeline_id}` takes it up again", style="yellow")
            raise
        finally:
            shown.cancel()
        row, board, usage = await everything(services.ledger, pipeline_id)
    if as_json:
        print_json(outcome_json(row, board, usage))
    else:
        _farewell(view, pipeline_id, board)
    if board.status is Status.COMPLETED or (board.status is Status.REPORT and hold):
        return 0
    return 1


def _farewell(view: View, pipeline_id: str, board: Board) -> None:
    if board.status is Status.REPORT:
        view.say(f"held at REPORT: `trilogue report {pipeline_id}`, then `trilogue continue {pipeline_id}`", "cyan")
        return
    show_markdown(result_markdown(pipeline_id, board))
    view.say(f"More: trilogue report {pipeline_id} | status {pipeline_id} | result {pipeline_id} -o FILE")
    if board.status.continuable:
        view.say(f"Another round: trilogue continue {pipeline_id} --timeout … --guidance …", "cyan")


def watch(given: str) -> int:
    """Show a pipeline from its beginning until it stands still. Returns the exit code."""

    async def look() -> int:
        async with open_services(await effective(load_settings())) as services:
            pipeline_id = await find(services.ledger, given)
            with View() as view:
                board = await view.follow(services, pipeline_id)
            return 0 if board.status in {Status.COMPLETED, Status.REPORT} else 1

    try:
        return asyncio.run(look())
    except KeyboardInterrupt:
        return _INTERRUPTED
