"""One turn: two commits around one call of an agent's model.

`turn_begun` before the call, then the actions and `turn_ended` in one commit after it. A call
is finished when `turn_ended` is committed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from trilogue.actions import Action, Critique, Decompose, Find, Message, Offer, Pass, Propose, Revise, Rule, Solve, Vote
from trilogue.agent import AgentStatus
from trilogue.board import Agent, Board, OpenTurn
from trilogue.deliberation.offers import offer
from trilogue.deliberation.room import Answer, Room
from trilogue.entry import Draft, Kind
from trilogue.errors import EndpointFault, Malformed, TrilogueError, Unavailable, Violation
from trilogue.governance.errorbudget import breach, fingerprint
from trilogue.mediation import Trigger
from trilogue.pipeline import Phase

NOT_BEGUN = "not_begun"
ACTED, MALFORMED, VIOLATED, ENDPOINT, REFUSED, CANCELLED, LOST = (
    "acted",
    "malformed",
    "violation",
    "endpoint",
    "refused",
    "cancelled",
    "lost",
)
"""Outcomes of a turn. `refused`: the endpoint turned the call down for good (key, credit, unknown model)."""

_UNTOLD = Answer(spent={"calls": 1})
"""Of a call that broke off with us nobody told what it took: unknown, not nothing."""


async def take_turn(
    room: Room,
    agent: Agent,
    phase: Phase,
    trigger: Trigger | None = None,
    *,
    unless: Callable[[Board], bool] = lambda _: False,
) -> str:
    """Take one turn and return its outcome. A cancelled turn is recorded as such before the cancellation goes on.

    Args:
        unless: asked of the very board that `turn_begun` would follow; where it holds no turn begins (`NOT_BEGUN`).
    """
    terms, prompt = Offer(mandate=frozenset(), actions=frozenset()), ""

    def begin(board: Board) -> list[Draft]:
        # What the agent sees is fixed here, on the very board that `turn_begun` names as seen.
        nonlocal terms, prompt
        terms = offer(board, agent, phase, trigger)
        prompt = room.compose(agent, phase, terms, trigger)
        return [] if unless(board) else [_begun(board, agent, phase)]

    spent: Answer | None = None
    try:
        await room.append(begin)
        turn = room.board.turn_of(agent.agent_id)
        if turn is None:
            return NOT_BEGUN
        spent = _UNTOLD
        answer = await room.ask(agent, turn, prompt, terms)
    except asyncio.CancelledError:
        # Also one that came while `turn_begun` was being committed: left open, it would hold up every agreement.
        # Out of the ledger's reach or fenced, the next attempt records the turn as lost.
        with contextlib.suppress(TrilogueError):
            await asyncio.shield(room.append(lambda board: _cut_off(board, agent, spent, room.fault())))
        raise
    outcome = _outcome(answer.error)
    await room.append(lambda board: _closing(room, board, turn, answer, outcome, trigger))
    return outcome


def _cut_off(board: Board, agent: Agent, spent: Answer | None, fault: str | None) -> list[Draft]:
    """A turn that was cut off ends as cancelled; as the endpoint's fault where it was not to be reached till then."""
    turn = board.turn_of(agent.agent_id)
    if turn is None:
        return []
    if spent and fault:
        return [_ended(turn, ENDPOINT, replace(spent, error=EndpointFault(fault)))]
    return [_ended(turn, CANCELLED, spent)]


def lost_turns(board: Board, agent_id: str | None = None) -> list[Draft]:
    """The closing entries for turns that an earlier attempt, or an agent's broken-off task run, left open."""
    left_open = board.open_turns.values()
    return [_ended(turn, LOST, _UNTOLD) for turn in left_open if agent_id in {None, turn.agent_id}]


def _begun(board: Board, agent: Agent, phase: Phase) -> Draft:
    body = {
        "turn": board.turns + 1,
        "agent_id": agent.agent_id,
        "phase": phase.value,
        "round": board.round.number if board.round else 0,
        "seen": board.seq,
        "model": agent.model,
    }
    return Draft(kind=Kind.TURN_BEGUN, actor=agent.agent_id, body=body)


def _ended(turn: OpenTurn, outcome: str, answer: Answer | None = None, notes: Sequence[str] = ()) -> Draft:
    spent: dict[str, Any] = {"model": None, "usage": None, "cost_nanousd": None, "calls": 0, "repaired": False}
    error = None
    if answer:
        spent |= answer.spent
        if answer.error:
            error = {
                "code": answer.error.code,
                "message": answer.error.message,
                "fingerprint": fingerprint(answer.error.code, answer.error.message),
            }
    body = {
        **spent,
        "turn": turn.turn,
        "agent_id": turn.agent_id,
        "phase": turn.phase.value,
        "round": turn.round,
        "outcome": outcome,
        "actions": [action.action.value for action in answer.actions] if answer else [],
        "notes": list(notes),
        "error": error,
    }
    return Draft(kind=Kind.TURN_ENDED, actor=turn.agent_id, body=body)


def _outcome(error: TrilogueError | None) -> str:
    match error:
        case None:
            return ACTED
        case Violation():
            return VIOLATED
        case Malformed():
            return MALFORMED
        case EndpointFault() | Unavailable():
            return ENDPOINT
        case _:
            return REFUSED


def _closing(
    room: Room, board: Board, turn: OpenTurn, answer: Answer, outcome: str, trigger: Trigger | None
) -> list[Draft]:
    drafts, notes = action_drafts(board, turn, answer.actions, trigger)
    drafts.append(_ended(turn, outcome, answer, notes))
    return drafts + _revocation(room, board, turn, answer, outcome)


def _revocation(room: Room, board: Board, turn: OpenTurn, answer: Answer, outcome: str) -> list[Draft]:
    """What a turn's failure does to its agent: a violation on record, and a revocation with its handoff."""
    if outcome not in {MALFORMED, VIOLATED} or answer.error is None:
        return []
    agent = board.agents[turn.agent_id]
    drafts = []
    if outcome == VIOLATED:
        body = {"agent_id": agent.agent_id, "reason": answer.error.message, "turn": turn.turn}
        drafts.append(Draft(kind=Kind.VIOLATION, body=body))
    marks = (*agent.faults, fingerprint(answer.error.code, answer.error.message))
    why = breach(faults=marks, violated=agent.violated or outcome == VIOLATED, budget=room.rules.errors)
    return drafts + (revoke(board, agent, why, answer.error) if why else [])


def revoke(board: Board, agent: Agent, why: str, error: TrilogueError) -> list[Draft]:
    """Take an agent out: its status, the failure on the board, and what it leaves to its partner."""
    partner = next((other for other in board.voters() if other.agent_id != agent.agent_id), None)
    return [
        Draft(
            kind=Kind.AGENT_STATUS,
            body={"agent_id": agent.agent_id, "status": AgentStatus.REVOKED.value, "reason": why},
        ),
        Draft(kind=Kind.FAILURE, body={"agent_id": agent.agent_id, "code": error.code, "message": error.message}),
        Draft(
            kind=Kind.HANDOFF,
            body={
                "agent_id": agent.agent_id,
                "role": agent.role.value,
                "reason": why,
                "to": partner.agent_id if partner else None,
                "findings": [f.id for f in board.findings.values() if f.author == agent.agent_id],
                "open_proposals": [p.id for p in board.open_proposals() if p.author == agent.agent_id],
                "errors": len(agent.faults) + 1,
            },
        ),
    ]


def action_drafts(
    board: Board, turn: OpenTurn, actions: Sequence[Action], trigger: Trigger | None = None
) -> tuple[list[Draft], list[str]]:
    """The entries for a turn's actions on the board as committed now, and notes on what had gone stale.

    Ids are counted on from the board, so they are unique and short enough for a model to repeat.
    """
    drafts: list[Draft] = []
    notes: list[str] = []
    counts = {
        "f": len(board.findings),
        "p": len(board.proposals),
        "c": len(board.critiques),
        "m": len(board.messages),
        "x": len(board.solutions),
        "s": len(board.subtasks),
    }
    revisions: dict[str, int] = {}

    def fresh(letter: str) -> str:
        counts[letter] += 1
        return f"{letter}{counts[letter]}"

    def add(kind: Kind, **body: Any) -> None:
        drafts.append(Draft(kind=kind, actor=turn.agent_id, body={**body, "turn": turn.turn}))

    for action in actions:
        match action:
            case Find():
                add(Kind.FINDING, id=fresh("f"), **action.model_dump(exclude={"action"}))
            case Propose():
                add(Kind.PROPOSAL, id=fresh("p"), title=action.title, text=action.text)
            case Critique():
                seen = _seen_revision(board, action.proposal, turn)
                add(Kind.CRITIQUE, id=fresh("c"), proposal=action.proposal, revision=seen, text=action.text)
            case Revise():
                number = revisions.get(action.proposal, board.proposals[action.proposal].latest.number) + 1
                revisions[action.proposal] = number
                add(Kind.REVISION, proposal=action.proposal, revision=number, title=action.title, text=action.text)
            case Vote():
                seen = _seen_revision(board, action.proposal, turn)
                if seen != board.proposals[action.proposal].latest.number:
                    notes.append(
                        f"the vote on {action.proposal} was for revision {seen}, which is no longer the latest"
                    )
                add(
                    Kind.VOTE,
                    proposal=action.proposal,
                    revision=seen,
                    verdict=action.verdict,
                    reason=action.reason,
                )
            case Solve(subtask=str(subtask)) if subtask and subtask not in {s.id for s in board.open_subtasks()}:
                notes.append(f"dropped: subtask {subtask} was solved meanwhile")
            case Solve():
                add(Kind.SOLUTION, id=fresh("x"), title=action.title, text=action.text, subtask=action.subtask or None)
            case Message():
                add(Kind.MESSAGE, id=fresh("m"), to=action.to, content=action.content)
            case Rule():
                add(Kind.RULING, **_ruling(board, action, turn, trigger))
            case Decompose():
                for part in action.subtasks:
                    add(Kind.SUBTASK, id=fresh("s"), title=part.title, text=part.text, assignee=part.assignee)
            case Pass():
                pass
    return drafts, notes


def _seen_revision(board: Board, proposal_id: str, turn: OpenTurn) -> int:
    """The revision that the turn's agent saw: the latest one committed when the turn began."""
    return max(r.number for r in board.proposals[proposal_id].revisions if r.seq <= turn.seen)


def _ruling(board: Board, action: Rule, turn: OpenTurn, trigger: Trigger | None) -> dict[str, Any]:
    """A ruling holds for the revision that the mediator saw, whatever its author wrote meanwhile."""
    mediation = board.mediation()
    seen = _seen_revision(board, action.proposal, turn)
    chosen = next(r for r in board.proposals[action.proposal].revisions if r.number == seen)
    merged = action.outcome == "merge" and bool(action.text)
    return {
        "mediation": mediation.number if mediation else 0,
        "trigger": trigger.value if trigger else "",
        "proposal": action.proposal,
        "revision": seen,
        "outcome": "merge" if merged else "choose",
        "title": (action.title if merged else "") or chosen.title,
        "text": action.text if merged else chosen.text,
        "reason": action.reason,
    }
