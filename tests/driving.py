"""Pipelines carried without Prefect: what `flows` and `tasks` do, as plain coroutines, against a model server.

A test says how the server behaves, drives a pipeline to its end, and reads board and ledger.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.model_server import KEY
from trilogue import interventions, phases
from trilogue.agent import NEGOTIATORS, Role
from trilogue.attempt import Attempt
from trilogue.board import Board
from trilogue.deliberation import mediating, rounds
from trilogue.deliberation.turns import lost_turns
from trilogue.desk import local
from trilogue.entry import Entry, Kind
from trilogue.errors import Fenced, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse, situation_in
from trilogue.pipeline import Phase, Status
from trilogue.report import continuation
from trilogue.services import Services, open_services
from trilogue.settings import load_settings
from trilogue.spec import RoundSpec, checked_round, checked_spec
from trilogue.testing.openrouter import OpenRouterServer, serving
from trilogue.testing.plans import Seen

OBJECTIVE = "Design a caching strategy"
FAULT_WAIT = 0.05
"""Seconds before an agent tries an unusable endpoint again; a second and more in production."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Services against one server, and the ways to move a pipeline."""

    services: Services
    server: OpenRouterServer

    async def run(self, objective: str = OBJECTIVE, **options: Any) -> "Course":
        """Spawn a pipeline and carry it until it ends or is held."""
        return await self.carry(await self.spawn(objective, **options))

    async def spawn(self, objective: str = OBJECTIVE, **options: Any) -> str:
        spec = checked_spec(objective=objective, **options)
        return await local(self.services).spawn(spec, may_rehearse=False)

    async def carry(self, pipeline_id: str) -> "Course":
        """The flow `pipeline` for a recorded pipeline, from wherever it is."""
        async with self._taken_up(pipeline_id) as attempt:
            if attempt.board.status is Status.SPAWNED:
                await self._spawn(attempt)
            if attempt.board.status is Status.RUNNING:
                await _research(attempt)
            begun = attempt.board.status is Status.ORCHESTRATING  # by a person's `continue`
            if await self._report(attempt) or begun:
                if attempt.board.status is Status.REPORT:
                    await attempt.append(lambda board: interventions.first_round(board, attempt.now()))
                await _negotiation(attempt)
        return await self.course(pipeline_id)

    async def carry_on(self, pipeline_id: str, **asked: Any) -> "Course":
        """The flow `continuation`."""
        round_: RoundSpec = checked_round(**asked)
        await local(self.services).begin_round(pipeline_id, round_)
        async with self._taken_up(pipeline_id) as attempt:
            await _negotiation(attempt)
        return await self.course(pipeline_id)

    async def course(self, pipeline_id: str) -> "Course":
        entries = await self.services.ledger.entries(TENANT, pipeline_id)
        return Course(pipeline_id=pipeline_id, entries=entries, board=await local(self.services).board(pipeline_id))

    @asynccontextmanager
    async def _taken_up(self, pipeline_id: str) -> AsyncIterator[Attempt]:
        async with self.services.attempt(TENANT, pipeline_id, flow_run_id=None) as attempt:
            attempt.rules = replace(attempt.rules, fault_wait=FAULT_WAIT, longest_fault_wait=FAULT_WAIT)
            try:
                yield attempt
            except Fenced:
                raise
            except TrilogueError as error:
                reason = error
                await attempt.append(lambda board: lost_turns(board) + phases.failed(board, reason))

    async def _spawn(self, attempt: Attempt) -> None:
        models = await self.services.models_for(attempt)
        await attempt.append(lambda board: phases.enlisted(board, models, attempt.now()) + phases.running(board))

    async def _report(self, attempt: Attempt) -> bool:
        auto = self.services.settings.auto_orchestrate
        if attempt.board.status is Status.RUNNING:
            phases.check_run(attempt.board)
            await attempt.append(lambda board: phases.reported(board, auto_orchestrate=auto))
        if attempt.board.status is Status.REPORT:
            return continuation(attempt.board, auto_orchestrate=auto).auto
        return attempt.board.status is Status.ORCHESTRATING


async def _research(attempt: Attempt) -> None:
    await _side_by_side(*(rounds.research(attempt, role) for role in NEGOTIATORS))


async def _negotiation(attempt: Attempt) -> None:
    await _side_by_side(*(rounds.negotiate(attempt, role) for role in NEGOTIATORS), _mediation(attempt))
    end = rounds.round_end(attempt.board, attempt.rules) or rounds.timed_out(attempt.board)
    await attempt.append(lambda board: phases.concluded(board, end))


async def _mediation(attempt: Attempt) -> None:
    while struck := await mediating.next_trigger(attempt):
        await mediating.mediate(attempt, struck)


async def _side_by_side(*parts: Any) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a pipeline went, as the ledger has it."""

    pipeline_id: str
    entries: Sequence[Entry]
    board: Board

    def bodies(self, kind: Kind) -> list[Mapping[str, Any]]:
        """The bodies of all entries of a kind, oldest first."""
        return [entry.body for entry in self.entries if entry.kind is kind]

    def outcomes(self, agent_id: str | None = None) -> list[str]:
        """How the turns ended, of one agent or of all."""
        return [
            body["outcome"] for body in self.bodies(Kind.TURN_ENDED) if agent_id is None or body["agent_id"] == agent_id
        ]

    @property
    def calls(self) -> int:
        """The HTTP calls that the ledger knows of."""
        return sum(int(body["calls"]) for body in self.bodies(Kind.TURN_ENDED))

    @property
    def details(self) -> Mapping[str, Any]:
        """What the last checkpoint says of a failure."""
        details: Mapping[str, Any] = self.bodies(Kind.CHECKPOINT)[-1]["details"]
        return details


MakeDriver = Callable[..., Awaitable[Driver]]


@pytest.fixture
async def rehearsed() -> AsyncIterator[OpenRouterServer]:
    """A server with a key, behind which the rehearsal answers whatever model is asked for."""
    async with serving(rehearse, key=KEY) as server:
        yield server


@pytest.fixture
async def driver_of(tmp_path: Path, migrated_sqlite_url: str, redis_url: str) -> AsyncIterator[MakeDriver]:
    """Makes drivers: `await driver_of(server, …)` with settings by field name; waits are short unless they say so."""
    async with AsyncExitStack() as stack:

        async def make(server: OpenRouterServer, **settings: Any) -> Driver:
            plain: dict[str, Any] = {
                "home": tmp_path,
                "database_url": SecretStr(settings.pop("ledger_url", migrated_sqlite_url)),
                "redis_url": SecretStr(settings.pop("live_url", redis_url)),
                "vault_addr": None,
                "local_model_url": None,
                "openrouter_base_url": settings.pop("model_url", server.url),
                "openrouter_api_key": SecretStr(settings.pop("key", KEY)),
                "openrouter_model": "test/one",
                "orchestration_timeout": 20.0,
                "agent_timeout": 20.0,
                "call_timeout": 10.0,
                "retry_wait": 0.01,
                "breaker_seconds": 0.1,
                "rehearsal_latency": 0.0,
            }
            services = await stack.enter_async_context(open_services(load_settings(**(plain | settings))))
            return Driver(services=services, server=server)

        yield make


def shown(seen: Seen) -> Mapping[str, Any]:
    """The situation that a chat request shows."""
    situation = situation_in(seen.body)
    assert situation is not None
    return situation


def asked(seen: Seen, role: Role, phase: Phase) -> bool:
    """Whether a request is `role`'s, in `phase`."""
    if seen.path != "/chat/completions":
        return False
    situation = shown(seen)
    return (situation["you"], situation["phase"]) == (role.value, phase.value)


@asynccontextmanager
async def driving_at(home: Path, valkey: Path) -> AsyncIterator[Driver]:
    """A driver on the embedded ledger of `home`, where only the built-in rehearsal answers, at once."""
    plain = {"home": home, "redis_url": f"unix://{valkey}", "rehearsal_latency": 0.0}
    async with open_services(load_settings(**plain)) as services:
        yield Driver(services=services, server=OpenRouterServer(brain=lambda _: ""))
