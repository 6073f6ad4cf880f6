"""GAMMA's part: spawned by a trigger, at most two turns for its mandate, and gone."""

import asyncio
from functools import partial

from trilogue.agent import AgentStatus, Role
from trilogue.board import Board
from trilogue.clock import SECOND, Micros
from trilogue.deliberation.room import Room
from trilogue.deliberation.rounds import room_in_the_budget, round_end
from trilogue.deliberation.turns import ENDPOINT, HELD, lost_turns, take_turn
from trilogue.entry import Draft, Kind
from trilogue.governance.handoff import spawned
from trilogue.governance.mandates import issued
from trilogue.mediation import Due, Trigger, due, quiet_since, stuck_at
from trilogue.pipeline import Phase

_MOST_TURNS = 2
NOT_NEEDED = "not needed any more"


async def next_trigger(room: Room) -> Due | None:
    """Wait until a trigger strikes; None when the round has ended or its deadline came first."""
    assert room.board.round is not None
    while True:
        board, now = room.board, room.now()
        if left_open := board.mediation():  # by an earlier attempt: to be closed, even where the round has ended
            return Due(trigger=Trigger(left_open.trigger), evidence=left_open.evidence)
        if now >= room.board.round.deadline or round_end(board, room.rules):
            return None
        if struck := due(board, _working_time(room, board), room.rules.thresholds):
            return struck
        await room.changed(after=board.seq, until=min(_clock(room), room.board.round.deadline))


def _working_time(room: Room, board: Board) -> Micros:
    """The present for the STUCK clock, which stands still while an open breaker holds calls up."""
    return room.now() - room.stood_still(quiet_since(board))


def _clock(room: Room) -> Micros:
    left = stuck_at(room.board, room.rules.thresholds) - _working_time(room, room.board)
    # Once STUCK is past and used, or an agreement is pending, only a commit can change anything.
    return room.now() + (left if left > 0 else SECOND)


async def mediate(room: Room, struck: Due) -> str:
    """Carry out one mediation, or what is left of one, and return its outcome in words; `failed: …` without any.

    A trigger that no longer holds when it comes to it calls nobody.
    """
    assert room.board.round is not None
    deadline = room.board.round.deadline
    await room.append(lambda board: _opening(room, board, struck.trigger))
    mediation = room.board.mediation()
    if mediation is None:
        return NOT_NEEDED
    agent_id, trigger = _gamma(mediation.number), Trigger(mediation.trigger)
    try:
        async with asyncio.timeout(max(0.0, (deadline - room.now()) / SECOND)):
            await asyncio.sleep(0)  # a deadline that is past strikes here, before a turn begins
            outcome = await _turns(room, agent_id, trigger)
    except TimeoutError:
        outcome = _product(room.board, agent_id, trigger) or "failed: timed out"
    await room.append(lambda board: _closing(board, agent_id, mediation.number, trigger, outcome))
    return outcome


def _gamma(mediation: int) -> str:
    return f"gamma-{mediation}"


async def _turns(room: Room, agent_id: str, trigger: Trigger) -> str:
    wait = room.rules.fault_wait
    while not (product := _product(room.board, agent_id, trigger)):
        board, agent = room.board, room.board.agents[agent_id]
        if board.turn_of(agent_id):  # its task run failed in the middle of it, and runs again
            await room.append(partial(lost_turns, agent_id=agent_id))
            continue
        if round_end(board, room.rules):
            return NOT_NEEDED
        if agent.revoked or agent.refused or agent.out_of_budget:
            return f"failed: {agent.refused or agent.out_of_budget or 'revoked'}"
        if agent.turns >= _MOST_TURNS:
            return "failed: no usable answer"
        if _pending(board):
            await room.changed(after=board.seq)
            continue
        outcome = await take_turn(room, agent, Phase.ORCHESTRATE, trigger, unless=lambda b: _idle(room, b))
        if outcome == HELD:
            await room_in_the_budget(room)
        elif outcome == ENDPOINT:
            await asyncio.sleep(wait)
            wait = min(wait * 2, room.rules.longest_fault_wait)
    return product


def _pending(board: Board) -> bool:
    """Whether an agreement waits for turns begun before it; the mediator must not overtake it."""
    return bool(board.agreed()) and not board.decided()


def _idle(room: Room, board: Board) -> bool:
    return _pending(board) or round_end(board, room.rules) is not None


def _product(board: Board, agent_id: str, trigger: Trigger) -> str | None:
    """What the mediator brought that its mandate asks for, in this attempt or an earlier one."""
    if trigger is Trigger.CONFLICT:
        return "ruled" if board.ruling() else None
    if trigger is Trigger.COMPLEXITY:
        parts = sum(subtask.author == agent_id for subtask in board.subtasks.values())
        return f"decomposed into {parts} subtasks" if parts else None
    if any(p.author == agent_id for p in board.proposals.values()):
        return "proposed a way on"
    return "named the obstacle" if agent_id in board.last_news else None


def _opening(room: Room, board: Board, trigger: Trigger) -> list[Draft]:
    """The mediation's beginning if its trigger still holds on the board as committed, and none is under way."""
    struck = due(board, _working_time(room, board), room.rules.thresholds)
    if struck is None or struck.trigger is not trigger or round_end(board, room.rules):
        return []
    assert board.round is not None
    number = len(board.mediations) + 1
    evidence = {"mediation": number, "trigger": trigger.value, "evidence": dict(struck.evidence)}
    return [
        Draft(kind=Kind.MEDIATION_STARTED, body=evidence),
        spawned(_gamma(number), Role.GAMMA, room.model_for(Role.GAMMA), reason=trigger.value),
        issued(board, _gamma(number), Role.GAMMA, until=board.round.deadline, trigger=trigger),
    ]


def _closing(board: Board, agent_id: str, number: int, trigger: Trigger, outcome: str) -> list[Draft]:
    drafts = [
        Draft(
            kind=Kind.MEDIATION_ENDED,
            body={"mediation": number, "trigger": trigger.value, "outcome": outcome},
        )
    ]
    if not board.agents[agent_id].revoked:
        gone = {"agent_id": agent_id, "status": AgentStatus.COMPLETED.value, "reason": outcome}
        drafts.append(Draft(kind=Kind.AGENT_STATUS, body=gone))
    return drafts
