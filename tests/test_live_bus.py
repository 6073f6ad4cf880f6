"""Notices reach those who want them, and a reader that is slow or new loses nothing that it cannot find again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest
from redis.asyncio import Redis

from tests.fixtures.book import TENANT, Book, until
from trilogue.entry import Entry, Kind
from trilogue.live import Delta, Live, Notice, Signal, Subscription, keys
from trilogue.live.bus import CHARACTERS_HELD, NOTICES_HELD
from trilogue.live.connection import ANSWER_TIMEOUT, connect

PIPELINE = "p-7k3m9q2xw4bd"


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def live(redis_url: str, book: Book) -> AsyncIterator[Live]:
    async with Live(redis_url, board_ttl=60, backfill=book.backfill) as live:
        yield live


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


async def resumed(notices: Subscription) -> None:
    async with asyncio.timeout(5):
        while await anext(notices) is not Signal.RESUMED:
            pass


async def test_a_subscriber_hears_its_pipeline_or_its_tenant_and_nothing_else(live: Live, book: Book) -> None:
    async with (
        live.subscribe(TENANT, PIPELINE) as one,
        live.subscribe(TENANT) as all_of_tenant,
        live.subscribe("other") as stranger,
    ):
        for notices in (one, all_of_tenant, stranger):
            await resumed(notices)
        live.poster.post(book.commit("p-another", Kind.VOTE, "beta-1", proposal="p1", revision=1, verdict="approve"))
        live.poster.post(book.commit(PIPELINE, content="hé"))
        heard = await anext(one)
        assert isinstance(heard, Notice)
        assert (heard.pipeline_id, heard.seq, heard.kind, heard.actor) == (PIPELINE, 1, "message", "alpha-1")
        assert (heard.attempt, heard.body) == (1, {"content": "hé"})
        pipelines = [notice.pipeline_id async for notice in _first(all_of_tenant, 2)]
        assert sorted(pipelines) == ["p-7k3m9q2xw4bd", "p-another"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(stranger)


async def _first(notices: Subscription, count: int) -> AsyncIterator[Notice]:
    for _ in range(count):
        notice = await anext(notices)
        assert isinstance(notice, Notice)
        yield notice


async def test_a_slow_subscriber_is_told_that_it_lagged_and_holds_no_more_than_it_may(live: Live, book: Book) -> None:
    async with live.subscribe(TENANT, PIPELINE) as slow, live.subscribe(TENANT, PIPELINE) as quick:
        await resumed(slow)
        await resumed(quick)
        total = 3 * NOTICES_HELD
        for _ in range(total // 16):
            live.poster.post(book.commit(PIPELINE, times=16, content="x" * 2000))
            await _until_seq(quick, len(book.entries[PIPELINE]))
        waiting = slow._items
        assert len(waiting) <= NOTICES_HELD
        assert sum(size for _, size in waiting) <= CHARACTERS_HELD
        assert await anext(slow) is Signal.LAGGED
        await _until_seq(slow, total)


async def _until_seq(notices: Subscription, seq: int) -> None:
    async with asyncio.timeout(5):
        while True:
            notice = await anext(notices)
            if isinstance(notice, Notice) and notice.seq == seq:
                return


async def test_a_slow_follower_catches_up_without_gap_or_repeat(live: Live, book: Book) -> None:
    seen = []
    async with aclosing(live.follow(TENANT, PIPELINE, book.reader(PIPELINE))) as entries:
        for seq in range(1, 5 * NOTICES_HELD + 1):
            live.poster.post(book.commit(PIPELINE))
            if seq % 100 == 0:
                await live.poster.flush(5)
            if seq % 500 == 0:
                seen.append(await anext(entries))
        async for entry in entries:
            seen.append(entry)
            if isinstance(entry, Entry) and entry.seq == 5 * NOTICES_HELD:
                break
    assert [entry.seq for entry in seen if isinstance(entry, Entry)] == list(range(1, 5 * NOTICES_HELD + 1))


async def test_a_message_that_nobody_understands_sends_its_readers_to_the_ledger(live: Live, redis: Redis) -> None:
    channel = keys.of_pipeline(TENANT, PIPELINE).channel
    async with live.subscribe(TENANT, PIPELINE) as notices:
        await resumed(notices)
        for nonsense in (b"\xff\xfe", b"[]", b"null", b'{"seq": {}}', json.dumps({"seq": 1}).encode(), b"[" * 5000):
            await redis.publish(channel, nonsense)
            async with asyncio.timeout(5):
                assert await anext(notices) is Signal.LAGGED


async def test_a_quiet_subscription_stays_trusted(live: Live) -> None:
    async with live.subscribe(TENANT, PIPELINE) as notices:
        await resumed(notices)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT + 0.5):
                await anext(notices)


async def test_many_subscribers_share_one_connection_and_leave_nothing_behind(live: Live, redis: Redis) -> None:
    async def channels() -> int:
        names = [keys.of_pipeline(TENANT, f"p-{number}").channel for number in range(300)]
        return sum(count > 0 for _, count in await redis.pubsub_numsub(*names))

    async with AsyncExitStack() as stack:
        for number in range(300):
            await stack.enter_async_context(live.subscribe(TENANT, f"p-{number}"))
        await until(lambda: _is(channels, 300))
        listening = [client for client in await redis.client_list() if int(client["sub"]) > 0]
        assert len(listening) == 1
    await until(lambda: _is(channels, 0))
    async with live.subscribe(TENANT, "p-1") as again:
        await resumed(again)


async def _is(count: object, wanted: int) -> bool:
    assert callable(count)
    return bool(await count() == wanted)


async def test_who_joins_in_the_middle_of_a_turn_gets_its_text_so_far_and_then_the_rest(live: Live, book: Book) -> None:
    live.poster.post(book.commit(PIPELINE, Kind.TURN_BEGUN, turn=1, agent_id="alpha-1"))
    text = 'Erst dies: "ü🏠"\n'
    for offset, character in enumerate(text):
        live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=offset, text=character))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)

    async with aclosing(live.follow(TENANT, PIPELINE, book.reader(PIPELINE))) as items:
        assert isinstance(await anext(items), Entry)
        joined = await anext(items)
        assert joined == Delta(turn=1, agent_id="alpha-1", offset=0, text=text)
        live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=len(text), text="dann das"))
        rest = await anext(items)
        assert rest == Delta(turn=1, agent_id="alpha-1", offset=len(text), text="dann das")
        # The call is tried again: its text begins anew, also for those who join now.
        live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=0, text="Neu"))
        anew = await anext(items)
        assert anew == Delta(turn=1, agent_id="alpha-1", offset=0, text="Neu")
        live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=3, text=" begonnen"))
        live.poster.post(book.commit(PIPELINE, Kind.TURN_ENDED, turn=1, agent_id="alpha-1"))
        ended = await anext(items)
        assert isinstance(ended, Entry)
        assert ended.kind is Kind.TURN_ENDED


async def test_nothing_is_left_of_a_turn_that_has_ended(live: Live, book: Book, redis: Redis) -> None:
    place = keys.of_pipeline(TENANT, PIPELINE)
    live.poster.delta(TENANT, PIPELINE, Delta(turn=1, agent_id="alpha-1", offset=0, text="so far"))
    await until(lambda: _is(lambda: redis.exists(place.turns), 1))
    live.poster.post(book.commit(PIPELINE, Kind.TURN_ENDED, turn=1, agent_id="alpha-1"))
    assert await live.poster.flush(5)
    assert await redis.exists(place.turns) == 0
    assert await redis.xlen(place.entries) == 1


async def test_a_flood_of_streamed_text_does_not_hold_up_entries(live: Live, book: Book) -> None:
    done = False

    async def flood(turn: int) -> None:
        offset = 0
        while not done:
            for _ in range(20):
                delta = Delta(turn=turn, agent_id="alpha-1", offset=offset, text="token ")
                live.poster.delta(TENANT, PIPELINE, delta)
                offset += len(delta.text)
            await asyncio.sleep(0.001)

    waits = []
    async with asyncio.TaskGroup() as tasks, live.subscribe(TENANT, PIPELINE) as notices:
        await resumed(notices)
        for turn in range(50):
            tasks.create_task(flood(turn))
        for seq in range(1, 101):
            start = time.perf_counter()
            live.poster.post(book.commit(PIPELINE))
            await _until_seq(notices, seq)
            waits.append(time.perf_counter() - start)
        done = True
    assert sorted(waits)[50] < 0.1
    assert max(waits) < 0.5
