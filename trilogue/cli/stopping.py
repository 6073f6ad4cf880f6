"""The command that stops: it needs the ledger and nothing else, so that it works with everything else gone."""

import asyncio
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from trilogue.cli.finding import find
from trilogue.cli.reading import print_json, with_ledger
from trilogue.cli.remote import RemoteLedger
from trilogue.cli.server import Connection, Server, server_for
from trilogue.errors import Unavailable
from trilogue.ledger.rows import TENANT, PipelineRow
from trilogue.settings import load_settings

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

Stopped = tuple[PipelineRow, float]
"""The pipeline after the stop, and the seconds that its commit took."""

_PROMPTNESS = 2.0
"""Seconds that a server under this home has for its answer: then the ledger, which is here, too, is written to."""


def stop(given: str, reason: str, *, as_json: bool) -> None:
    """Stop the pipeline that `given` means."""
    server = server_for(load_settings())
    done = asyncio.run(_through(server, given, reason)) if server else None
    row, seconds = done or with_ledger(lambda ledger: _stopped(ledger, given, reason))
    if as_json:
        print_json({"pipeline_id": row.pipeline_id, "status": row.status.value, "reason": reason, "seq": row.head_seq})
        return
    console = Console()
    console.print(
        Text(f"{row.pipeline_id} is stopped: the ledger takes nothing from its agents since seq {row.head_seq}")
    )
    console.print(
        Text(f"committed in {seconds * 1000:.0f} ms; calls in flight are cut off within a second", style="dim")
    )
    console.print(Text(f"`trilogue resume {row.pipeline_id} --reason …` takes it up again", style="dim"))


async def _stopped(ledger: "Ledger", given: str, reason: str) -> Stopped:
    from trilogue.ledger.stopping import stop as stop_pipeline  # noqa: PLC0415  (SQLAlchemy takes 0.3 s to import)

    pipeline_id = await find(ledger, given)
    began = time.monotonic()
    await stop_pipeline(ledger, TENANT, pipeline_id, reason)
    return await ledger.get_pipeline(TENANT, pipeline_id), time.monotonic() - began


async def _through(server: Server, given: str, reason: str) -> Stopped | None:
    """Have the server stop it; None when one that runs under this home does not answer."""
    try:
        async with (
            asyncio.timeout(_PROMPTNESS if server.ours else None),
            Connection(server, **({"patience": 0.0} if server.ours else {})) as connection,
        ):
            ledger = RemoteLedger(connection)
            pipeline_id = await find(ledger, given)
            began = time.monotonic()
            await connection.post(f"/api/pipeline/{pipeline_id}/stop", {"reason": reason})
            return await ledger.get_pipeline(TENANT, pipeline_id), time.monotonic() - began
    except (Unavailable, TimeoutError) as error:
        if not server.ours:
            raise
        said = error.message if isinstance(error, Unavailable) else f"the server at {server.url} does not answer"
        Console(stderr=True, highlight=False).print(Text(f"{said}; stopping it in the ledger", style="yellow"))
        return None
