"""Posts to the live board per second, through the process's one poster to a real Valkey."""

import asyncio
import time
from collections.abc import Iterator, Sequence

from benchmarks.figures import Figure
from benchmarks.servers import temporary_home, valkey
from trilogue import clock
from trilogue.entry import GENESIS, Entry, Kind
from trilogue.live import Live

_PIPELINES = 64
_POSTS_EACH = 200


def measure() -> Iterator[Figure]:
    """Votes, each posted by itself (stream, board hash, notice); each pipeline waits until its last one is out."""
    with temporary_home() as home, valkey(home) as url:
        yield asyncio.run(_measured(url))


async def _measured(url: str) -> Figure:
    asked = 0

    async def backfill(_tenant: str, _pipeline_id: str, _after: int) -> Sequence[Entry]:
        nonlocal asked
        asked += 1
        return []

    votes = [[_vote(f"p-{number:012}", seq) for seq in range(1, _POSTS_EACH + 1)] for number in range(_PIPELINES)]
    async with Live(url, board_ttl=60, backfill=backfill) as live:
        await live.ping()
        began, cpu = time.perf_counter(), time.process_time()
        for round_of_all in zip(*votes, strict=True):
            for vote in round_of_all:
                live.poster.post([vote])
            assert await live.poster.flush(timeout=30)
        seconds = time.perf_counter() - began
        busy = (time.process_time() - cpu) / seconds
        board = await live.read_board("default", votes[-1][-1].pipeline_id)
    assert asked == 0, "some posts did not reach the board by themselves"
    assert board is not None
    assert int(board["state"]["seq"]) == _POSTS_EACH
    return Figure(
        what=f"board posts, {_PIPELINES} pipelines at once",
        on="Valkey",
        value=_PIPELINES * _POSTS_EACH / seconds,
        unit="/s",
        aim=3000,
        at_least=True,
        note=f"CPU of the poster's process {busy:.0%} of one",
    )


def _vote(pipeline_id: str, seq: int) -> Entry:
    return Entry(
        tenant="default",
        pipeline_id=pipeline_id,
        seq=seq,
        attempt=1,
        kind=Kind.VOTE,
        actor="beta-1",
        at=clock.now(),
        body={"proposal": "p1", "revision": 1, "verdict": "approve", "reason": "word " * 40, "turn": seq},
        prev_hash=GENESIS,
        hash=GENESIS,
    )
