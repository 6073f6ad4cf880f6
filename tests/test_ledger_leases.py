"""One worker at a time may act for a pipeline, by the database's clock."""

import asyncio
import time

import pytest

from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.errors import Conflict, NotFound
from trilogue.ledger import Claim, Ledger
from trilogue.pipeline import Status

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})
RUNNING = Draft(kind=Kind.STATUS, body={"status": "RUNNING", "error": None})


async def test_exactly_one_of_twenty_claimers_wins(ledger: Ledger, ledger_url: str) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    other = await Ledger.open(ledger_url, migrate=False)
    try:
        outcomes = await asyncio.gather(
            *(
                (ledger, other)[n % 2].claim("default", "p-1", owner=f"w-{n}", lease_seconds=60, flow_run_id=f"run-{n}")
                for n in range(20)
            ),
            return_exceptions=True,
        )
    finally:
        await other.close()
    [claim] = [outcome for outcome in outcomes if isinstance(outcome, Claim)]
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Conflict)} == {"leased"}
    row = await ledger.get_pipeline("default", "p-1")
    assert (row.attempt, row.lease_owner, row.flow_run_id) == (
        1,
        claim.pipeline.lease_owner,
        claim.pipeline.flow_run_id,
    )
    assert claim.fence.attempt == 1
    assert claim.previous_flow_run_id is None


async def test_a_lease_ends_by_the_databases_clock_and_the_pipeline_can_be_taken_up(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    assert not (await ledger.get_pipeline("default", "p-1")).orphaned
    dead = await ledger.claim("default", "p-1", owner="dead", lease_seconds=0.3, flow_run_id="run-1")
    await ledger.append(dead.fence, [RUNNING], at=clock.now())
    assert not (await ledger.get_pipeline("default", "p-1")).orphaned
    deadline = time.monotonic() + 5
    while True:
        try:
            claim = await ledger.claim("default", "p-1", owner="alive", lease_seconds=60, flow_run_id="run-2")
            break
        except Conflict:
            before = await ledger.get_pipeline("default", "p-1")
            assert time.monotonic() < deadline
    lease_until = dead.pipeline.lease_until
    assert lease_until
    assert claim.pipeline.read_at >= lease_until > before.read_at - clock.SECOND
    assert abs(claim.pipeline.read_at - clock.now()) < 60 * clock.SECOND
    assert claim.previous_flow_run_id == "run-1"
    assert await ledger.renew("dead", {("default", "p-1")}, lease_seconds=60) == set()
    await ledger.release(dead.fence, owner="dead")
    assert (await ledger.get_pipeline("default", "p-1")).lease_owner == "alive"


async def test_only_what_was_left_without_release_is_orphaned(ledger: Ledger) -> None:
    for pipeline_id in ("p-held", "p-dead", "p-running"):
        await ledger.spawn("default", pipeline_id, [SPAWNED], at=clock.now())
    held = await ledger.claim("default", "p-held", owner="w", lease_seconds=60, flow_run_id=None)
    await ledger.release(held.fence, owner="w")
    await ledger.claim("default", "p-dead", owner="w", lease_seconds=0, flow_run_id=None)
    running = await ledger.claim("default", "p-running", owner="w", lease_seconds=60, flow_run_id=None)
    await ledger.append(running.fence, [RUNNING], at=clock.now())
    await ledger.release(running.fence, owner="w")
    orphaned = {row.pipeline_id for row in (await ledger.list_pipelines("default")).items if row.orphaned}
    assert orphaned == {"p-dead", "p-running"}


async def test_renewing_prolongs_the_leases_that_their_owner_holds_and_no_others(ledger: Ledger) -> None:
    owners = {"p-0": "mine", "p-1": "mine", "p-2": "yours", "p-3": "mine"}
    for pipeline_id, owner in owners.items():
        await ledger.spawn("default", pipeline_id, [SPAWNED], at=clock.now())
        await ledger.claim("default", pipeline_id, owner=owner, lease_seconds=5, flow_run_id=None)
    await ledger.append_outside("default", "p-1", lambda _: [Draft(kind=Kind.GUIDANCE, body={"text": "x"})], at=1)
    held = {("default", pipeline_id) for pipeline_id in ("p-0", "p-1", "p-2")}
    assert await ledger.renew("mine", held, lease_seconds=600) == {("default", "p-0")}
    rows = [await ledger.get_pipeline("default", pipeline_id) for pipeline_id in owners]
    left = [row.lease_until - row.read_at if row.lease_until else None for row in rows]
    assert left[0]
    assert left[0] > 500 * clock.SECOND
    assert left[1] is None
    for forgotten_or_others in left[2:]:
        assert forgotten_or_others
        assert forgotten_or_others <= 5 * clock.SECOND


async def test_what_cannot_be_claimed_says_why(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED], at=clock.now())
    with pytest.raises(NotFound):
        await ledger.claim("other", "p-1", owner="w", lease_seconds=5, flow_run_id=None)
    with pytest.raises(Conflict) as other_attempt:
        await ledger.claim("default", "p-1", owner="w", lease_seconds=5, flow_run_id=None, expected_attempt=3)
    claim = await ledger.claim("default", "p-1", owner="w", lease_seconds=5, flow_run_id=None, expected_attempt=0)
    failed = Draft(kind=Kind.STATUS, body={"status": Status.FAILED, "error": {"code": "c", "message": "m"}})
    await ledger.append(claim.fence, [failed], at=clock.now())
    await ledger.release(claim.fence, owner="w")
    with pytest.raises(Conflict) as ended:
        await ledger.claim("default", "p-1", owner="w", lease_seconds=5, flow_run_id=None)
    assert (other_attempt.value.code, ended.value.code) == ("other_attempt", "ended")


async def test_what_waits_is_drawn_in_turn_by_tenant_and_what_is_claimed_waits_no_more(ledger: Ledger) -> None:
    for at, (tenant, pipeline_id) in enumerate(
        [("a", "p-1"), ("a", "p-2"), ("a", "p-3"), ("b", "p-4"), ("c", "p-5"), ("c", "p-6")], start=1
    ):
        await ledger.spawn(tenant, pipeline_id, [SPAWNED], at=at, queued=True)
    await ledger.spawn("a", "p-not-queued", [SPAWNED], at=0)

    async def drawn() -> list[str]:
        return [row.pipeline_id for row in await ledger.waiting(10)]

    assert await drawn() == ["p-1", "p-4", "p-5", "p-2", "p-6", "p-3"]
    claim = await ledger.claim("c", "p-5", owner="w", lease_seconds=60, flow_run_id=None)
    assert await drawn() == ["p-1", "p-4", "p-2", "p-6", "p-3"], "c has one under way, so its next one comes later"
    assert not (await ledger.get_pipeline("a", "p-1")).orphaned
    await ledger.release(claim.fence, owner="w", queued=True)
    assert (await drawn())[0] == "p-5", "its deadlines run on: it goes before what was created later"
    assert not (await ledger.get_pipeline("c", "p-5")).orphaned
    failed = Draft(kind=Kind.STATUS, body={"status": Status.FAILED, "error": {"code": "c", "message": "m"}})
    await ledger.append_outside("b", "p-4", lambda _: [failed], at=9)
    assert "p-4" not in await drawn()
