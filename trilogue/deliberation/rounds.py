"""Rounds: when one ends, and an agent's loop of turns in RUN and ORCHESTRATE.

Agents run concurrently, without rounds of turns: each begins a turn as soon as something
that is not its own was committed. Nothing is decided by order or chance.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from trilogue.agent import AgentStatus, Role
from trilogue.board import Agent, Board, Proposal, Ruling, Solution
from trilogue.clock import SECOND, Micros
from trilogue.deliberation.offers import alone
from trilogue.deliberation.room import Room, Rules
from trilogue.deliberation.turns import ENDPOINT, HELD, lost_turns, take_turn
from trilogue.entry import Draft, Kind
from trilogue.mediation import Trigger, all_waiting, due, exhausted, out_of_turns
from trilogue.pipeline import Phase, Status

_LOOK_AGAIN = SECOND // 4
"""Other pipelines give no notice when they settle what they had reserved of the tenant's budget."""


@dataclass(frozen=True, kw_only=True)
class RoundEnd:
    """How a round ended.

    Attributes:
        consensus: the body of the `consensus` entry, where there is one.
        code, message: why there is none.
    """

    status: Status
    consensus: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""

    @property
    def error(self) -> dict[str, str] | None:
        return {"code": self.code, "message": self.message} if self.code else None


def round_end(board: Board, rules: Rules) -> RoundEnd | None:
    """How the present round ended; None while it goes on. Timeouts are `timed_out`'s."""
    if board.round is None:
        return None
    if (ruling := board.ruling()) and ruling.trigger == Trigger.CONFLICT:
        return RoundEnd(status=Status.COMPLETED, consensus=_ruled(board, ruling))
    voters = board.voters()
    if not voters:
        return RoundEnd(status=Status.FAILED, code="no_agent_left", message="every agent was revoked")
    if refused := next((agent for agent in voters if agent.refused), None):
        return RoundEnd(
            status=Status.ORCHESTRATION_ERROR,
            code="model_refused",
            message=f"{refused.agent_id}: {refused.refused}",
        )
    decided = board.decided()
    if len(decided) == 1:
        return RoundEnd(status=Status.COMPLETED, consensus=_agreed(board, decided[0]))
    if alone(board) and (solution := _solution(board, voters[0])):
        return RoundEnd(status=Status.COMPLETED, consensus=_uncontested(solution))
    return _deadlock(board, rules)


def _deadlock(board: Board, rules: Rules) -> RoundEnd | None:
    limit = rules.thresholds.turn_limit
    if board.mediation() or board.open_turns:
        return None
    if exhausted(board, limit) and not _conflict_due(board, rules):
        return _out_of_budget(board) or RoundEnd(
            status=Status.ORCHESTRATION_FAILED,
            code="turns_used_up",
            message=f"no agreement within {limit} turns an agent",
        )
    used = {mediation.trigger for mediation in board.round_mediations()}
    if len(board.decided()) > 1 and Trigger.CONFLICT in used:
        return RoundEnd(
            status=Status.ORCHESTRATION_FAILED,
            code="rival_agreements",
            message="two proposals were agreed at once and the mediator made no ruling",
        )
    if not board.agreed() and all_waiting(board, limit) and Trigger.STUCK in used and not _due(board, rules):
        return _out_of_budget(board) or RoundEnd(
            status=Status.ORCHESTRATION_FAILED,
            code="no_agreement",
            message="every agent waits for another and the mediator has been heard",
        )
    return None


def _out_of_budget(board: Board) -> RoundEnd | None:
    """The end of a round in which some agent could not go on because its budget, or the pipeline's, was spent."""
    spent = next((agent.out_of_budget for agent in board.voters() if agent.out_of_budget), None)
    if spent is None:
        return None
    return RoundEnd(status=Status.ORCHESTRATION_FAILED, code="budget_spent", message=f"no agreement: {spent}")


def _due(board: Board, rules: Rules) -> bool:
    return due(board, board.at, rules.thresholds) is not None


def _conflict_due(board: Board, rules: Rules) -> bool:
    """A ruling needs no turn of the agents, so it may still come when they have none left."""
    struck = due(board, board.at, rules.thresholds)
    return struck is not None and struck.trigger is Trigger.CONFLICT


def timed_out(board: Board) -> RoundEnd:
    """How a round ends at its deadline: as the endpoint's error where nothing else kept it from going on."""
    voters = board.voters()
    timeout = board.round.timeout if board.round else 0
    fault = next((agent.endpoint_fault for agent in voters if agent.endpoint_fault), None)
    if fault and all(agent.endpoint_fault or board.waiting(agent) for agent in voters):
        return RoundEnd(
            status=Status.ORCHESTRATION_ERROR,
            code="endpoint_unavailable",
            message=f"the model endpoint was still unusable after {timeout:g} s: {fault}",
        )
    return RoundEnd(
        status=Status.TIMEOUT,
        code="orchestration_timeout",
        message=f"no agreement within {timeout:g} s; what was on the board is kept",
    )


def _consensus(
    *,
    proposal_id: str | None,
    revision: int | None,
    title: str,
    text: str,
    votes: list[dict[str, str]],
    decided_by: str,
    dissent: list[dict[str, str]],
    uncontested: bool = False,
) -> dict[str, Any]:
    return {
        "proposal_id": proposal_id,
        "revision": revision,
        "title": title,
        "text": text,
        "votes": votes,
        "decided_by": decided_by,
        "dissent": dissent,
        "uncontested": uncontested,
    }


def _votes(board: Board, proposal: Proposal) -> list[dict[str, str]]:
    """Each voter's present stand on a proposal: `approve` by authorship or vote, `reject`, or `none`."""
    stands = []
    for agent in board.voters():
        vote = board.latest_vote(agent.agent_id, proposal)
        if proposal.author == agent.agent_id:
            verdict, reason = "approve", "by authorship"
        else:
            verdict, reason = (vote.verdict, vote.reason) if vote else ("none", "")
        stands.append({"voter": agent.agent_id, "verdict": verdict, "reason": reason})
    return stands


def _agreed(board: Board, proposal: Proposal) -> dict[str, Any]:
    latest = proposal.latest
    return _consensus(
        proposal_id=proposal.id,
        revision=latest.number,
        title=latest.title,
        text=latest.text,
        votes=_votes(board, proposal),
        decided_by="vote",
        dissent=[],
    )


def _ruled(board: Board, ruling: Ruling) -> dict[str, Any]:
    """A ruling after CONFLICT binds; a voter that had not approved the ruled proposal is kept as dissent."""
    proposal = board.proposals[ruling.proposal]
    votes = _votes(board, proposal)
    dissent = [
        {"voter": vote["voter"], "reason": vote["reason"] or "had approved none of it when the ruling was made"}
        for vote in votes
        if vote["verdict"] != "approve"
    ]
    return _consensus(
        proposal_id=proposal.id,
        revision=ruling.revision,
        title=ruling.title,
        text=ruling.text,
        votes=votes,
        decided_by=f"ruling of {ruling.author}: {ruling.reason}",
        dissent=dissent,
    )


def _solution(board: Board, agent: Agent) -> Solution | None:
    """The lone agent's own answer to the objective in this round."""
    number = board.round.number if board.round else 0
    own = (s for s in board.solutions.values() if s.author == agent.agent_id and s.round == number and not s.subtask)
    return next(own, None)


def _uncontested(solution: Solution) -> dict[str, Any]:
    return _consensus(
        proposal_id=solution.id,
        revision=None,
        title=solution.title,
        text=solution.text,
        votes=[{"voter": solution.author, "verdict": "approve", "reason": "by authorship"}],
        decided_by=f"{solution.author} alone",
        dissent=[],
        uncontested=True,
    )


async def research(room: Room, role: Role) -> AgentStatus:
    """An agent's part in RUN: turns until one has brought findings, or the agent is out, or its mandate expires.

    Returns the agent's status; taken up again it goes on from what the board says.
    """
    status = AgentStatus.COMPLETED
    agent = room.board.agent_in(role)
    assert agent is not None
    try:
        async with asyncio.timeout(_remaining(room, room.board.mandates[agent.agent_id].expires_at)):
            await asyncio.sleep(0)  # a deadline that is past strikes here, before a turn begins
            await _turns(room, role, Phase.RUN, lambda agent, _: agent.turns > 0 and agent.seen >= 0)
    except TimeoutError:
        status = AgentStatus.TIMED_OUT
    agent = room.board.agent_in(role)
    assert agent is not None
    agent_id = agent.agent_id

    def settle(board: Board) -> list[Draft]:
        # Asked of the board as committed: a revocation may have been on its way when the deadline came.
        known = board.agents[agent_id]
        reason = known.refused or known.out_of_budget or known.endpoint_fault or ""
        return [] if known.status.settled else [_agent_status(agent_id, status, reason)]

    await room.append(settle)
    return room.board.agents[agent_id].status


async def negotiate(room: Room, role: Role) -> AgentStatus:
    """An agent's part in ORCHESTRATE: turns until the round ends or its deadline comes."""
    assert room.board.round is not None
    try:
        async with asyncio.timeout(_remaining(room, room.board.round.deadline)):
            await asyncio.sleep(0)  # as in `research`
            await _turns(room, role, Phase.ORCHESTRATE, lambda _, board: round_end(board, room.rules) is not None)
    except TimeoutError:
        return AgentStatus.TIMED_OUT
    agent = room.board.agent_in(role)
    return AgentStatus.REVOKED if agent is None or agent.revoked else AgentStatus.COMPLETED


def _remaining(room: Room, deadline: Micros) -> float:
    return max(0.0, (deadline - room.now()) / SECOND)


async def _turns(room: Room, role: Role, phase: Phase, done: Callable[[Agent, Board], bool]) -> None:
    wait = room.rules.fault_wait
    while True:
        board = room.board
        agent = board.agent_in(role)
        if agent is None or agent.revoked or agent.refused or done(agent, board):
            return
        if agent.out_of_budget and phase is Phase.RUN:
            return
        if board.turn_of(agent.agent_id):  # its task run failed in the middle of it, and runs again
            await room.append(partial(lost_turns, agent_id=agent.agent_id))
            continue
        if not _may_begin(board, agent, phase, room.rules):
            await room.changed(after=board.seq)
            continue
        outcome = await take_turn(room, agent, phase, unless=lambda board: not _begins(room, board, role, phase))
        if outcome == HELD:
            await room_in_the_budget(room)
        elif outcome == ENDPOINT:
            await asyncio.sleep(wait)
            wait = min(wait * 2, room.rules.longest_fault_wait)
        else:
            wait = room.rules.fault_wait


async def room_in_the_budget(room: Room) -> None:
    """Wait until the reservations that stand in the way may have gone: by a commit here, or by other pipelines."""
    await room.changed(after=room.board.seq, until=room.now() + _LOOK_AGAIN)


def _begins(room: Room, board: Board, role: Role, phase: Phase) -> bool:
    """Whether a turn may begin on `board` as committed: what others committed while it was queued counts too."""
    agent = board.agent_in(role)
    return agent is not None and _may_begin(board, agent, phase, room.rules) and round_end(board, room.rules) is None


def _may_begin(board: Board, agent: Agent, phase: Phase, rules: Rules) -> bool:
    """In RUN always. In ORCHESTRATE not while it waits, has no turn left, or an agreement is about to be decided."""
    if phase is Phase.RUN:
        return True
    return not (board.agreed() or board.waiting(agent) or out_of_turns(agent, rules.thresholds.turn_limit))


def _agent_status(agent_id: str, status: AgentStatus, reason: str) -> Draft:
    return Draft(kind=Kind.AGENT_STATUS, body={"agent_id": agent_id, "status": status.value, "reason": reason})
