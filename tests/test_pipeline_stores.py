"""Ledger and Redis may go for a while in the middle of a pipeline: no answer is lost and nobody is asked twice."""

import asyncio
import sqlite3
import threading
from contextlib import aclosing, closing
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from tests.fixtures.valkey import OwnServer
from trilogue.entry import Entry, Kind
from trilogue.ledger.chain import verify
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.pipeline import Status
from trilogue.spec import LONGEST_CONTEXT
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Ok, always


def assert_nothing_lost(course: Course, server: OpenRouterServer) -> None:
    """Every answer of the server is in the ledger, once, and no turn was left open."""
    assert course.board.status is Status.COMPLETED
    assert course.calls == len(server.chats) == len(course.outcomes())
    assert set(course.outcomes()) == {"acted"}
    assert not course.board.open_turns
    assert verify(course.entries) is None


def lock_for(path: Path, seconds: float, locked: threading.Event) -> None:
    """Hold SQLite's write lock, as another program might."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        locked.set()
        threading.Event().wait(seconds)
        connection.execute("ROLLBACK")


async def test_a_ledger_that_is_locked_for_seconds_loses_no_answer(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, migrated_sqlite_url: str
) -> None:
    rehearsed.latency = 0.1
    driver = await driver_of(rehearsed)
    running = asyncio.create_task(driver.run())
    await until(lambda: len(rehearsed.chats) == 2)
    locked = threading.Event()
    path = Path(migrated_sqlite_url.removeprefix("sqlite:///"))
    locking = asyncio.create_task(asyncio.to_thread(lock_for, path, 3.0, locked))
    await until(locked.is_set)
    asked = len(rehearsed.chats)
    await locking
    assert len(rehearsed.chats) <= asked + 2  # without the ledger nobody begins a turn
    assert_nothing_lost(await running, rehearsed)


async def test_a_ledger_that_cuts_its_connections_and_takes_no_new_ones_for_a_while_loses_no_answer(
    rehearsed: OpenRouterServer,
    driver_of: MakeDriver,
    migrated_postgres_url: str,
    postgres_server: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rehearsed.latency = 0.05
    driver = await driver_of(rehearsed, ledger_url=migrated_postgres_url)
    running = asyncio.create_task(driver.run())
    name = migrated_postgres_url.partition("?")[0].rpartition("/")[2]
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(postgres_server, autocommit=True) as server:
        for chats in (2, 4, 6):
            await until(lambda chats=chats: len(rehearsed.chats) >= chats)  # type: ignore[misc]
            await asyncio.to_thread(server.execute, cut, (name,))
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await asyncio.to_thread(server.execute, cut, (name,))
        await until(lambda: "trying again" in caplog.text)
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert_nothing_lost(await running, rehearsed)


async def board_in_redis(driver: Driver, pipeline_id: str, status: Status) -> bool:
    await driver.services.live.poster.flush(timeout=0.5)
    board = await driver.services.live.read_board(TENANT, pipeline_id)
    return board is not None and board["state"]["status"] == status.value


async def heals(driver: Driver, course: Course) -> None:
    """The whole board stands in Redis: also what was posted before it was emptied."""
    await until(lambda: board_in_redis(driver, course.pipeline_id, course.board.status))
    board = await driver.services.live.read_board(TENANT, course.pipeline_id)
    assert board is not None
    assert board["state"]["seq"] == course.board.seq
    assert board["proposals"].keys() == course.board.proposals.keys()
    assert len(board["votes"]) == len(course.board.votes) > 0
    assert course.board.consensus is not None
    assert board["consensus"]["text"] == course.board.consensus["text"]


async def test_a_redis_that_is_emptied_in_the_middle_is_filled_again(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer
) -> None:
    rehearsed.latency = 0.05
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    running = asyncio.create_task(driver.run())
    with Redis.from_url(valkey_server.url) as client:
        for chats in (3, 5, 7):
            await until(lambda chats=chats: len(rehearsed.chats) >= chats)  # type: ignore[misc]
            await asyncio.to_thread(client.flushall)
        course = await running
        assert_nothing_lost(course, rehearsed)
        await heals(driver, course)


async def test_a_redis_that_is_away_stops_nothing_and_catches_up_when_it_is_back(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer
) -> None:
    rehearsed.latency = 0.05
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    running = asyncio.create_task(driver.run())
    await until(lambda: len(rehearsed.chats) >= 3)
    await asyncio.to_thread(valkey_server.kill)
    course = await running
    assert_nothing_lost(course, rehearsed)
    await asyncio.to_thread(valkey_server.start)
    await heals(driver, course)


async def test_a_redis_that_was_never_there_stops_nothing(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer
) -> None:
    await asyncio.to_thread(valkey_server.kill)
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    assert_nothing_lost(await driver.run(), rehearsed)


async def test_streamed_text_is_on_the_bus_before_its_turn_ends(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = always(Ok(pause=0.004))
    driver = await driver_of(rehearsed)
    pipeline_id = await driver.spawn()
    texts: dict[int, str] = {}
    early: set[int] = set()
    ended: dict[int, list[str]] = {}

    async def read(after: int) -> list[Entry]:
        return await driver.services.ledger.entries(TENANT, pipeline_id, after=after)

    async def listen() -> None:
        async with aclosing(driver.services.live.follow(TENANT, pipeline_id, read)) as happening:
            async for item in happening:
                if isinstance(item, Delta):
                    if item.turn not in ended:
                        early.add(item.turn)
                    texts[item.turn] = texts.get(item.turn, "")[: item.offset] + item.text
                elif item.kind is Kind.TURN_ENDED:
                    ended[item.body["turn"]] = item.body["actions"]
                elif item.kind is Kind.CHECKPOINT and item.body["name"] == "completed":
                    return

    listening = asyncio.create_task(listen())
    course = await driver.carry(pipeline_id)
    async with asyncio.timeout(5):
        await listening
    long = {turn for turn, actions in ended.items() if {"find", "propose", "revise"} & set(actions)}
    assert len(long) >= 4
    assert early >= long
    finding = next(iter(course.board.findings.values()))
    first = course.bodies(Kind.FINDING)[0]["turn"]
    assert finding.text[:60] in texts[first]  # readable words, not JSON
    assert '"action"' not in "".join(texts.values())


async def test_context_documents_reach_both_agents_in_run_whole_and_cost_nothing_afterwards(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    largest = ("0123456789abcde\n" * (LONGEST_CONTEXT // 16))[:LONGEST_CONTEXT]
    documents = [{"name": "figures.txt", "text": largest}, {"name": "notes.md", "text": "Tür & „Tor“ \u2028 end"}]
    course = await (await driver_of(rehearsed)).run(context=documents)
    assert course.board.status is Status.COMPLETED
    for seen in rehearsed.chats:
        situation = shown(seen)
        if situation["phase"] == "RUN":
            assert situation["sources"] == documents
        else:
            assert situation["sources"] == ["figures.txt", "notes.md"]
    assert {shown(seen)["you"] for seen in rehearsed.chats if shown(seen)["phase"] == "RUN"} == {"ALPHA", "BETA"}
    assert all("figures.txt" in finding.evidence for finding in course.board.findings.values())
