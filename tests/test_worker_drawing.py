"""Which worker is given what: in turn by tenant, nobody what another was given, and nothing is lost on the way."""

import asyncio

import pytest

from tests.fixtures.book import until
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger import Ledger
from trilogue.ledger.rows import PipelineRow

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})
RUNNING = Draft(kind=Kind.STATUS, body={"status": "RUNNING", "error": None})
LONG, AT_ONCE = 60.0, 0.0


async def waiting(ledger: Ledger, *pipeline_ids: str, tenant: str = "default") -> None:
    for pipeline_id in pipeline_ids:
        await ledger.spawn(tenant, pipeline_id, [SPAWNED], at=clock.now(), queued=True)


async def drawn(ledger: Ledger, within: float = LONG) -> str | None:
    row = await ledger.draw(within_seconds=within)
    return row and row.pipeline_id


async def orphaned(ledger: Ledger) -> list[str]:
    """What was queued of the orphans there are."""
    return [pipeline_id for _, pipeline_id in await ledger.queue_orphans(let_go_seconds=LONG, limit=10)]


async def test_workers_that_draw_at_the_same_time_are_given_different_pipelines(
    ledger: Ledger, ledger_url: str
) -> None:
    names = [f"p-{number:02}" for number in range(12)]
    await waiting(ledger, *names)
    others = [await Ledger.open(ledger_url, migrate=False) for _ in range(2)]
    try:
        tries = [each.draw(within_seconds=LONG) for _ in range(6) for each in (ledger, *others)]
        rows = await asyncio.gather(*tries)
    finally:
        for other in others:
            await other.close()
    assert sorted(row.pipeline_id for row in rows if row) == names
    assert await ledger.waiting(1) == []


async def test_what_was_drawn_and_not_begun_waits_again_after_its_time(ledger: Ledger) -> None:
    await waiting(ledger, "p-1")
    assert await drawn(ledger, within=0.3) == "p-1"
    assert await drawn(ledger) is None
    assert not (await ledger.get_pipeline("default", "p-1")).orphaned
    await until(lambda: _again(ledger, "p-1"))


async def _again(ledger: Ledger, pipeline_id: str) -> bool:
    return await drawn(ledger) == pipeline_id


async def test_what_is_put_back_waits_at_once_unless_it_was_begun(ledger: Ledger) -> None:
    await waiting(ledger, "p-1")
    first = await _row(ledger)
    await ledger.put_back(first)
    second = await _row(ledger)
    await ledger.put_back(first)
    assert await drawn(ledger) is None, "it was drawn again meanwhile"
    await ledger.claim("default", "p-1", owner="w", lease_seconds=LONG, flow_run_id=None)
    await ledger.put_back(second)
    assert (await ledger.get_pipeline("default", "p-1")).queued_at is None


async def _row(ledger: Ledger) -> PipelineRow:
    row = await ledger.draw(within_seconds=LONG)
    assert row
    return row


async def test_another_tenants_hundreds_delay_nobodys_next_one(ledger: Ledger) -> None:
    await asyncio.gather(*(waiting(ledger, f"p-{number:03}", tenant="many") for number in range(300)))
    await waiting(ledger, "p-one", "p-two", tenant="few")
    assert [await drawn(ledger) for _ in range(3)][1] == "p-one", "what is drawn counts as under way"
    assert "p-two" in [await drawn(ledger), await drawn(ledger)]


@pytest.mark.parametrize("status", [None, RUNNING])
async def test_what_a_dead_worker_left_is_queued_once_and_its_next_worker_knows_that_it_died(
    ledger: Ledger, status: Draft | None
) -> None:
    for pipeline_id in ("p-dead", "p-alive", "p-let-go"):
        await ledger.spawn("default", pipeline_id, [SPAWNED], at=clock.now())
    dead = await ledger.claim("default", "p-dead", owner="dead", lease_seconds=AT_ONCE, flow_run_id="run-1")
    if status:
        await ledger.append(dead.fence, [status], at=clock.now())
    await ledger.claim("default", "p-alive", owner="w", lease_seconds=LONG, flow_run_id=None)
    let_go = await ledger.claim("default", "p-let-go", owner="w", lease_seconds=LONG, flow_run_id=None)
    await ledger.append(let_go.fence, [RUNNING], at=clock.now())
    await ledger.release(let_go.fence, owner="w")
    looks = await asyncio.gather(orphaned(ledger), orphaned(ledger))
    assert sorted(looks) == [[], ["p-dead"]]
    assert await drawn(ledger) == "p-dead"
    assert await drawn(ledger) is None
    claim = await ledger.claim("default", "p-dead", owner="w", lease_seconds=LONG, flow_run_id="run-2")
    assert (claim.abandoned, claim.previous_flow_run_id) == (True, "run-1")
