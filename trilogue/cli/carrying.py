"""Commands that carry a pipeline: `run`, `continue`, `resume`, and `watch`, which only looks on.

What a pipeline needs takes seconds to import, and so is imported where it is used: by then a
thread has loaded it while the servers were starting.
"""

# ruff: noqa: PLC0415

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trilogue import launch
from trilogue.board import Board
from trilogue.cli.server import server_for
from trilogue.cli.viewing import View
from trilogue.errors import Conflict, Unavailable
from trilogue.pipeline import Status
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec, RoundSpec

if TYPE_CHECKING:
    from trilogue.desk import Desk
    from trilogue.ledger import PipelineRow, UsageRow
    from trilogue.services import Services

INTERRUPTED = 130
_LAST_LOOK = 5.0
_CANCEL_AGAIN = 0.2
_FLOW_CANCEL_AGAIN = 2.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """A pipeline to be carried: the flow run that does it, and up to which `seq` the user has seen it."""

    pipeline_id: str
    seen: int
    flow: Callable[[], Awaitable[None]]


Start = Callable[["Services"], Awaitable[Work]]
Carried = tuple["PipelineRow", Board, list["UsageRow"]]


def _desk(services: "Services") -> "Desk":
    from trilogue.desk import local

    return local(services)


def run(spec: PipelineSpec, *, as_json: bool) -> int:
    """Record a new pipeline and carry it, or hand it over to the server. Returns the exit code."""
    if server := server_for(load_settings()):
        from trilogue.cli import handing_over

        return handing_over.run(server, spec, as_json=as_json)

    async def start(services: "Services") -> Work:
        pipeline_id = await _desk(services).spawn(spec, may_rehearse=True)
        return Work(pipeline_id=pipeline_id, seen=0, flow=lambda: launch.carry(pipeline_id, spec))

    return _carried(start, as_json=as_json)


def continue_(given: str, asked: RoundSpec, *, as_json: bool) -> int:
    """Begin another round and carry it. Returns the exit code."""
    if server := server_for(load_settings()):
        from trilogue.cli import handing_over

        return handing_over.continue_(server, given, asked, as_json=as_json)
    from trilogue.cli.reading import everything, with_ledger
    from trilogue.interventions import check_continuable

    # Known before any server is started, and checked again when the round begins.
    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    check_continuable(board)

    async def start(_: "Services") -> Work:
        return Work(pipeline_id=row.pipeline_id, seen=board.seq, flow=lambda: launch.carry_on(row.pipeline_id, asked))

    return _carried(start, as_json=as_json)


def resume(given: str, asked: RoundSpec, *, as_json: bool) -> int:
    """Take up an interrupted, failed or stopped pipeline. Returns the exit code."""
    if server := server_for(load_settings()):
        from trilogue.cli import handing_over

        return handing_over.resume(server, given, asked, as_json=as_json)
    from trilogue.cli.reading import everything, with_ledger
    from trilogue.interventions import check_resumable

    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    pipeline_id = row.pipeline_id
    if row.status.ended:
        check_resumable(board, asked.reason)
    _refuse_leased(row)
    if not row.status.ended and (asked.max_tokens is not None or asked.max_cost is not None):
        raise Conflict(
            f"limits are raised where a pipeline has ended, not while it is {row.status}: `trilogue stop` it first",
            code="not_ended",
        )
    spec = PipelineSpec(objective=row.objective, auto_continue=bool(row.spec["auto_continue"]))

    async def start(services: "Services") -> Work:
        if row.status.ended:
            await _desk(services).resume(pipeline_id, asked)
        return Work(pipeline_id=pipeline_id, seen=board.seq, flow=lambda: launch.carry(pipeline_id, spec))

    return _carried(start, as_json=as_json)


def rewind(given: str, name: str, reason: str, *, as_json: bool) -> int:
    """Go on from a checkpoint. Returns the exit code."""
    if server := server_for(load_settings()):
        from trilogue.cli import handing_over

        return handing_over.rewind(server, given, name, reason, as_json=as_json)
    from trilogue.cli.history import checkpoint_of
    from trilogue.cli.reading import everything, with_ledger
    from trilogue.interventions import check_resumable, check_rewindable

    row, board, _ = with_ledger(lambda ledger: everything(ledger, given))
    chosen = with_ledger(lambda ledger: checkpoint_of(ledger, row.pipeline_id, name))
    check_rewindable(board, chosen.to_seq)
    if board.status is Status.STOPPED:
        check_resumable(board, reason)
    former = board.snapshots[chosen.to_seq]
    if former.status in {Status.FAILED, Status.STOPPED}:
        check_resumable(former, reason)
    _refuse_leased(row)
    pipeline_id = row.pipeline_id
    spec = PipelineSpec(objective=row.objective, auto_continue=bool(row.spec["auto_continue"]))

    async def start(services: "Services") -> Work:
        at = await _desk(services).rewind(pipeline_id, chosen.to_seq, chosen.name, reason)
        if at.status in {Status.FAILED, Status.STOPPED}:
            await _desk(services).resume(pipeline_id, RoundSpec(reason=reason))
        if at.status.continuable and at.status is not Status.REPORT:
            asked = RoundSpec(reason=reason)
            return Work(pipeline_id=pipeline_id, seen=board.seq, flow=lambda: launch.carry_on(pipeline_id, asked))
        return Work(pipeline_id=pipeline_id, seen=board.seq, flow=lambda: launch.carry(pipeline_id, spec))

    return _carried(start, as_json=as_json)


def _refuse_leased(row: "PipelineRow") -> None:
    if row.leased:
        raise Conflict(
            f"pipeline {row.pipeline_id!r} is being worked on, or was until {load_settings().lease_seconds:g} s ago; "
            f"`trilogue watch {row.pipeline_id}` shows it",
            code="leased",
        )


def watch(given: str) -> int:
    """Show a pipeline from its beginning until it stands still. Returns the exit code."""
    if server := server_for(load_settings()):
        from trilogue.cli import handing_over

        return handing_over.watch(server, given)
    from trilogue.cli.finding import find
    from trilogue.ledger.opening import TENANT
    from trilogue.services import open_services

    async def look(view: View) -> Board:
        async with open_services(await launch.effective(load_settings())) as services:
            pipeline_id = await find(services.ledger, given)
            await _introduce(services, view, pipeline_id)
            row = await services.ledger.get_pipeline(TENANT, pipeline_id)
            return await view.follow(services, TENANT, pipeline_id, known=row.head_seq)

    try:
        with View() as view:
            board = asyncio.run(look(view))
    except KeyboardInterrupt:
        return INTERRUPTED
    return standing_code(board)


def standing_code(board: Board) -> int:
    """The exit code of whoever only looked on until a pipeline stood still."""
    return 0 if board.status in {Status.COMPLETED, Status.REPORT} else 1


def _carried(start: Start, *, as_json: bool) -> int:
    """Servers up, services open, the flow run and its view side by side, then the outcome."""
    settings = load_settings()
    try:
        with ending_like_ctrl_c(), View(to_stderr=as_json) as view:
            if not (launch.prefect_configured() or (settings.home / "prefect" / "served").exists()):
                view.say("The first start makes Prefect's database, which takes up to a minute, once.")
            with launch.prefect_server(settings, view.progress) as ui:
                carried = asyncio.run(_side_by_side(start, view, ui))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except BaseException as error:
        if isinstance(error, Exception) or not launch.terminated(error):
            raise
        return INTERRUPTED
    return told(*carried, as_json=as_json)


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """A closed terminal and a plain `kill` are Ctrl-C, too, so that the lease is given back."""
    taken = [sign for sign in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sign) is signal.SIG_DFL]
    for sign in taken:
        signal.signal(sign, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for sign in taken:
            signal.signal(sign, signal.SIG_DFL)


async def _side_by_side(start: Start, view: View, ui: str | None) -> Carried:
    with _sigterm_reaches_the_loop():
        return await _watched(start, view, ui)


@contextmanager
def _sigterm_reaches_the_loop() -> Iterator[None]:
    """From a flow's start until its first line Prefect answers SIGTERM, by an exception that can get lost.

    What an event loop was told of a signal it does whoever else has a handler for it.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    if not callable(before):
        yield  # whoever started us ignores it
        return
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _watched(start: Start, view: View, ui: str | None) -> Carried:
    from trilogue.cli.reading import everything
    from trilogue.ledger.opening import TENANT

    async with launch.serving(load_settings()) as services:
        work = await start(services)
        await _introduce(services, view, work.pipeline_id)
        if ui:
            view.say(f"Prefect's own view, as long as this runs: {ui}")
        flow = asyncio.ensure_future(work.flow())
        shown = asyncio.create_task(view.follow(services, TENANT, work.pipeline_id, after=work.seen))
        shown.add_done_callback(lambda ended: flow.cancel() if _broke(ended) else None)
        patience = 0.0
        try:
            # Not `await flow`: our own cancellation would only be passed on to it, and Prefect can swallow one.
            await asyncio.wait({flow})
            flow.result()
            patience = _LAST_LOOK
        except asyncio.CancelledError:
            while not flow.done():
                flow.cancel()
                await asyncio.wait({flow}, timeout=_FLOW_CANCEL_AGAIN)
            if not _broke(shown):
                view.say(f"interrupted; `trilogue resume {work.pipeline_id}` takes it up again", style="yellow")
            raise
        finally:
            await _end(shown, patience)
        return await everything(services.ledger, work.pipeline_id)


def _broke(shown: "asyncio.Task[Board]") -> bool:
    """Whether nothing can be shown any more, as behind `| head`; a ledger that is away is the flow's to judge."""
    if not shown.done() or shown.cancelled():
        return False
    error = shown.exception()
    return error is not None and not isinstance(error, Unavailable)


async def _end(shown: "asyncio.Task[Board]", patience: float) -> None:
    """Let the view show the end, then end it, whatever it waits for. Raises what it broke of."""
    await asyncio.wait({shown}, timeout=patience)
    while not shown.done():
        shown.cancel()
        await asyncio.wait({shown}, timeout=_CANCEL_AGAIN)
    if _broke(shown):
        shown.result()


async def _introduce(services: "Services", view: View, pipeline_id: str) -> None:
    from trilogue.ledger.opening import TENANT

    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    view.introduce(row)
    try:
        await services.live.ping()
    except Unavailable as error:
        view.say(f"{error.message}; going on without it, by reading the ledger", style="yellow")


def told(row: "PipelineRow", board: Board, usage: list["UsageRow"], *, as_json: bool) -> int:
    """The outcome, and the exit code that goes with it."""
    from trilogue.cli.reading import print_json, show_outcome
    from trilogue.outcome import outcome_json

    if as_json:
        print_json(outcome_json(row, board, usage))
    else:
        show_outcome(row, board, usage)
    held_as_asked = board.status is Status.REPORT and board.report and board.report["continuation"]["eligible"]
    return 0 if board.status is Status.COMPLETED or held_as_asked else 1
