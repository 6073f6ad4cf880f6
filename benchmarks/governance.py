"""What governance costs a turn: the decision, what the agent is shown, both commits and the post, without the call."""

import asyncio
import random
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.servers import postgres, temporary_home, valkey
from trilogue import clock, phases
from trilogue.actions import Find
from trilogue.agent import NEGOTIATORS, Role
from trilogue.attempt import Attempt
from trilogue.board import Agent
from trilogue.deliberation.room import Answer
from trilogue.deliberation.turns import take_turn
from trilogue.desk import local
from trilogue.governance.budgets import Settlement
from trilogue.ledger import sqlite_url
from trilogue.ledger.opening import TENANT
from trilogue.ledger.schema import upgrade
from trilogue.pipeline import Phase
from trilogue.services import Services, open_services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec

_PIPELINES, _TURNS = 16, 12
_CALL = (0.15, 0.35)
"""Seconds of a model call: agents wait for their models most of the time, and not all for the same."""
_AIM = 8.0
_FOUND = Find(action="find", title="A finding", text="words " * 60, evidence="a source", confidence=0.7, complexity=0.4)


def measure() -> Iterator[Figure]:
    """Milliseconds a turn with 16 pipelines at once, on SQLite and on PostgreSQL."""
    with temporary_home() as home, valkey(home) as redis_url:
        yield asyncio.run(_measured(sqlite_url(home / "governance.db"), redis_url, "SQLite", _AIM))
        with postgres() as url:
            yield asyncio.run(_measured(url, redis_url, "PostgreSQL", None))


async def _measured(url: str, redis_url: str, database: str, aim: float | None) -> Figure:
    await asyncio.to_thread(upgrade, url)
    settings = load_settings(database_url=url, redis_url=redis_url, vault_addr=None, local_model_url=None)
    costs: list[float] = []
    async with open_services(settings) as services:
        await asyncio.gather(*(_carried(services, costs) for _ in range(_PIPELINES)))
    costs.sort()
    median, slow = (costs[len(costs) * percent // 100] * 1e3 for percent in (50, 99))
    return Figure(
        what=f"governance a turn, {_PIPELINES} pipelines at once",
        on=f"ledger {database}",
        value=median,
        unit="ms",
        aim=aim,
        note=f"median of {len(costs)} turns; p99 {slow:.0f} ms; a call takes {_CALL[0]:g} to {_CALL[1]:g} s",
    )


async def _carried(services: Services, costs: list[float]) -> None:
    pipeline_id = await local(services).spawn(PipelineSpec(objective="measure", mode="local"), may_rehearse=True)
    async with services.attempt(TENANT, pipeline_id, flow_run_id=None) as attempt:
        calls = _Calls()
        attempt.ask = calls.ask  # type: ignore[method-assign, assignment]  # only its time counts
        models = dict.fromkeys(Role, "rehearsal")
        await attempt.append(lambda board: phases.enlisted(board, models, clock.now()) + phases.running(board))
        await asyncio.gather(*(_turns(attempt, role, calls, costs) for role in NEGOTIATORS))


async def _turns(attempt: Attempt, role: Role, calls: "_Calls", costs: list[float]) -> None:
    agent = attempt.board.agent_in(role)
    assert agent is not None
    for _ in range(_TURNS):
        began = time.perf_counter()
        await take_turn(attempt, agent, Phase.RUN)
        costs.append(time.perf_counter() - began - calls.took[agent.agent_id])


class _Calls:
    """Models that take their time and say the same whatever they are asked; `took` are the seconds of the last call."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}

    async def ask(self, agent: Agent, *_: object) -> Answer:
        began = time.perf_counter()
        await asyncio.sleep(random.uniform(*_CALL))
        self.took[agent.agent_id] = time.perf_counter() - began
        spent = {"model": "m", "usage": None, "cost_nanousd": 0, "calls": 1}
        return Answer(actions=(_FOUND,), spent=spent, settled=Settlement())
