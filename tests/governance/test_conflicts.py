"""Stop, continue and resume by two at the same moment: one wins, the other has a conflict, nothing is half done."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.command import Command, refusal
from tests.driving import Course, Driver, MakeDriver, driving_at
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.errors import Conflict, Invalid, NotFound
from trilogue.ledger import verify
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.spec import RoundSpec, checked_spec
from trilogue.testing.openrouter import serving

ROUNDS = 8
"""Races of each kind: who comes first is chance."""

Ask = Callable[[Driver, str], Awaitable[None]]


async def stopping(driver: Driver, pipeline_id: str) -> None:
    await local(driver.services).stop(pipeline_id, "a race")


async def continuing(driver: Driver, pipeline_id: str) -> None:
    await local(driver.services).begin_round(pipeline_id, RoundSpec(reason="a race", guidance="Prefer the boring one"))


async def resuming(driver: Driver, pipeline_id: str) -> None:
    await local(driver.services).resume(pipeline_id, RoundSpec(reason="a race"))


@pytest.fixture
async def two(driver_of: MakeDriver, ledger_url: str) -> AsyncIterator[tuple[Driver, Driver]]:
    """Two processes' services on one ledger; models are only rehearsed."""
    given = {"key": "unused", "ledger_url": ledger_url, "rehearsal_latency": 0.0}
    async with serving(rehearse) as server:
        yield await driver_of(server, **given), await driver_of(server, **given)


async def _held(driver: Driver) -> str:
    """A rehearsed pipeline that is held at its report."""
    return (await driver.run(mode="local", auto_continue=False)).pipeline_id


async def _race(two: Sequence[Driver], pipeline_id: str, *asks: Ask) -> list[BaseException | None]:
    return await asyncio.gather(
        *(ask(driver, pipeline_id) for driver, ask in zip(two, asks, strict=True)), return_exceptions=True
    )


def _of_one_piece(course: Course) -> Counter[Kind]:
    """How many entries there are of each kind; they are without gaps and chained."""
    assert [entry.seq for entry in course.entries] == list(range(1, len(course.entries) + 1))
    assert verify(course.entries) is None
    return Counter(entry.kind for entry in course.entries)


@pytest.mark.parametrize(
    ("ask", "stopped_before", "kind", "status"),
    [
        (stopping, False, Kind.STOPPED, Status.STOPPED),
        (continuing, False, Kind.ROUND_STARTED, Status.ORCHESTRATING),
        (resuming, True, Kind.RESUMED, Status.REPORT),
    ],
)
async def test_of_two_who_ask_the_same_at_once_one_wins(
    two: tuple[Driver, Driver], ask: Ask, stopped_before: bool, kind: Kind, status: Status
) -> None:
    for _ in range(ROUNDS):
        pipeline_id = await _held(two[0])
        if stopped_before:
            await stopping(two[0], pipeline_id)
        (lost,) = [outcome for outcome in await _race(two, pipeline_id, ask, ask) if outcome is not None]
        assert isinstance(lost, Conflict), repr(lost)
        course = await two[1].course(pipeline_id)
        assert _of_one_piece(course)[kind] == 1
        assert course.board.status is status


async def test_a_stop_beside_a_continuation_always_holds(two: tuple[Driver, Driver]) -> None:
    for turn in range(ROUNDS):
        pipeline_id = await _held(two[0])
        stop, continuation = await _race(two if turn % 2 else two[::-1], pipeline_id, stopping, continuing)
        assert stop is None
        course = await two[0].course(pipeline_id)
        kinds = _of_one_piece(course)
        assert course.board.status is Status.STOPPED
        assert (kinds[Kind.STOPPED], kinds[Kind.ROUND_STARTED]) == (1, 0 if continuation else 1)
        assert continuation is None or isinstance(continuation, Conflict), repr(continuation)


async def test_a_stop_beside_a_resume_stops_once_more_or_is_a_conflict(two: tuple[Driver, Driver]) -> None:
    for turn in range(ROUNDS):
        pipeline_id = await _held(two[0])
        await stopping(two[0], pipeline_id)
        stop, resume = await _race(two if turn % 2 else two[::-1], pipeline_id, stopping, resuming)
        assert resume is None
        course = await two[0].course(pipeline_id)
        kinds = _of_one_piece(course)
        assert kinds[Kind.RESUMED] == 1
        if stop is None:
            assert (kinds[Kind.STOPPED], course.board.status) == (2, Status.STOPPED)
        else:
            assert isinstance(stop, Conflict), repr(stop)
            assert (kinds[Kind.STOPPED], course.board.status) == (1, Status.REPORT)


async def test_of_two_workers_that_take_a_pipeline_up_at_once_one_gets_it(two: tuple[Driver, Driver]) -> None:
    for _ in range(ROUNDS):
        pipeline_id = await two[0].spawn(mode="local")
        outcomes = await asyncio.gather(*(driver.carry(pipeline_id) for driver in two), return_exceptions=True)
        (lost,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert isinstance(lost, Conflict), repr(lost)
        assert lost.code in {"leased", "ended"}
        course = await two[1].course(pipeline_id)
        assert course.board.status is Status.COMPLETED
        assert _of_one_piece(course)[Kind.ROUND_STARTED] == 1
        assert {entry.attempt for entry in course.entries} == {0, 1}


@pytest.mark.parametrize("ask", [stopping, continuing, resuming])
async def test_an_unknown_pipeline_is_not_found(two: tuple[Driver, Driver], ask: Ask) -> None:
    with pytest.raises(NotFound) as refused:
        await ask(two[0], "p-nothere")
    assert refused.value.code == "no_pipeline"


async def test_what_does_not_go_with_the_status_is_refused_and_changes_nothing(driver_of: MakeDriver) -> None:
    async with serving(rehearse, latency=0.3) as server:
        driver = await driver_of(server, key="unused", rehearsal_latency=0.0)
        fresh = await driver.spawn()
        held = await _held(driver)
        done = (await driver.run(mode="local")).pipeline_id
        timed_out = (await driver.run(mode="local", model="rehearsal/stuck", timeout=0.3)).pipeline_id
        stopped = await driver.spawn()
        await stopping(driver, stopped)
        working = await driver.spawn()
        carrying = asyncio.create_task(driver.carry(working))
        refused = {
            fresh: {continuing, resuming},
            held: {resuming},
            done: {stopping, continuing, resuming},
            timed_out: {stopping, resuming},
            stopped: {stopping, continuing},
            working: {continuing, resuming},
        }
        for pipeline_id, asks in refused.items():
            before = (await driver.course(pipeline_id)).entries
            for ask in asks:
                with pytest.raises(Conflict) as told:
                    await ask(driver, pipeline_id)
                assert "\n" not in told.value.message
                assert not isinstance(told.value, Invalid)
            after = (await driver.course(pipeline_id)).entries
            assert after[: len(before)] == before
            assert not {entry.kind for entry in after[len(before) :]} & {Kind.STOPPED, Kind.ROUND_STARTED, Kind.RESUMED}
        assert (await carrying).board.status is Status.COMPLETED


def test_limits_are_not_raised_where_they_would_be_forgotten(
    command: Command, tmp_path: Path, valkey_socket: Path
) -> None:
    async def left() -> str:
        async with driving_at(tmp_path / "home", valkey_socket) as driver:
            return await local(driver.services).spawn(
                checked_spec(objective="A queue", mode="local"), may_rehearse=True
            )

    pipeline_id = asyncio.run(left())
    for limit in ("--max-tokens", "--max-cost"):
        assert "`trilogue stop` it first" in refusal(command("resume", pipeline_id, limit, "5"), code=1)
