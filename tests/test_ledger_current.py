"""Whoever watches all pipelines of a tenant is shown those that are open, and those that ended recently."""

from trilogue import clock
from trilogue.clock import SECOND
from trilogue.entry import Draft, Kind
from trilogue.ledger import Ledger

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})
FAILED = Draft(kind=Kind.STATUS, body={"status": "FAILED", "error": {"code": "x", "message": "y"}})


async def test_open_pipelines_of_any_age_and_recently_ended_ones_are_current(ledger: Ledger) -> None:
    now = clock.now()
    long_ago = now - 3600 * SECOND
    for pipeline_id, at, ended_at in [
        ("p-old-open", long_ago, None),
        ("p-old-ended", long_ago, long_ago + SECOND),
        ("p-new-ended", long_ago + SECOND, now),
        ("p-new-open", now, None),
    ]:
        await ledger.spawn("default", pipeline_id, [SPAWNED], at=at)
        if ended_at:
            await ledger.append_outside("default", pipeline_id, lambda _: [FAILED], at=ended_at)
    await ledger.spawn("other", "p-of-another", [SPAWNED], at=now)

    rows = await ledger.current("default", ended_within=60, limit=10)
    assert [row.pipeline_id for row in rows] == ["p-new-open", "p-new-ended", "p-old-open"]
    assert [row.pipeline_id for row in await ledger.current("default", ended_within=60, limit=1)] == ["p-new-open"]
    heads = await ledger.current_heads("default", ended_within=60)
    assert heads == {"p-new-open": 1, "p-new-ended": 2, "p-old-open": 1}
