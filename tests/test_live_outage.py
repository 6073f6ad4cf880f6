"""Redis may go, hang and come back empty: nobody waits for it, and nobody misses an entry."""

import asyncio
import random
import time
from contextlib import aclosing

import pytest

from tests.fixtures.book import TENANT, Book, until
from tests.fixtures.valkey import OwnServer
from trilogue.entry import Entry
from trilogue.errors import Unavailable
from trilogue.live import Live, Signal
from trilogue.live.breaker import Admission, Breaker

PIPELINE = "p-7k3m9q2xw4bd"


@pytest.fixture
def book() -> Book:
    return Book()


async def posted(live: Live, pipeline_id: str) -> int:
    board = await live.read_board(TENANT, pipeline_id)
    return int(board["state"]["seq"]) if board else 0


async def test_a_server_that_was_restarted_empty_is_filled_again_and_post_never_waits(
    valkey_server: OwnServer, book: Book
) -> None:
    pipelines = [f"p-{number}" for number in range(40)]
    longest = 0.0

    def post_to_all() -> None:
        nonlocal longest
        for pipeline_id in pipelines:
            entries = book.commit(pipeline_id, times=3)
            start = time.perf_counter()
            live.poster.post(entries)
            longest = max(longest, time.perf_counter() - start)

    async with Live(valkey_server.url, board_ttl=60, backfill=book.backfill) as live:
        post_to_all()
        assert await live.poster.flush(5)
        await asyncio.to_thread(valkey_server.kill)
        post_to_all()
        assert not await live.poster.flush(5)  # says so, and at once, when Redis is away
        post_to_all()
        with pytest.raises(Unavailable):
            await live.ping()
        assert await live.read_board(TENANT, pipelines[0]) is None

        await asyncio.to_thread(valkey_server.start)
        await live.ping()
        await until(lambda: live.poster.flush(1))
        for pipeline_id in pipelines:
            assert await posted(live, pipeline_id) == 9
    assert longest < 0.05


async def test_a_server_that_hangs_holds_up_nobody(valkey_server: OwnServer, book: Book) -> None:
    async with (
        Live(valkey_server.url, board_ttl=60, backfill=book.backfill) as live,
        live.subscribe(TENANT, PIPELINE) as notices,
    ):
        assert [await anext(notices), await anext(notices)] == [Signal.LOST, Signal.RESUMED]
        valkey_server.freeze()
        live.poster.post(book.commit(PIPELINE))
        start = time.perf_counter()
        async with asyncio.timeout(5):  # the heartbeat notices, though the connection stands
            assert await anext(notices) is Signal.LOST
            assert not await live.poster.flush(5)
        assert time.perf_counter() - start < 4
        valkey_server.thaw()
        await until(lambda: live.poster.flush(1))
        assert await posted(live, PIPELINE) == 1


async def test_a_server_that_hangs_delays_a_call_by_a_moment_and_its_breaker_is_shared_again_afterwards(
    valkey_server: OwnServer, book: Book
) -> None:
    def breaker(live: Live) -> Breaker:
        return live.breaker("https://models.example/v1", failures=3, open_seconds=60, trial_seconds=60)

    async with (
        Live(valkey_server.url, board_ttl=60, backfill=book.backfill) as one_live,
        Live(valkey_server.url, board_ttl=60, backfill=book.backfill) as other_live,
    ):
        one, other = breaker(one_live), breaker(other_live)
        assert await one.admit() == Admission()
        valkey_server.freeze()
        start = time.perf_counter()
        for _ in range(2):
            assert await one.admit() == Admission()
            await one.note(ok=False)
        assert time.perf_counter() - start < 1.0
        asking = asyncio.create_task(other.admit())
        await asyncio.sleep(0)
        asking.cancel()
        start = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):  # a stop does not wait for Redis
            await asking
        assert time.perf_counter() - start < 0.2
        valkey_server.thaw()

        async def seen_by_the_other() -> bool:
            await one.note(ok=False)
            return (await other.admit()).wait > 0

        await until(seen_by_the_other)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_followers_see_every_entry_once_and_in_order_while_the_server_comes_and_goes(
    valkey_server: OwnServer, book: Book, seed: int
) -> None:
    dice = random.Random(seed)
    total = 400
    commits = total // 2

    async def commit_all() -> None:
        for _ in range(commits):
            live.poster.post(book.commit(PIPELINE, times=2))
            await asyncio.sleep(dice.random() * 0.02)

    async def come_and_go() -> None:
        while True:
            await asyncio.sleep(dice.random() * 0.4)
            await asyncio.to_thread(valkey_server.kill)
            await asyncio.sleep(dice.random() * 0.2)
            await asyncio.to_thread(valkey_server.start)

    async def watch(after: int) -> list[int]:
        seen: list[int] = []
        async with aclosing(live.follow(TENANT, PIPELINE, book.reader(PIPELINE), after=after)) as entries:
            async for entry in entries:
                assert isinstance(entry, Entry)
                seen.append(entry.seq)
                if entry.seq == total:
                    break
        return seen

    async def join_late() -> list[int]:
        await until(lambda: len(book.entries[PIPELINE]) > total // 3)
        return await watch(after=17)

    async with (
        asyncio.timeout(30),
        Live(valkey_server.url, board_ttl=60, backfill=book.backfill) as live,
        asyncio.TaskGroup() as tasks,
    ):
        troublemaker = tasks.create_task(come_and_go())
        watchers = [tasks.create_task(watch(0)), tasks.create_task(watch(100)), tasks.create_task(join_late())]
        await asyncio.wait([tasks.create_task(commit_all()), *watchers])
        troublemaker.cancel()
    first, later, late = (watcher.result() for watcher in watchers)
    assert first == list(range(1, total + 1))
    assert later == list(range(101, total + 1))
    assert late == list(range(18, total + 1))


async def test_a_follower_learns_of_what_nobody_posted(redis_url: str, book: Book) -> None:
    async with (
        Live(redis_url, board_ttl=60, backfill=book.backfill) as live,
        aclosing(live.follow(TENANT, PIPELINE, book.reader(PIPELINE))) as entries,
    ):
        live.poster.post(book.commit(PIPELINE))
        assert isinstance(await anext(entries), Entry)
        book.commit(PIPELINE)  # and its worker is killed before it posts
        async with asyncio.timeout(5):
            last = await anext(entries)
        assert isinstance(last, Entry)
        assert last.seq == 2


async def test_following_without_any_server_is_polling(book: Book) -> None:
    async with (
        Live("redis://127.0.0.1:1/0", board_ttl=60, backfill=book.backfill) as live,
        aclosing(live.follow(TENANT, PIPELINE, book.reader(PIPELINE), poll=0.01)) as entries,
    ):
        for seq in range(1, 20):
            live.poster.post(book.commit(PIPELINE))
            async with asyncio.timeout(1):
                entry = await anext(entries)
            assert isinstance(entry, Entry)
            assert entry.seq == seq
