"""`run`, `continue`, `resume`, `checkpoints resume` and `watch` where a server runs: it has its workers carry the
pipeline, and this process only looks on. Whatever ends it, the pipeline goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from trilogue.cli.carrying import INTERRUPTED, ending_like_ctrl_c, standing_code, told
from trilogue.cli.finding import find
from trilogue.cli.reading import Everything, everything
from trilogue.cli.remote import RemoteLedger
from trilogue.cli.server import Connection, Server
from trilogue.cli.viewing import View
from trilogue.errors import Unavailable
from trilogue.ledger.rows import TENANT
from trilogue.pipeline import Status
from trilogue.spec import PipelineSpec, RoundSpec

_LOOK_EVERY = 1.0
"""Seconds between two looks whether somebody is still at work on what says nothing more."""
_SETTLING = 5.0
_SETTLING_STEP = 0.1


class _Handed(NamedTuple):
    """A pipeline that a server has: up to which `seq` the user has seen it, and up to which it is known to go on."""

    pipeline_id: str
    seen: int
    known: int


class Remote:
    """A server as what a `View` follows."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ledger = RemoteLedger(connection)

    @property
    def live(self) -> Any:
        """Imported when there is something to follow, behind the first line that the user sees."""
        from trilogue.cli.remote_events import RemoteLive  # noqa: PLC0415

        return RemoteLive(self.connection)


HandOver = Callable[[Remote], Awaitable[_Handed]]


def run(server: Server, spec: PipelineSpec, *, as_json: bool) -> int:
    """Hand a new pipeline over and look on. Returns the exit code."""

    async def hand_over(remote: Remote) -> _Handed:
        wanted = spec.model_dump(mode="json", exclude_defaults=True)
        return _Handed((await remote.connection.post("/api/spawn", wanted))["pipeline_id"], 0, 0)

    return _looked_on(server, hand_over, as_json=as_json)


def continue_(server: Server, given: str, asked: RoundSpec, *, as_json: bool) -> int:
    """Have another round begun and look on. Returns the exit code."""
    body = asked.model_dump(mode="json", exclude_defaults=True)
    return _taken_on(server, given, lambda _: "/api/pipeline/continue", body, as_json=as_json, named=True)


def resume(server: Server, given: str, asked: RoundSpec, *, as_json: bool) -> int:
    """Have an interrupted, failed or stopped pipeline taken up and look on. Returns the exit code."""
    body = asked.model_dump(mode="json", exclude_defaults=True)
    return _taken_on(server, given, lambda pipeline: f"/api/pipeline/{pipeline}/resume", body, as_json=as_json)


def rewind(server: Server, given: str, name: str, reason: str, *, as_json: bool) -> int:
    """Have a pipeline taken up from a checkpoint and look on. Returns the exit code."""
    body = {"checkpoint": name, "reason": reason}
    return _taken_on(server, given, lambda pipeline: f"/api/pipeline/{pipeline}/rewind", body, as_json=as_json)


def watch(server: Server, given: str) -> int:
    """Look on from a pipeline's beginning until it stands still. Returns the exit code."""

    async def look(view: View) -> Everything:
        async with _reached(server) as remote:
            pipeline_id = await find(remote.ledger, given)
            await _introduce(remote, view, pipeline_id)
            known = (await remote.ledger.get_pipeline(TENANT, pipeline_id)).head_seq
            return await _followed(remote, view, _Handed(pipeline_id, 0, known), ends=False)

    try:
        with View() as view:
            _, board, _ = asyncio.run(look(view))
    except KeyboardInterrupt:
        return INTERRUPTED
    return standing_code(board)


def _taken_on(
    server: Server,
    given: str,
    path: Callable[[str], str],
    body: Mapping[str, Any],
    *,
    as_json: bool,
    named: bool = False,
) -> int:
    async def hand_over(remote: Remote) -> _Handed:
        row, board, _ = await everything(remote.ledger, given)
        whose = {"pipeline_id": row.pipeline_id} if named else {}
        await remote.connection.post(path(row.pipeline_id), {**whose, **body}, long=True)
        return _Handed(row.pipeline_id, board.seq, 0)

    return _looked_on(server, hand_over, as_json=as_json)


def _looked_on(server: Server, hand_over: HandOver, *, as_json: bool) -> int:
    handed: _Handed | None = None

    async def look(view: View) -> Everything:
        nonlocal handed
        async with _reached(server) as remote:
            handed = await hand_over(remote)
            await _introduce(remote, view, handed.pipeline_id)
            view.say(f"watch it at {server.page_of(handed.pipeline_id)}")
            return await _followed(remote, view, handed, ends=True)

    with ending_like_ctrl_c(), View(to_stderr=as_json) as view:
        try:
            outcome = asyncio.run(look(view))
        except (KeyboardInterrupt, asyncio.CancelledError):
            if handed:
                view.say(f"detached; the pipeline goes on: `trilogue watch {handed.pipeline_id}`", style="yellow")
            else:
                view.say("interrupted before the server answered; `trilogue list` shows what it has", style="yellow")
            return INTERRUPTED
        except Unavailable:
            if handed:
                view.say(f"`trilogue watch {handed.pipeline_id}` shows the pipeline when the server answers again")
            raise
    return told(*outcome, as_json=as_json)


@asynccontextmanager
async def _reached(server: Server) -> AsyncIterator[Remote]:
    async with Connection(server) as connection:
        yield Remote(connection)


async def _introduce(remote: Remote, view: View, pipeline_id: str) -> None:
    view.introduce(await remote.ledger.get_pipeline(TENANT, pipeline_id))


async def _followed(remote: Remote, view: View, handed: _Handed, *, ends: bool) -> Everything:
    """Show the pipeline until it stands still: by what its entries say, or because nobody is at work on it any more.

    Args:
        ends: whether somebody is to work on it, so that one on which nobody works has ended.
    """
    shown = asyncio.create_task(view.follow(remote, TENANT, handed.pipeline_id, after=handed.seen, known=handed.known))
    looking = asyncio.create_task(_left(remote, view, handed.pipeline_id)) if ends else None
    try:
        await asyncio.wait({shown, looking} if looking else {shown}, return_when=asyncio.FIRST_COMPLETED)
        if shown.done():
            shown.result()
        return await _settled(remote, handed.pipeline_id)
    finally:
        tasks = [task for task in (shown, looking) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _left(remote: Remote, view: View, pipeline_id: str) -> None:
    """Wait until all is shown and nobody is at work or to come: one that was held and is held anew says nothing."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        if not (view.board.status.ended or view.board.status is Status.REPORT):
            continue
        try:
            row = await remote.ledger.get_pipeline(TENANT, pipeline_id)
        except Unavailable:
            continue  # whoever reads the entries says so, and for how long it waits
        if not row.leased and row.queued_at is None and view.board.seq == row.head_seq:
            return


async def _settled(remote: Remote, pipeline_id: str) -> Everything:
    """Everything of a pipeline that stands still, once its worker has let go of it."""
    until = asyncio.get_running_loop().time() + _SETTLING
    while (await remote.ledger.get_pipeline(TENANT, pipeline_id)).leased:
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(_SETTLING_STEP)
    return await everything(remote.ledger, pipeline_id)
