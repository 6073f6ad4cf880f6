"""The command that stops: it needs the ledger and nothing else, so that it works with everything else gone."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from trilogue.cli.finding import find
from trilogue.cli.reading import print_json, with_ledger
from trilogue.cli.remote import Record, RemoteLedger, micros
from trilogue.cli.server import Connection, Server, server_for
from trilogue.clock import SECOND, Micros
from trilogue.errors import TrilogueError, Unavailable
from trilogue.ledger.identities import AT_THE_TERMINAL
from trilogue.ledger.rows import TENANT, PipelineRow
from trilogue.settings import load_settings

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

_PROMPTNESS = 2.0
"""Seconds that a server under this home has for its answer: then the ledger, which is here, too, is written to."""

_STILL_WITHIN = 2.0
"""Seconds that are waited for whoever is at work to let go; workers look for stops every 0.25."""
_LOOK_EVERY = 0.1


@dataclass(frozen=True, kw_only=True)
class _Stopped:
    """A stopped pipeline.

    Attributes:
        still_after: seconds from the stop until nobody acted any more; None where nobody can say yet.
    """

    row: PipelineRow
    still_after: float | None


def stop(given: str, reason: str, *, as_json: bool) -> None:
    """Stop the pipeline that `given` means."""
    server = server_for(load_settings())
    show = _Show(quiet=as_json)
    done = asyncio.run(_through(server, given, reason, show)) if server else None
    done = done or with_ledger(lambda ledger: _stopped(ledger, given, reason, show))
    row, still = done.row, done.still_after
    if as_json:
        print_json(
            {
                "pipeline_id": row.pipeline_id,
                "status": row.status.value,
                "reason": reason,
                "seq": row.head_seq,
                "still_after": None if still is None else round(still, 3),
            }
        )
        return
    show.still(row, still)


class _Show:
    """What the user sees: that it is stopped as soon as it is, and then when everything stood still."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(quiet=quiet, highlight=False)

    def stopped(self, row: PipelineRow, took: float) -> None:
        self._console.print(
            Text(f"{row.pipeline_id} is stopped: the ledger takes nothing from its agents since seq {row.head_seq}")
        )
        told = f"committed in {took * 1000:.0f} ms; calls in flight are cut off within a second"
        self._console.print(Text(told, style="dim"))

    def still(self, row: PipelineRow, after: float | None) -> None:
        said = "nobody was at work on it" if after == 0 else f"stood still after {after or 0:.2f} s"
        if after is None:
            said = f"not known to stand still after {_STILL_WITHIN:g} s; what its worker still says is refused"
        self._console.print(Text(said, style="yellow" if after is None else "dim"))
        self._console.print(Text(f"`trilogue resume {row.pipeline_id} --reason …` takes it up again", style="dim"))


async def _stopped(ledger: "Ledger", given: str, reason: str, show: _Show) -> _Stopped:
    from trilogue.ledger.stopping import stop as stop_pipeline  # noqa: PLC0415  (SQLAlchemy takes 0.3 s to import)

    pipeline_id = await find(ledger, given)
    began = time.monotonic()
    await stop_pipeline(ledger, TENANT, pipeline_id, reason, by=AT_THE_TERMINAL)
    row, took = await ledger.get_pipeline(TENANT, pipeline_id), time.monotonic() - began
    show.stopped(row, took)
    return _Stopped(row=row, still_after=await _still_after(ledger, row, row.stop_requested_at))


async def _through(server: Server, given: str, reason: str, show: _Show) -> _Stopped | None:
    """Have the server stop it; None when one that runs under this home does not answer."""
    async with Connection(server, **({"patience": 0.0} if server.ours else {})) as connection:
        ledger = RemoteLedger(connection)
        try:
            async with asyncio.timeout(_PROMPTNESS if server.ours else None):
                pipeline_id = await find(ledger, given)
                began = time.monotonic()
                told = await connection.post(f"/api/pipeline/{pipeline_id}/stop", {"reason": reason})
                row, took = await ledger.get_pipeline(TENANT, pipeline_id), time.monotonic() - began
        except (Unavailable, TimeoutError) as error:
            if not server.ours:
                raise
            said = error.message if isinstance(error, Unavailable) else f"the server at {server.url} does not answer"
            Console(stderr=True, highlight=False).print(Text(f"{said}; stopping it in the ledger", style="yellow"))
            return None
        show.stopped(row, took)
        at = micros(told["stopped_at"]) if told.get("stopped_at") else None
        return _Stopped(row=row, still_after=await _still_after(ledger, row, at))


async def _still_after(ledger: Record, row: PipelineRow, stopped_at: Micros | None) -> float | None:
    """Seconds after `stopped_at` at which nobody acted any more. Not to learn it is no failure of the stop."""
    try:
        async with asyncio.timeout(_STILL_WITHIN):
            while row.still_since is None:
                await asyncio.sleep(_LOOK_EVERY)
                row = await ledger.get_pipeline(TENANT, row.pipeline_id)
    except (TimeoutError, TrilogueError):
        return None
    return None if stopped_at is None else max(0.0, (row.still_since - stopped_at) / SECOND)
