"""Two terminals that ask for the same pipeline at the same time: one does it, the other says in one line why not."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.driving import Course, Driver, driving_at
from tests.fixtures.prefect import PrefectServer
from tests.terminals import Finished, Installation
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.ledger import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def servers(installation: Installation, prefect_server: PrefectServer, valkey_socket: Path) -> Mapping[str, str]:
    """What the terminals of `installation` need to use the test's servers instead of embedded ones."""
    return {**prefect_server.environment, "REDIS_URL": f"unix://{valkey_socket}"}


async def _held(driver: Driver) -> str:
    return (await driver.run(mode="local", auto_continue=False)).pipeline_id


async def _stopped(driver: Driver) -> str:
    pipeline_id = await _held(driver)
    await local(driver.services).stop(pipeline_id, "before the race")
    return pipeline_id


def _lost(ended: Finished) -> str:
    """The code of the error that a terminal's command ended with."""
    assert ended.code == 1, ended
    document = json.loads(ended.out)
    assert set(document) == {"error", "detail"}
    told = [line for line in ended.err.splitlines() if line.startswith("trilogue: ")]
    assert told == [f"trilogue: {document['detail']}"]
    assert "Traceback" not in ended.err, ended.err
    return str(document["error"])


def _kinds(course: Course) -> Counter[Kind]:
    assert [entry.seq for entry in course.entries] == list(range(1, len(course.entries) + 1))
    assert verify(course.entries) is None
    return Counter(entry.kind for entry in course.entries)


def test_two_terminals_that_ask_at_once_never_both_get_it(
    installation: Installation, servers: Mapping[str, str], valkey_socket: Path
) -> None:
    async def recorded() -> list[str]:
        async with driving_at(installation.home, valkey_socket) as driver:
            return [await _held(driver), await _held(driver), await _stopped(driver)]

    async def courses(*pipeline_ids: str) -> list[Course]:
        async with driving_at(installation.home, valkey_socket) as driver:
            return [await driver.course(pipeline_id) for pipeline_id in pipeline_ids]

    def both(*words: str) -> tuple[Finished, Finished]:
        terminals = [installation.start(*words, "--json", env=servers) for _ in range(2)]
        first, second = sorted((terminal.ended() for terminal in terminals), key=lambda ended: ended.code)
        return first, second

    to_stop, to_continue, to_resume = asyncio.run(recorded())

    done, refused = both("stop", to_stop)
    assert (done.code, done.document["status"]) == (0, "STOPPED")
    assert _lost(refused) == "illegal_transition"

    done, refused = both("continue", to_continue)
    assert (done.code, done.document["status"]) == (0, "COMPLETED")
    assert _lost(refused) in {"conflict", "illegal_transition", "leased"}

    done, refused = both("resume", to_resume, "--reason", "again")
    assert (done.code, done.document["status"]) == (0, "REPORT")
    assert _lost(refused) in {"conflict", "not_resumable", "leased"}

    after_stop, after_continue, after_resume = map(_kinds, asyncio.run(courses(to_stop, to_continue, to_resume)))
    assert after_stop[Kind.STOPPED] == after_continue[Kind.ROUND_STARTED] == after_resume[Kind.RESUMED] == 1
    assert after_continue[Kind.CONSENSUS] == 1


def test_a_stop_in_one_terminal_ends_the_continuation_in_another(
    installation: Installation, servers: Mapping[str, str], valkey_socket: Path
) -> None:
    async def recorded() -> str:
        async with driving_at(installation.home, valkey_socket) as driver:
            return await _held(driver)

    pipeline_id = asyncio.run(recorded())
    slow = {**servers, "TRILOGUE_REHEARSAL_LATENCY": "6"}
    carrying = installation.start("continue", pipeline_id, columns=100, env=slow).shows("ORCHESTRATE")
    for words in (("continue", pipeline_id), ("resume", pipeline_id, "--reason", "no")):
        assert _lost(installation.run(*words, "--json", env=servers)) in {"leased", "illegal_transition"}
    assert installation.run("stop", pipeline_id, "--reason", "enough").code == 0
    ended = carrying.ended(within=10)
    assert ended.code == 1
    assert "enough" in ended.out
    assert _lost(installation.run("stop", pipeline_id, "--json")) == "illegal_transition"
    assert _lost(installation.run("continue", pipeline_id, "--json", env=servers)) == "illegal_transition"
