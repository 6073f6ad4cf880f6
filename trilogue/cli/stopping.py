"""The command that stops: it needs the ledger and nothing else, so that it works with everything else gone."""

import time

from rich.console import Console
from rich.text import Text

from trilogue.cli.finding import find
from trilogue.cli.reading import print_json, with_ledger
from trilogue.ledger import Ledger, PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.ledger.stopping import stop as stop_pipeline


def stop(given: str, reason: str, *, as_json: bool) -> None:
    """Stop the pipeline that `given` means."""

    async def stopped(ledger: Ledger) -> tuple[PipelineRow, float]:
        pipeline_id = await find(ledger, given)
        began = time.monotonic()
        await stop_pipeline(ledger, TENANT, pipeline_id, reason)
        return await ledger.get_pipeline(TENANT, pipeline_id), time.monotonic() - began

    row, seconds = with_ledger(stopped)
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
