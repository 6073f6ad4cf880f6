"""Agents as task runs: `run-alpha`, `negotiate-beta`, `mediate-gamma`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from tasks.options import GRACE, OPTIONS
from tasks.session import session, side_by_side
from trilogue.agent import NEGOTIATORS, AgentStatus, Role
from trilogue.deliberation import mediating, rounds
from trilogue.errors import Fenced
from trilogue.mediation import Due, Trigger
from trilogue.pipeline import Status

T = TypeVar("T")


async def research() -> None:
    """RUN: ALPHA and BETA at the same time, each in a task run of its own."""
    attempt = session().attempt
    if attempt.board.status is Status.RUNNING:
        await side_by_side(*(_carry(_run_agent, attempt.rules.agent_timeout, role.lower()) for role in NEGOTIATORS))


async def negotiation() -> None:
    """ORCHESTRATE: ALPHA and BETA negotiate while triggers are watched."""
    timeout = _round_timeout()
    await side_by_side(*(_carry(_negotiate, timeout, role.lower()) for role in NEGOTIATORS), _mediation())


async def _mediation() -> None:
    """Call GAMMA for each trigger that strikes, one at a time, each in a task run of its own."""
    while struck := await mediating.next_trigger(session().attempt):
        await _carry(_mediate, _round_timeout(), struck.trigger.value, dict(struck.evidence))


def _round_timeout() -> float:
    round_ = session().attempt.board.round
    assert round_ is not None
    return round_.timeout


async def _carry(agent: Task[..., Any], timeout: float, *parameters: Any) -> None:
    """Run an agent's task. An agent that failed is no error here: what it did not bring is on the board."""
    limited = agent.with_options(timeout_seconds=timeout + GRACE)
    state = await limited(*parameters, return_state=True)
    if state.is_cancelled():
        raise session().stopped or asyncio.CancelledError  # whoever carries on after an agent must not do so now
    if state.is_failed() and state.name not in _OWN_ENDS:
        await state.aresult()


_CUT_OFF = "cut off by a stop or an interruption"
_OWN_ENDS = {"TimedOut", "Revoked", "NoOutcome"}


def _ended_as(status: AgentStatus) -> State[Any]:
    match status:
        case AgentStatus.TIMED_OUT:
            return Failed(name="TimedOut", message="the deadline came first; what it brought is kept")
        case AgentStatus.REVOKED:
            return Failed(name="Revoked", message="taken out by its error budget; its partner has the handoff")
        case _:
            return Completed()


@task(name="run-agent", task_run_name="run-{role}", **OPTIONS)
async def _run_agent(role: str) -> State[Any]:
    attempt = session().attempt
    return await _unless_cut_off(rounds.research(attempt, Role(role.upper())), _ended_as)


@task(name="negotiate", task_run_name="negotiate-{role}", **OPTIONS)
async def _negotiate(role: str) -> State[Any]:
    return await _unless_cut_off(rounds.negotiate(session().attempt, Role(role.upper())), _ended_as)


@task(name="mediate", task_run_name="mediate-gamma", **OPTIONS)
async def _mediate(trigger: str, evidence: dict[str, Any]) -> State[Any]:
    struck = Due(trigger=Trigger(trigger), evidence=evidence)
    return await _unless_cut_off(mediating.mediate(session().attempt, struck), _mediated_as)


def _mediated_as(outcome: str) -> State[Any]:
    return Failed(name="NoOutcome", message=outcome) if outcome.startswith("failed") else Completed(message=outcome)


async def _unless_cut_off(work: Awaitable[T], ended_as: Callable[[T], State[Any]]) -> State[Any]:
    """What a task run ends as; one that a stop or Ctrl-C cut off as Cancelled, which Prefect would call Crashed."""
    try:
        return ended_as(await work)
    except asyncio.CancelledError:
        return Cancelled(message=_CUT_OFF)
    except Fenced as fenced:  # the ledger may tell of a stop before whoever watches for it does
        if fenced.code != "stopped":
            raise
        session().stopped = fenced
        return Cancelled(message=_CUT_OFF)
