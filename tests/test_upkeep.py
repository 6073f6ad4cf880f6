"""Upkeep of the stores: what may be taken up, what need not be kept any longer."""

import sqlite3
from pathlib import Path

import pytest
from redis import Redis

from tests.fixtures.book import Book
from trilogue import clock
from trilogue.clock import SECOND
from trilogue.entry import Draft, Kind
from trilogue.ledger import Claim, Ledger, PipelineKey
from trilogue.live import Live
from trilogue.pipeline import Status

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})
HOUR = 3600


def _status(status: Status) -> Draft:
    error = {"code": "c", "message": "m"} if status.ended and status is not Status.COMPLETED else None
    return Draft(kind=Kind.STATUS, body={"status": status.value, "error": error})


def _checkpoint(name: str) -> Draft:
    body = {"name": name, "to_seq": 1, "status": "RUNNING", "phase": "RUN", "round": 0, "details": None}
    return Draft(kind=Kind.CHECKPOINT, body=body)


async def _claimed(
    ledger: Ledger, pipeline_id: str, *statuses: Status, tenant: str = "default", lease: float = 60, ago: float = 0
) -> Claim:
    """A pipeline that some worker has claimed and taken through `statuses`, so many seconds ago."""
    at = clock.now() - int(ago * SECOND)
    await ledger.spawn(tenant, pipeline_id, [SPAWNED], at=at)
    claim = await ledger.claim(tenant, pipeline_id, owner="w", lease_seconds=lease, flow_run_id=None)
    for status in statuses:
        await ledger.append(claim.fence, [_status(status)], at=at)
    return claim


async def _orphans(ledger: Ledger, limit: int = 100) -> list[PipelineKey]:
    return [(row.tenant, row.pipeline_id) for row in await ledger.orphans(let_go_seconds=15, limit=limit)]


async def test_orphans_of_all_tenants_are_found_and_nothing_that_is_worked_on_or_may_wait(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-waiting", [SPAWNED], at=clock.now() - HOUR * SECOND)
    await _claimed(ledger, "p-leased", Status.RUNNING, ago=HOUR)
    await _claimed(ledger, "p-ended", Status.FAILED, lease=0, ago=HOUR)
    await _claimed(ledger, "p-dead-at-once", lease=0, ago=30)
    await _claimed(ledger, "p-dead", Status.RUNNING, lease=0, ago=10)
    await _claimed(ledger, "p-held-dead", Status.RUNNING, Status.REPORT, lease=0, ago=20)
    await _claimed(ledger, "p-theirs", Status.RUNNING, tenant="other", lease=0, ago=40)
    for name, ago in (("p-let-go", 16), ("p-just-let-go", 5)):
        claim = await _claimed(ledger, name, Status.RUNNING, ago=ago)
        await ledger.release(claim.fence, owner="w")
    held = await _claimed(ledger, "p-held", Status.RUNNING, Status.REPORT, ago=HOUR)
    await ledger.release(held.fence, owner="w")

    longest_first = [
        ("other", "p-theirs"),
        *(("default", f"p-{n}") for n in "dead-at-once held-dead let-go dead".split()),
    ]
    assert await _orphans(ledger) == longest_first
    assert await _orphans(ledger, limit=2) == longest_first[:2]


async def test_orphans_are_found_by_an_index(migrated_sqlite_url: str, tmp_path: Path) -> None:
    ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
    seen: list[str] = []
    try:
        with ledger._reading.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.set_trace_callback(seen.append)
            connection.close()
        for _ in range(4):  # whichever connection it is
            await ledger.orphans(let_go_seconds=15, limit=10)
    finally:
        await ledger.close()
    (statement, *_) = [line for line in seen if "FROM pipelines" in line]
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert any("USING INDEX pipelines_claimable" in step for step in plan), plan
    assert not any(step.startswith("SCAN pipelines") for step in plan), plan


async def test_of_a_long_ended_pipeline_the_report_and_the_last_checkpoint_stay_and_every_entry(ledger: Ledger) -> None:
    drafts = [_checkpoint(name) for name in ("spawned", "report", "mediation", "failed")]
    fences = {}
    for name, ago in (("p-old", 2 * HOUR), ("p-new", HOUR / 2)):
        fences[name] = (await _claimed(ledger, name, Status.RUNNING, ago=ago)).fence
        at = clock.now() - int(ago * SECOND)
        await ledger.append(fences[name], [*drafts[:3], _status(Status.FAILED), drafts[3]], at=at)
    running = await _claimed(ledger, "p-running", Status.RUNNING, ago=2 * HOUR)
    await ledger.append(running.fence, drafts, at=clock.now() - 2 * HOUR * SECOND)
    before = await ledger.entries("default", "p-old")

    assert await ledger.prune_checkpoints(older_seconds=HOUR, limit=1) == 1
    assert await ledger.prune_checkpoints(older_seconds=HOUR, limit=10) == 1
    assert await ledger.prune_checkpoints(older_seconds=HOUR, limit=10) == 0

    async def names(pipeline_id: str) -> list[str]:
        return [row.name for row in await ledger.checkpoints("default", pipeline_id)]

    assert await names("p-old") == ["report", "failed"]
    assert await names("p-new") == await names("p-running") == ["spawned", "report", "mediation", "failed"]
    assert await ledger.entries("default", "p-old") == before


async def test_pipelines_that_ended_lately_are_listed(ledger: Ledger) -> None:
    await _claimed(ledger, "p-old", Status.FAILED, ago=2 * HOUR)
    await _claimed(ledger, "p-running", Status.RUNNING, ago=5)
    await _claimed(ledger, "p-new", Status.FAILED, tenant="other", ago=60)
    assert await ledger.ended(within_seconds=HOUR, limit=10) == [("other", "p-new")]


@pytest.mark.parametrize("pipelines", [1, 250])
async def test_boards_expire_sooner_and_never_later(redis_url: str, pipelines: int) -> None:
    book = Book()
    ids = [("default", f"p-{n}") for n in range(pipelines)]
    async with Live(redis_url, board_ttl=86_400, backfill=book.backfill) as live:
        for _, pipeline_id in ids:
            live.poster.post(book.commit(pipeline_id, times=2))
        assert await live.poster.flush(timeout=10)
        with Redis.from_url(redis_url, decode_responses=True) as redis:

            def left() -> list[int]:
                return [int(redis.ttl(key)) for key in redis.scan_iter(count=1000)]

            assert min(left()) > HOUR
            assert await live.expire_boards([*ids, ("default", "p-unknown")], ttl=HOUR) == pipelines
            assert HOUR - 60 < min(left()) <= max(left()) <= HOUR
            assert await live.expire_boards(ids, ttl=2 * HOUR) == 0
            assert max(left()) <= HOUR
        live.poster.post(book.commit(ids[0][1]))  # as a pipeline that is continued does
        await live.poster.flush(timeout=10)
        with Redis.from_url(redis_url, decode_responses=True) as redis:
            assert max(int(redis.ttl(key)) for key in redis.scan_iter(f"*{ids[0][1]}*", count=1000)) > HOUR
