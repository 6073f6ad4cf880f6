"""What was committed gets into Redis once, in order and without a gap, and goes away by itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from tests.fixtures.book import TENANT, Book, until
from tests.fixtures.valkey import immortal_keys
from trilogue.entry import Kind
from trilogue.live import Delta, Live, Notice, keys
from trilogue.live.connection import connect

PIPELINE = "p-7k3m9q2xw4bd"
PLACE = keys.of_pipeline(TENANT, PIPELINE)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


@pytest.fixture
async def live(redis_url: str, book: Book) -> AsyncIterator[Live]:
    async with Live(redis_url, board_ttl=60, backfill=book.backfill) as live:
        yield live


async def streamed(redis: Redis, pipeline_id: str = PIPELINE) -> list[int]:
    """The seqs in the stream, in its order."""
    stream = await redis.xrange(keys.of_pipeline(TENANT, pipeline_id).entries)
    return [json.loads(fields["entry"])["seq"] for _, fields in stream or [] if fields]


async def test_a_gap_is_refused_and_filled_from_the_ledger(live: Live, book: Book, redis: Redis) -> None:
    live.poster.post(book.commit(PIPELINE, times=2))
    assert await live.poster.flush(5)
    assert book.reads == 0

    book.commit(PIPELINE, times=300)  # by a worker that died before it could post; more than one portion
    live.poster.post(book.commit(PIPELINE))
    assert await live.poster.flush(5)

    assert await streamed(redis) == list(range(1, 304))
    assert book.reads == 1


async def test_what_was_posted_already_is_skipped(live: Live, book: Book, redis: Redis) -> None:
    async with live.subscribe(TENANT, PIPELINE) as notices:
        await anext(notices)  # LOST
        await anext(notices)  # RESUMED
        first, again = book.commit(PIPELINE, times=3), book.commit(PIPELINE, times=2)
        for entries in (first, first, [*first, *again], again):
            live.poster.post(entries)
            assert await live.poster.flush(5)
        last = book.commit(PIPELINE)
        live.poster.post(last)

        seen: list[int | None] = []
        async with asyncio.timeout(5):
            while 6 not in seen:
                notice = await anext(notices)
                assert isinstance(notice, Notice)
                seen.append(notice.seq)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert book.reads == 0
    assert await streamed(redis) == [1, 2, 3, 4, 5, 6]


async def test_two_posters_racing_on_one_pipeline_leave_a_gapless_stream(
    redis_url: str, live: Live, book: Book, redis: Redis
) -> None:
    async with Live(redis_url, board_ttl=60, backfill=book.backfill) as other:
        for commit in range(200):
            (live, other)[commit % 2].poster.post(book.commit(PIPELINE, times=1 + commit % 3))
            if commit % 7 == 0:
                await asyncio.sleep(0)
        assert await live.poster.flush(10)
        assert await other.poster.flush(10)
    assert await streamed(redis) == list(range(1, len(book.entries[PIPELINE]) + 1))


@pytest.mark.parametrize("loss", ["FLUSHALL", "SCRIPT FLUSH", f"DEL {PLACE.state}", f"DEL {PLACE.entries}"])
async def test_whatever_is_lost_in_the_middle_heals(live: Live, book: Book, redis: Redis, loss: str) -> None:
    live.poster.post(book.commit(PIPELINE, Kind.PROPOSAL, id="proposal-1", title="One", text="…"))
    assert await live.poster.flush(5)
    await redis.execute_command(*loss.split())  # type: ignore[no-untyped-call]  # redis-py
    live.poster.post(book.commit(PIPELINE, Kind.PROPOSAL, id="proposal-2", title="Two", text="…"))
    assert await live.poster.flush(5)

    board = await live.read_board(TENANT, PIPELINE)
    assert board is not None
    assert set(board["proposals"]) == {"proposal-1", "proposal-2"}
    assert board["state"]["seq"] == 2
    assert await streamed(redis) == ([2] if PLACE.entries in loss else [1, 2])


async def test_the_board_says_what_the_entries_say(live: Live, book: Book) -> None:
    objective = "Räume 🏠 " + "x" * 1000
    live.poster.post(book.commit(PIPELINE, Kind.PIPELINE_SPAWNED, objective=objective, mode="local", model="m"))
    live.poster.post(book.commit(PIPELINE, Kind.STATUS, status="ORCHESTRATING", error=None))
    live.poster.post(book.commit(PIPELINE, Kind.PHASE_STARTED, phase="ORCHESTRATE"))
    live.poster.post(book.commit(PIPELINE, Kind.ROUND_STARTED, round=1, mode="local", model="other", timeout=2.0))
    live.poster.post(book.commit(PIPELINE, Kind.PROPOSAL, id="p1", title="One", text="first"))
    live.poster.post(book.commit(PIPELINE, Kind.REVISION, proposal="p1", revision=2, title="One", text="bro\ud800ken"))
    vote: dict[str, Any] = {"proposal": "p1", "revision": 2, "verdict": "approve", "reason": 'so "be" it'}
    live.poster.post(book.commit(PIPELINE, Kind.VOTE, "beta-1", **vote))
    live.poster.post(book.commit(PIPELINE, Kind.SOLUTION, id="s1", title="S", text="solved", subtask=None))
    live.poster.post(book.commit(PIPELINE, Kind.FAILURE, "system", agent_id=None, code="c", message="m"))
    live.poster.post(book.commit(PIPELINE, Kind.CONSENSUS, "system", proposal_id="p1", votes={"beta-1": "approve"}))
    assert await live.poster.flush(5)

    board = await live.read_board(TENANT, PIPELINE)
    assert board is not None
    state = board["state"]
    assert state["objective"] == objective[:500]
    assert (state["status"], state["phase"], state["round"]) == ("ORCHESTRATING", "ORCHESTRATE", 1)
    assert (state["seq"], state["attempt"], state["model"], state["error"]) == (10, 1, "other", None)
    assert board["proposals"] == {
        "p1": {"id": "p1", "revision": 2, "title": "One", "text": "bro\ud800ken", "author": "alpha-1"}
    }
    assert board["votes"] == {"p1/beta-1": {"revision": 2, "verdict": "approve", "reason": 'so "be" it'}}
    assert board["solutions"]["s1"]["author"] == "alpha-1"
    assert board["failures"]["9"]["code"] == "c"
    assert board["consensus"] == {"proposal_id": "p1", "votes": {"beta-1": "approve"}}
    assert await live.read_board("other", PIPELINE) is None


async def test_every_key_has_a_ttl_and_one_without_is_found(live: Live, book: Book, redis_url: str) -> None:
    commits: list[tuple[Kind, dict[str, Any]]] = [
        (Kind.PROPOSAL, {"id": "p1", "title": "", "text": ""}),
        (Kind.VOTE, {"proposal": "p1", "revision": 1, "verdict": "reject", "reason": ""}),
        (Kind.SOLUTION, {"id": "s1"}),
        (Kind.HANDOFF, {"agent_id": "alpha-1"}),
        (Kind.CONSENSUS, {"proposal_id": "p1"}),
    ]
    for kind, body in commits:
        live.poster.post(book.commit(PIPELINE, kind, **body))
    live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=0, text="so far"))
    with BlockingRedis.from_url(redis_url, decode_responses=True) as client:
        await until(lambda: len(client.keys()) == len(PLACE.declared))
        assert immortal_keys(client) == []
        # A late commit makes everything last as long again.
        client.pexpire(PLACE.votes, 1000)
        live.poster.post(book.commit(PIPELINE))
        assert await live.poster.flush(5)
        assert int(str(client.pttl(PLACE.votes))) > 50_000

        client.set("forgotten", "1")
        assert immortal_keys(client) == ["forgotten"]
        client.delete("forgotten")


async def test_one_pipeline_that_cannot_be_posted_holds_up_no_other(live: Live, book: Book, redis: Redis) -> None:
    await redis.set(PLACE.proposals, "somebody else's", ex=60)
    live.poster.post(book.commit(PIPELINE, Kind.PROPOSAL, id="p1", title="", text=""))
    for seq in range(1, 50):
        live.poster.post(book.commit("p-other"))
        await until(partial(_last_is, redis, "p-other", seq), 1)
    await redis.delete(PLACE.proposals)
    assert await live.poster.flush(10)
    assert await streamed(redis) == [1]


async def _last_is(redis: Redis, pipeline_id: str, seq: int) -> bool:
    return (await streamed(redis, pipeline_id))[-1:] == [seq]


async def test_more_than_can_be_held_comes_from_the_ledger_instead(live: Live, book: Book, redis: Redis) -> None:
    for _ in range(6000):  # in one breath: the poster's task gets no turn
        live.poster.post(book.commit(PIPELINE))
    assert await live.poster.flush(20)
    assert book.reads >= 1
    seqs = await streamed(redis)
    assert seqs == list(range(seqs[0], 6001))
    assert 1000 <= len(seqs) < 1300  # the stream keeps about a thousand
