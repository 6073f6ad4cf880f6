"""GAMMA's part: spawned by a trigger, at most two turns for its mandate, and gone."""

import asyncio

from trilogue.agent import TIER_OF, AgentStatus, Role
from trilogue.board import Board
from trilogue.clock import SECOND
from trilogue.deliberation.room import Room
from trilogue.deliberation.rounds import round_end
from trilogue.deliberation.turns import ENDPOINT, take_turn
from trilogue.entry import Draft, Kind
from trilogue.mediation import Due, Trigger, due, stuck_at
from trilogue.pipeline import Phase

_MOST_TURNS = 2
_PRODUCT = {
    Trigger.STUCK: (Kind.PROPOSAL, Kind.MESSAGE),
    Trigger.CONFLICT: (Kind.RULING,),
    Trigger.COMPLEXITY: (Kind.SUBTASK,),
}


async def next_trigger(room: Room) -> Due | None:
    """Wait until a trigger strikes; None when the round has ended or its deadline came first."""
    assert room.board.round is not None
    while True:
        board, now = room.board, room.now()
        if now >= room.board.round.deadline or round_end(board, room.rules):
            return None
        if left_open := board.mediation():  # by an earlier attempt: mediations run one at a time
            return Due(trigger=Trigger(left_open.trigger), evidence=left_open.evidence)
        if struck := due(board, now, room.rules.thresholds):
            return struck
        await room.changed(after=board.seq, until=min(_clock(room), room.board.round.deadline))


def _clock(room: Room) -> int:
    at = stuck_at(room.board, room.rules.thresholds)
    # Once STUCK is past and used, or an agreement is pending, only a commit can change anything.
    return at if at > room.now() else room.now() + SECOND


async def mediate(room: Room, struck: Due) -> str:
    """Carry out one mediation and return its outcome: `ruled`, `decomposed`, `proposed`, or `failed: <why>`."""
    assert room.board.round is not None
    deadline = room.board.round.deadline
    number = len(room.board.mediations) + 1
    agent_id = f"gamma-{number}"
    if room.board.mediation() is None:
        await room.append(lambda _: _opening(struck, number, agent_id, room.model_for(Role.GAMMA)))
    else:
        number = room.board.mediations[-1].number
        agent_id = f"gamma-{number}"
    outcome = "failed: timed out"
    try:
        async with asyncio.timeout(max(0.0, (deadline - room.now()) / SECOND)):
            outcome = await _turns(room, agent_id, struck.trigger)
    except TimeoutError:
        pass
    await room.append(lambda board: _closing(board, agent_id, number, struck.trigger, outcome))
    return outcome


async def _turns(room: Room, agent_id: str, trigger: Trigger) -> str:
    taken = 0
    wait = room.rules.fault_wait
    while taken < _MOST_TURNS:
        agent = room.board.agents[agent_id]
        if agent.revoked:
            return "failed: revoked"
        before = room.board.seq
        outcome = await take_turn(room, agent, Phase.ORCHESTRATE, trigger)
        if outcome == ENDPOINT:
            await asyncio.sleep(wait)
            wait = min(wait * 2, room.rules.longest_fault_wait)
            continue
        taken += 1
        if done := _product(room.board, agent_id, trigger, before):
            return done
    return "failed: no usable answer"


def _product(board: Board, agent_id: str, trigger: Trigger, after: int) -> str | None:
    """What the mediator's turn brought that its mandate asks for."""
    if trigger is Trigger.CONFLICT:
        return "ruled" if (ruling := board.ruling()) and ruling.seq > after else None
    if trigger is Trigger.COMPLEXITY:
        return f"decomposed into {len(board.subtasks)} subtasks" if board.last_news.get(agent_id, 0) > after else None
    if any(p.author == agent_id for p in board.proposals.values()):
        return "proposed a way on"
    return "named the obstacle" if board.last_news.get(agent_id, 0) > after else None


def _opening(struck: Due, number: int, agent_id: str, model: str) -> list[Draft]:
    evidence = {"mediation": number, "trigger": struck.trigger.value, "evidence": dict(struck.evidence)}
    spawned = {
        "agent_id": agent_id,
        "role": Role.GAMMA.value,
        "tier": int(TIER_OF[Role.GAMMA]),
        "runtime": "python",
        "model": model,
        "reason": struck.trigger.value,
    }
    return [
        Draft(kind=Kind.MEDIATION_STARTED, body=evidence),
        Draft(kind=Kind.AGENT_SPAWNED, body=spawned),
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
