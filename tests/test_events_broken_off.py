"""Viewers that are cut off, do not read, or lose Redis: every event once, and nobody else is held up."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.fixtures.book import until
from tests.fixtures.valkey import OwnServer
from tests.watching import Scribe, Station, in_turn, kept_small, scribe, station
from trilogue.services import Services

CUTS = 100
SEED = 20_261_122


async def test_a_viewer_cut_off_at_a_hundred_random_moments_has_every_event_once_and_in_order(
    events_at: Station, elsewhere: Services
) -> None:
    chance = random.Random(SEED)
    writer, done = await scribe(elsewhere, "p-cut"), asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            await writer.say(chance.randint(1, 4), length=chance.choice([10, 3000]))
            await asyncio.sleep(chance.uniform(0, 0.004))

    seqs: list[int] = []
    writing = asyncio.create_task(write())
    with kept_small(60_000):
        for _ in range(CUTS):
            async with events_at.watching(f"pipeline_id=p-cut&after={seqs[-1] if seqs else 0}") as viewer:
                try:
                    async with asyncio.timeout(chance.uniform(0, 0.03)):
                        await viewer.up_to(-1)
                except TimeoutError:
                    viewer.socket.transport.abort()
            seqs += viewer.seqs
        done.set()
        await writing
        async with events_at.watching(f"pipeline_id=p-cut&after={seqs[-1]}") as viewer:
            if seqs[-1] < writer.head:
                await viewer.up_to(writer.head)
        seqs += viewer.seqs
    assert seqs == in_turn(1, writer.head)
    assert writer.head > CUTS


async def test_a_viewer_who_does_not_read_holds_up_nobody_and_is_caught_up_from_the_ledger(
    events_at: Station, elsewhere: Services
) -> None:
    writer = await scribe(elsewhere, "p-slow")
    with kept_small(40_000):
        async with AsyncExitStack() as stack:
            query = "pipeline_id=p-slow&after=0"
            slow = await stack.enter_async_context(events_at.watching(query, slow=True))
            quick = await stack.enter_async_context(events_at.watching(query))
            took = []
            for _ in range(60):
                began = time.perf_counter()
                await writer.say(10, length=1000)
                await quick.up_to(writer.head)
                took.append(time.perf_counter() - began)
            feed = events_at.hub.attach("p-slow")
            assert feed.first > 500
            assert sum(len(told.text) for told in feed.since(feed.first - 1, 1000)) <= 40_000
            await slow.up_to(writer.head)
    assert quick.seqs == slow.seqs == in_turn(1, 601)
    assert sorted(took)[len(took) // 2] < 0.2


async def test_a_viewer_who_does_not_read_for_too_long_is_sent_away_and_can_come_back(
    events_at: Station, elsewhere: Services
) -> None:
    events_at.hub.patience = 0.2
    writer = await scribe(elsewhere, "p-slow")
    async with events_at.watching("pipeline_id=p-slow&after=0", slow=True) as slow:
        await writer.say(200, length=20_000)
        [viewer] = await _watched(events_at, "p-slow")
        await until(lambda: viewer.given_up)
        code, _ = await slow.closed()
    assert code == 4408
    events_at.hub.patience = 10
    async with events_at.watching(f"pipeline_id=p-slow&after={slow.seqs[-1]}") as again:
        await again.up_to(writer.head)
    assert slow.seqs + again.seqs == in_turn(1, 201)


async def test_events_go_on_when_redis_goes_away_and_comes_back(
    tmp_path: Path, migrated_sqlite_url: str, valkey_server: OwnServer
) -> None:
    async with (
        station(tmp_path, ledger_url=migrated_sqlite_url, redis_url=valkey_server.url) as here,
        here.watching("pipeline_id=p-one&after=0") as none_yet,
    ):
        assert (await none_yet.closed())[0] == 4404
        writer = await scribe(here.app.state.services, "p-one")
        async with here.watching("pipeline_id=p-one&after=0") as viewer, here.watching() as of_all:
            await writer.say(3)
            await viewer.up_to(4)
            await asyncio.to_thread(valkey_server.kill)
            await writer.say(3)
            other = await scribe(here.app.state.services, "p-two")
            await viewer.up_to(7)
            await of_all.until(lambda event: (event["pipeline_id"], event["seq"]) == ("p-two", 1))
            await of_all.until(lambda event: event["seq"] == 7) if 7 not in of_all.seqs else None
            await asyncio.to_thread(valkey_server.start)
            await writer.say(3)
            await other.say(1)
            await viewer.up_to(10)
            await of_all.until(lambda _: {10, 2} <= set(of_all.seqs))
    assert viewer.seqs == in_turn(1, 10)
    of_one = [event["seq"] for event in of_all.recorded if event["pipeline_id"] == "p-one"]
    assert of_one == in_turn(of_one[0], 10)


async def _watched(here: Station, pipeline_id: str) -> list:  # type: ignore[type-arg]
    await until(lambda: bool(here.hub.watched(pipeline_id)))
    return here.hub.watched(pipeline_id)


async def test_fifty_viewers_of_one_pipeline_read_the_ledger_together(events_at: Station, elsewhere: Services) -> None:
    writer: Scribe = await scribe(elsewhere, "p-many")
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(events_at.watching("pipeline_id=p-many&after=0")) for _ in range(50)]
        assert events_at.hub.feeds == 1
        for _ in range(5):
            await writer.say(4)
        await asyncio.gather(*(viewer.up_to(21) for viewer in viewers))
    assert all(viewer.seqs == in_turn(1, 21) for viewer in viewers)
