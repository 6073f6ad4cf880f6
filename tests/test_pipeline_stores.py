"""Ledger and Redis may go in the middle of a pipeline: no answer is lost, nobody is asked twice, and the board in Redis
is whole again as soon as there is one."""

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing

import pytest
from redis import Redis

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.valkey import OwnServer
from trilogue.entry import Entry, Kind
from trilogue.ledger.chain import verify
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.live.projection import HASHES, project
from trilogue.pipeline import Status
from trilogue.spec import LONGEST_CONTEXT
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Ok, always

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""
SLOW = pytest.mark.slow


def assert_nothing_lost(course: Course, server: OpenRouterServer) -> None:
    """Every answer of the server is in the ledger, once, and no turn was left open."""
    assert course.board.status is Status.COMPLETED
    assert course.calls == len(server.chats) == len(course.outcomes())
    assert set(course.outcomes()) == {"acted"}
    assert not course.board.open_turns
    assert verify(course.entries) is None


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Another process holds the write lock of the SQLite database at `url` meanwhile."""
    command = [sys.executable, "-c", LOCKER, url.removeprefix("sqlite:///")]
    locker = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert locker.stdin is not None
    assert locker.stdout is not None
    try:
        assert await locker.stdout.readline() == b"locked\n"
        yield
    finally:
        locker.stdin.close()
        assert await locker.wait() == 0


@pytest.mark.parametrize("seconds", [1.5, pytest.param(5.0, marks=SLOW)])
async def test_a_ledger_that_another_process_locks_for_seconds_loses_no_answer(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, migrated_sqlite_url: str, seconds: float
) -> None:
    rehearsed.latency = 0.1
    driver = await driver_of(rehearsed)
    running = asyncio.create_task(driver.run())
    await until(lambda: len(rehearsed.chats) == 2)
    async with locked(migrated_sqlite_url):
        asked = len(rehearsed.chats)
        await asyncio.sleep(seconds)  # the time itself is what is tried
        assert len(rehearsed.chats) <= asked + 2  # without the ledger nobody begins a turn
    assert_nothing_lost(await running, rehearsed)
    with closing(sqlite3.connect(migrated_sqlite_url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_postgresql_that_is_restarted_again_and_again_loses_no_answer(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, own_postgres: OwnPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    rehearsed.latency = 0.05
    driver = await driver_of(rehearsed, ledger_url=own_postgres.url)
    running = asyncio.create_task(driver.run())
    for restart, chats in enumerate((2, 4, 6), start=1):
        await until(lambda chats=chats: len(rehearsed.chats) >= chats)  # type: ignore[misc]
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda restart=restart: caplog.text.count("trying again") >= restart)  # type: ignore[misc]
        await asyncio.to_thread(own_postgres.start)
    assert_nothing_lost(await running, rehearsed)


async def heals(driver: Driver, course: Course) -> None:
    """Who reads the board in Redis sees what the ledger says: also what was posted before it was lost."""
    told = project(course.entries).hashes
    expected = {
        name: {field: json.loads(value) for field, value in fields.items()}
        for name, fields in zip(HASHES, told, strict=True)
    }
    assert expected["consensus"]["text"] == (course.board.consensus or {})["text"]

    async def whole() -> bool:
        await driver.services.live.poster.flush(timeout=0.5)
        return await driver.services.live.read_board(TENANT, course.pipeline_id) == expected

    await until(whole)


def emptied(server: OwnServer) -> None:
    with Redis.from_url(server.url) as client:
        client.flushall()


def restarted(server: OwnServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("loses_all", [emptied, pytest.param(restarted, marks=SLOW)])
async def test_a_redis_that_loses_everything_in_the_middle_is_filled_again(
    rehearsed: OpenRouterServer,
    driver_of: MakeDriver,
    valkey_server: OwnServer,
    loses_all: Callable[[OwnServer], None],
) -> None:
    rehearsed.latency = 0.15
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    running = asyncio.create_task(driver.run())
    for chats in (2, 4, 6):  # of eight: what was posted before the loss comes back with what is posted after it
        await until(lambda chats=chats: len(rehearsed.chats) >= chats)  # type: ignore[misc]
        await asyncio.to_thread(loses_all, valkey_server)
    course = await running
    assert_nothing_lost(course, rehearsed)
    await heals(driver, course)


@pytest.mark.parametrize(
    ("goes", "comes"),
    [(OwnServer.kill, OwnServer.start), pytest.param(OwnServer.freeze, OwnServer.thaw, marks=SLOW)],
)
async def test_a_redis_that_is_away_or_hangs_stops_nothing_and_catches_up_when_it_is_back(
    rehearsed: OpenRouterServer,
    driver_of: MakeDriver,
    valkey_server: OwnServer,
    goes: Callable[[OwnServer], None],
    comes: Callable[[OwnServer], None],
) -> None:
    rehearsed.latency = 0.05
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    running = asyncio.create_task(driver.run())
    await until(lambda: len(rehearsed.chats) >= 3)
    await asyncio.to_thread(goes, valkey_server)
    course = await running
    assert_nothing_lost(course, rehearsed)
    await asyncio.to_thread(comes, valkey_server)
    await heals(driver, course)


async def test_a_run_takes_hardly_longer_without_redis_or_with_one_that_never_answers(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsed.latency = 0.05
    took: dict[str, float] = {}
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        hanging = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        nowhere = "redis://127.0.0.1:1/0"
        drivers = {
            name: await driver_of(rehearsed, live_url=url)
            for name, url in (("with", valkey_server.url), ("without", nowhere), ("hanging", hanging))
        }
        for name, driver in [*drivers.items(), ("hanging still", drivers["hanging"])]:
            pipeline_id = await driver.spawn()
            rehearsed.requests.clear()
            began = time.perf_counter()
            course = await driver.carry(pipeline_id)
            took[name] = time.perf_counter() - began
            assert_nothing_lost(course, rehearsed)
    with capsys.disabled():
        shown_times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
        sys.stdout.write(f"\na run of {len(course.outcomes())} calls, Redis: {shown_times}\n")
    assert took["without"] < took["with"] + 1.5
    assert took["hanging"] < took["with"] + 4.0  # its end waits until the poster has noticed, for two seconds at most
    assert took["hanging still"] < took["with"] + 2.0


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
