"""Committed turns per second: 64 pipelines at once, each turn in its two commits, on SQLite and PostgreSQL."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Figure
from benchmarks.servers import postgres, temporary_home
from trilogue import clock
from trilogue.agent import Mandate, Role, Tier
from trilogue.entry import Draft, Kind
from trilogue.ledger import Fence, Ledger, sqlite_url, verify

_PIPELINES = 64
_TURNS = 25
_AGENT = "alpha-1"
_FINDING = {
    "title": "A title of a few words",
    "text": "A finding of usual length, in plain words. " * 10,
    "evidence": "where it was read",
    "confidence": 0.75,
    "complexity": 0.2,
}


def measure() -> Iterator[Figure]:
    """Both databases, each with a ledger of its own and its usual durability."""
    with temporary_home() as home:
        yield asyncio.run(_measured(sqlite_url(home / "ledger.db"), "SQLite", aim=500))
    with postgres() as url:
        yield asyncio.run(_measured(url, "PostgreSQL", aim=300))


async def _measured(url: str, database: str, *, aim: float) -> Figure:
    ledger = await Ledger.open(url, migrate=True)
    try:
        fences = await asyncio.gather(*(_claimed(ledger, f"p-{number:012}") for number in range(_PIPELINES)))
        commits: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(_turns(ledger, fence, commits) for fence in fences))
        seconds = time.perf_counter() - began
        for fence in fences[:4]:
            assert verify(await ledger.entries(fence.tenant, fence.pipeline_id)) is None
    finally:
        await ledger.close()
    commits.sort()
    median, slow = (commits[len(commits) * percent // 100] * 1e3 for percent in (50, 99))
    return Figure(
        what=f"committed turns, {_PIPELINES} pipelines at once",
        on=f"ledger {database}",
        value=_PIPELINES * _TURNS / seconds,
        unit="/s",
        aim=aim,
        at_least=True,
        note=f"two commits a turn; a commit: median {median:.0f} ms, p99 {slow:.0f} ms",
    )


async def _claimed(ledger: Ledger, pipeline_id: str) -> Fence:
    agent = {"agent_id": _AGENT, "role": "ALPHA", "tier": 1, "runtime": "python", "model": "m"}
    mandate = Mandate(
        agent_id=_AGENT, role=Role.ALPHA, tier=Tier.NEGOTIATE, actions={}, tokens=1_000_000_000, expires_at=0
    )
    first = [
        Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "measure"}),
        Draft(kind=Kind.AGENT_SPAWNED, body=agent),
        Draft(kind=Kind.MANDATE, body=mandate.as_json()),
    ]
    await ledger.spawn("default", pipeline_id, first, at=clock.now())
    claim = await ledger.claim("default", pipeline_id, owner="worker", lease_seconds=600, flow_run_id=None)
    return claim.fence


_RESERVED = {"tokens": 4_596, "cost_nanousd": 62_940_000}


async def _turns(ledger: Ledger, fence: Fence, commits: list[float]) -> None:
    for turn in range(1, _TURNS + 1):
        for drafts in (_begun(turn), _ended(turn)):
            began = time.perf_counter()
            await ledger.append(fence, drafts, at=clock.now())
            commits.append(time.perf_counter() - began)


def _body(turn: int, **more: Any) -> dict[str, Any]:
    return {"turn": turn, "agent_id": _AGENT, "phase": "RUN", "round": 0, "model": "m", **more}


def _begun(turn: int) -> list[Draft]:
    call = {"fallbacks": [], "max_tokens": 4_096, "reserved": _RESERVED}
    return [Draft(kind=Kind.TURN_BEGUN, actor=_AGENT, body=_body(turn, seen=turn, **call))]


def _ended(turn: int) -> list[Draft]:
    """Three findings, the most that a turn brings, and its end."""
    findings = [
        Draft(kind=Kind.FINDING, actor=_AGENT, body={**_FINDING, "id": f"f{3 * turn + number}", "turn": turn})
        for number in range(3)
    ]
    usage = {"input_tokens": 500, "output_tokens": 200, "cached_tokens": 0, "estimated": False}
    end = _body(
        turn,
        outcome="acted",
        reserved=_RESERVED,
        settled={"tokens": 700, "cost_nanousd": 4_500_000, "estimated": False},
        usage=usage,
        cost_nanousd=4_500_000,
        calls=1,
        repaired=False,
        actions=["find"] * 3,
        notes=[],
        error=None,
    )
    return [*findings, Draft(kind=Kind.TURN_ENDED, actor=_AGENT, body=end)]
