"""Appending: gapless, fenced, all or nothing, and nobody suffers from somebody else's mistake."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

import pytest

from trilogue import clock
from trilogue.agent import AgentStatus
from trilogue.entry import Draft, Kind
from trilogue.errors import Conflict, Fenced, IllegalTransition, Invalid, NotFound
from trilogue.ledger import Fence, Ledger, PipelineRow, verify
from trilogue.pipeline import Phase, Status

Claimed = Callable[[str], Awaitable[Fence]]


def _status(status: Status, **more: object) -> Draft:
    return Draft(kind=Kind.STATUS, body={"status": status, **more})


def _message(content: object) -> Draft:
    return Draft(kind=Kind.MESSAGE, actor="alpha-1", body={"content": content})


RUNNING = _status(Status.RUNNING)


async def test_a_stale_attempt_is_fenced(ledger: Ledger, claimed: Claimed) -> None:
    old = await claimed("p-1")
    await ledger.release(old, owner="worker-1")
    new = await ledger.claim("default", "p-1", owner="worker-2", lease_seconds=60, flow_run_id="run-2")
    with pytest.raises(Fenced, match=r"another attempt .* is at attempt 2 now, and attempt 1 may not write"):
        await ledger.append(old, [_message("late")], at=1)
    await ledger.append(new.fence, [_message("in time")], at=1)
    assert [entry.body.get("content") for entry in await ledger.entries("default", "p-1")] == [None, "in time"]
    with pytest.raises(NotFound, match="'p-none'"):
        await ledger.append(Fence(tenant="default", pipeline_id="p-none", attempt=0), [RUNNING], at=1)
    with pytest.raises(NotFound):
        await ledger.append(Fence(tenant="other", pipeline_id="p-1", attempt=2), [RUNNING], at=1)


async def test_a_stopped_pipeline_takes_nothing_until_it_is_resumed(ledger: Ledger, claimed: Claimed) -> None:
    fence = await claimed("p-1")
    await ledger.append(fence, [RUNNING, Draft(kind=Kind.PHASE_STARTED, body={"phase": "RUN"})], at=1)

    def stop(present: PipelineRow) -> Sequence[Draft]:
        return (
            [] if present.status is Status.STOPPED else [_status(Status.STOPPED, error={"code": "s", "message": "m"})]
        )

    await ledger.append_outside("default", "p-1", stop, at=5)
    assert await ledger.append_outside("default", "p-1", stop, at=6) == []
    for attempt in (1, 2):
        with pytest.raises(Fenced) as refused:
            await ledger.append(Fence(tenant="default", pipeline_id="p-1", attempt=attempt), [_message("x")], at=7)
        assert refused.value.code == "stopped"
    with pytest.raises(Conflict):
        await ledger.claim("default", "p-1", owner="w", lease_seconds=1, flow_run_id=None)
    stopped = await ledger.get_pipeline("default", "p-1")
    assert (stopped.stop_requested_at, stopped.ended_at, stopped.leased, stopped.attempt) == (5, 5, False, 2)
    assert stopped.error
    assert stopped.error.at == 5
    assert (await ledger.heads({("default", "p-1")}))["default", "p-1"] == (4, 2, True)

    await ledger.append_outside("default", "p-1", lambda _: [_status(Status.RUNNING, resumed=True)], at=8)
    claim = await ledger.claim("default", "p-1", owner="w", lease_seconds=9, flow_run_id=None, expected_attempt=3)
    await ledger.append(claim.fence, [_message("on it goes")], at=9)
    resumed = await ledger.get_pipeline("default", "p-1")
    assert (resumed.status, resumed.phase, resumed.error, resumed.ended_at) == (Status.RUNNING, Phase.RUN, None, None)
    assert verify(await ledger.entries("default", "p-1")) is None


async def test_an_illegal_status_is_refused_and_leaves_nothing(ledger: Ledger, claimed: Claimed) -> None:
    fence = await claimed("p-1")
    for drafts in (
        [_message("before"), _status(Status.COMPLETED)],
        [RUNNING, _status(Status.ORCHESTRATING)],
        [_status(Status.FAILED, resumed=True)],
    ):
        with pytest.raises(IllegalTransition):
            await ledger.append(fence, drafts, at=1)
    row = await ledger.get_pipeline("default", "p-1")
    assert (row.status, row.head_seq) == (Status.SPAWNED, 1)
    await ledger.append(fence, [RUNNING, _status(Status.REPORT), _status(Status.ORCHESTRATING)], at=2)
    await ledger.append(fence, [_status(Status.COMPLETED)], at=3)
    resume = _status(Status.RUNNING, resumed=True)
    with pytest.raises(IllegalTransition, match="resumed"):
        await ledger.append_outside("default", "p-1", lambda _: [resume], at=4)


async def test_a_failing_append_leaves_nothing_and_disturbs_nobody_in_its_group(
    ledger: Ledger, claimed: Claimed
) -> None:
    fences = [await claimed(f"p-{n}") for n in range(40)]
    stale = Fence(tenant="default", pipeline_id="p-0", attempt=0)
    unknown_agent = Draft(kind=Kind.AGENT_STATUS, body={"agent_id": "alpha-9", "status": AgentStatus.RUNNING})
    lacking = Draft(kind=Kind.TURN_ENDED, body={"turn": 1})

    def mistaken(_: PipelineRow) -> Sequence[Draft]:
        raise ZeroDivisionError

    good = [ledger.append(fence, [_message(n), RUNNING], at=1) for n, fence in enumerate(fences)]
    bad = [
        ledger.append(stale, [_message("stale")], at=1),
        ledger.append(fences[1], [_message("half"), unknown_agent], at=1),
        ledger.append(fences[2], [_message("half"), lacking], at=1),
        ledger.spawn("default", "p-3", [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "again"})], at=1),
        ledger.append_outside("default", "p-4", mistaken, at=1),
    ]
    outcomes = await asyncio.gather(*good[:20], *bad, *good[20:], return_exceptions=True)
    errors = [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]
    assert errors == [Fenced, NotFound, Invalid, Conflict, ZeroDivisionError]
    for n, fence in enumerate(fences):
        entries = await ledger.entries("default", fence.pipeline_id)
        assert [entry.body.get("content") for entry in entries] == [None, n, None]
        assert verify(entries) is None


async def test_a_cancelled_append_happens_wholly_or_not_at_all(ledger: Ledger, claimed: Claimed) -> None:
    fence = await claimed("p-1")
    tasks = [asyncio.create_task(ledger.append(fence, [_message(n), _message(n)], at=1)) for n in range(200)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks[1::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await ledger.append(fence, [_message("last")], at=1)
    entries = await ledger.entries("default", "p-1")
    assert verify(entries) is None
    contents = [entry.body["content"] for entry in entries[1:-1]]
    assert contents[::2] == contents[1::2]
    finished = {n for n, outcome in enumerate(outcomes) if not isinstance(outcome, asyncio.CancelledError)}
    assert finished <= set(contents)
    assert len(contents) < 400, "what was cancelled while it waited is not done"


async def test_concurrent_appends_of_two_ledgers_are_gapless_and_lose_nothing(
    ledger: Ledger, ledger_url: str, claimed: Claimed
) -> None:
    fences = [await claimed(f"p-{n}") for n in range(8)]
    other = await Ledger.open(ledger_url, migrate=False)
    try:
        await asyncio.gather(
            *(
                (ledger, other)[n % 2].append(fence, [_message(n), _message(n)], at=n)
                for n in range(30)
                for fence in (fences if n % 4 < 2 else reversed(fences))
            )
        )
    finally:
        await other.close()
    for fence in fences:
        entries = await ledger.entries("default", fence.pipeline_id)
        assert verify(entries) is None
        assert sorted(entry.body["content"] for entry in entries[1:]) == sorted([*range(30), *range(30)])
        assert (await ledger.get_pipeline("default", fence.pipeline_id)).head_hash == entries[-1].hash


_WRITE_FROM_ANOTHER_PROCESS = """
import asyncio, sys
from trilogue.entry import Draft, Kind
from trilogue.ledger import Fence, Ledger

async def main():
    ledger = await Ledger.open(sys.argv[1], migrate=False)
    fence = Fence(tenant="default", pipeline_id="p-1", attempt=1)
    for n in range(50):
        await ledger.append(fence, [Draft(kind=Kind.MESSAGE, body={"content": n})], at=n)
    await ledger.close()

asyncio.run(main())
"""


async def test_concurrent_appends_of_two_processes_are_gapless(
    ledger: Ledger, ledger_url: str, claimed: Claimed
) -> None:
    await claimed("p-1")
    command = (sys.executable, "-c", _WRITE_FROM_ANOTHER_PROCESS, ledger_url)
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    entries = await ledger.entries("default", "p-1")
    assert verify(entries) is None
    assert sorted(entry.body["content"] for entry in entries[1:]) == sorted([*range(50), *range(50)])


async def test_outside_decisions_are_serialised(ledger: Ledger, ledger_url: str, claimed: Claimed) -> None:
    fence = await claimed("p-1")
    await ledger.append(fence, [RUNNING], at=1)
    other = await Ledger.open(ledger_url, migrate=False)

    def stop_once(present: PipelineRow) -> Sequence[Draft]:
        if present.status is Status.STOPPED:
            raise Conflict("stopped already")
        return [_status(Status.STOPPED)]

    try:
        outcomes = await asyncio.gather(
            *((ledger, other)[n % 2].append_outside("default", "p-1", stop_once, at=n) for n in range(20)),
            return_exceptions=True,
        )
    finally:
        await other.close()
    assert sum(isinstance(outcome, list) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
    assert (await ledger.get_pipeline("default", "p-1")).attempt == 2


async def test_a_pipeline_and_an_external_id_exist_once(ledger: Ledger) -> None:
    def spawned(external_id: str | None) -> list[Draft]:
        return [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", "external_id": external_id})]

    same = [ledger.spawn("default", "p-1", spawned("x"), at=clock.now()) for _ in range(5)]
    outcomes = await asyncio.gather(*same, return_exceptions=True)
    assert [getattr(outcome, "code", "spawned") for outcome in outcomes] == ["spawned", *["exists"] * 4]
    with pytest.raises(Conflict, match="'p-1'") as taken:
        await ledger.spawn("default", "p-2", spawned("x"), at=1)
    assert taken.value.code == "external_id_taken"
    await ledger.spawn("other", "p-1", spawned("x"), at=1)
    await ledger.spawn("default", "p-3", spawned(None), at=1)
    await ledger.spawn("default", "p-4", spawned(None), at=1)
    assert await ledger.find_by_external_id("default", "x") == "p-1"
    with pytest.raises(Invalid, match="pipeline_spawned"):
        await ledger.spawn("default", "p-5", [RUNNING], at=1)
    with pytest.raises(Invalid, match="nothing to append"):
        await ledger.spawn("default", "p-5", [], at=1)


async def test_a_closed_ledger_finishes_what_waits_and_takes_no_more(ledger_url: str) -> None:
    ledger = await Ledger.open(ledger_url, migrate=False)
    spawned = [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})]
    waiting = [asyncio.create_task(ledger.spawn("default", f"p-{n}", spawned, at=1)) for n in range(10)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await ledger.close()
    await asyncio.gather(*waiting)
    with pytest.raises(Conflict, match="closed"):
        await ledger.spawn("default", "p-late", spawned, at=1)
