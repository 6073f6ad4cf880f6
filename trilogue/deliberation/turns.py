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
from trilogue.board import Agent, Amount, Board, OpenTurn
from trilogue.deliberation.offers import offer
from trilogue.deliberation.room import Answer, Room
from trilogue.entry import Draft, Kind
from trilogue.errors import BudgetSpent, EndpointFault, Malformed, TrilogueError, Unavailable, Violation
from trilogue.governance.budgets import (
    Decision,
    Need,
    Settlement,
    Verdict,
    decide,
    degraded,
    out_of_tenant_budget,
    warnings,
)
from trilogue.governance.errorbudget import breach, fingerprint
from trilogue.governance.handoff import revoked
from trilogue.mediation import Trigger
from trilogue.pipeline import Phase

NOT_BEGUN, HELD = "not_begun", "held"
ACTED, MALFORMED, VIOLATED, ENDPOINT, REFUSED, BUDGET, EXPIRED, CANCELLED, LOST = (
    "acted",
    "malformed",
    "violation",
    "endpoint",
    "refused",
    "budget",
    "expired",
    "cancelled",
    "lost",
)
"""Outcomes of a turn. `refused`: the endpoint turned the call down for good (key, credit, unknown model).
`budget`: its budget was spent on the way. `expired`: its mandate had ended when it came back."""

_UNTOLD = Answer(spent={"calls": 1})
"""Of a call that an earlier attempt made nobody told what it took: unknown, not nothing."""
_UNSENT = Answer(settled=Settlement())


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

    Returns:
        One of the outcomes; `HELD` where reservations of other turns stand in the way, which will pass.
    """
    await room.ready()
    terms, prompt = Offer(mandate=frozenset(), actions=frozenset()), ""
    verdict = Verdict.ALLOW

    def begin(board: Board) -> list[Draft]:
        # What the agent sees is fixed here, on the very board that `turn_begun` names as seen.
        nonlocal terms, prompt, verdict
        if unless(board):
            return []
        terms = offer(board, agent, phase)
        prompt = room.compose(agent, phase, terms, trigger)
        needs = room.needs(agent, prompt, terms)
        decision = decide(board, agent, needs)
        verdict = decision.verdict
        return _beginning(board, agent, phase, needs[0], decision)

    turn: OpenTurn | None = None
    try:
        try:
            await room.append(begin)
        except BudgetSpent as spent:
            return await _refused_by_the_ledger(room, agent, spent)
        turn = room.board.turn_of(agent.agent_id)
        if turn is None:
            return HELD if verdict is Verdict.WAIT else NOT_BEGUN
        answer = await room.ask(agent, turn, prompt, terms)
    except asyncio.CancelledError:
        # Also one that came while `turn_begun` was being committed: left open, it would hold up every agreement.
        # Out of the ledger's reach or fenced, the next attempt records the turn as lost.
        took, fault = (room.cut_off(turn), room.fault()) if turn else (_UNSENT, None)
        with contextlib.suppress(TrilogueError):
            await asyncio.shield(room.append(lambda board: _cut_off(board, agent, took, fault)))
        raise
    outcome = _outcome(answer.error)
    if outcome == ACTED and room.now() > room.board.mandates[agent.agent_id].expires_at:
        outcome = EXPIRED
    await room.append(lambda board: _closing(board, turn, answer, outcome, trigger))
    return outcome


def _beginning(board: Board, agent: Agent, phase: Phase, need: Need, decision: Decision) -> list[Draft]:
    match decision.verdict:
        case Verdict.WAIT:
            return []
        case Verdict.STOP:
            return [Draft(kind=Kind.BUDGET, body=decision.told or {})]
        case Verdict.DEGRADE:
            told = Draft(kind=Kind.BUDGET, body=degraded(board, agent, need, decision))
            return [told, _begun(board, agent, phase, decision)]
        case Verdict.ALLOW:
            return [_begun(board, agent, phase, decision)]


async def _refused_by_the_ledger(room: Room, agent: Agent, spent: BudgetSpent) -> str:
    """The tenant's budget, which other pipelines spend as well, has no room."""
    if not spent.passing:
        body = out_of_tenant_budget(agent, spent.message)
        await room.append(lambda _: [Draft(kind=Kind.BUDGET, body=body)])
        return NOT_BEGUN
    return HELD


def _cut_off(board: Board, agent: Agent, answer: Answer, fault: str | None) -> list[Draft]:
    """A turn that was cut off ends as cancelled; as the endpoint's fault where it was not to be reached till then."""
    turn = board.turn_of(agent.agent_id)
    if turn is None:
        return []
    if fault:
        return [_ended(turn, ENDPOINT, replace(answer, error=EndpointFault(fault)))]
    return [_ended(turn, CANCELLED, answer)]


def lost_turns(board: Board, agent_id: str | None = None) -> list[Draft]:
    """The closing entries for turns that an earlier attempt, or an agent's broken-off task run, left open."""
    left_open = board.open_turns.values()
    return [_ended(turn, LOST, _UNTOLD) for turn in left_open if agent_id in {None, turn.agent_id}]


def _begun(board: Board, agent: Agent, phase: Phase, decision: Decision) -> Draft:
    body = {
        "turn": board.turns + 1,
        "agent_id": agent.agent_id,
        "phase": phase.value,
        "round": board.round.number if board.round else 0,
        "seen": board.seq,
        "model": decision.models[0],
        "fallbacks": list(decision.models[1:]),
        "max_tokens": decision.max_tokens,
        "reserved": decision.reserved.as_json(),
    }
    return Draft(kind=Kind.TURN_BEGUN, actor=agent.agent_id, body=body)


def _charged(turn: OpenTurn, answer: Answer) -> Settlement:
    """A call of unknown outcome is charged with the whole of what its turn reserved."""
    return answer.settled or Settlement(amount=turn.reserved, estimated=True)


def _ended(turn: OpenTurn, outcome: str, answer: Answer, notes: Sequence[str] = ()) -> Draft:
    spent: dict[str, Any] = {"model": None, "usage": None, "cost_nanousd": None, "calls": 0, "repaired": False}
    error = None
    if answer.error:
        error = {
            "code": answer.error.code,
            "message": answer.error.message,
            "fingerprint": fingerprint(answer.error.code, answer.error.message),
        }
    charged = _charged(turn, answer)
    body = {
        **spent,
        **answer.spent,
        "turn": turn.turn,
        "agent_id": turn.agent_id,
        "phase": turn.phase.value,
        "round": turn.round,
        "outcome": outcome,
        "reserved": turn.reserved.as_json(),
        "settled": {**charged.amount.as_json(), "estimated": charged.estimated},
        "actions": [action.action.value for action in answer.actions],
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
        case BudgetSpent():
            return BUDGET
        case _:
            return REFUSED


def _closing(board: Board, turn: OpenTurn, answer: Answer, outcome: str, trigger: Trigger | None) -> list[Draft]:
    if outcome == EXPIRED:
        answer = replace(answer, actions=())
    drafts, notes = action_drafts(board, turn, answer.actions, trigger)
    if outcome == EXPIRED:
        notes.append("refused: the mandate had expired")
    agent = board.agents[turn.agent_id]
    drafts.append(_ended(turn, outcome, answer, notes))
    charged = _charged(turn, answer)
    drafts += warnings(board, agent, charged)
    return drafts + _counted(board, agent, turn, answer.error, outcome, charged.amount)


def _counted(
    board: Board, agent: Agent, turn: OpenTurn, error: TrilogueError | None, outcome: str, charged: Amount
) -> list[Draft]:
    """What a turn's failure does to its agent: a violation on record, and a revocation with its handoff."""
    if error is None or outcome not in {MALFORMED, VIOLATED, ENDPOINT}:
        return []
    drafts: list[Draft] = []
    if outcome == VIOLATED:
        body = {"agent_id": agent.agent_id, "reason": error.message, "turn": turn.turn}
        drafts.append(Draft(kind=Kind.VIOLATION, body=body))
    complaints = (*agent.complaints, f"{error.code}: {error.message}")
    if outcome == ENDPOINT:
        counted = replace(agent, outages=agent.outages + (agent.endpoint_fault is None), complaints=complaints)
    else:
        counted = replace(
            agent,
            faults=(*agent.faults, fingerprint(error.code, error.message)),
            violations=agent.violations + (outcome == VIOLATED),
            complaints=complaints,
        )
    why = breach(counted, board.mandates[agent.agent_id].errors)
    return drafts + (revoked(board, counted, why, error, charged) if why else [])


def action_drafts(
    board: Board, turn: OpenTurn, actions: Sequence[Action], trigger: Trigger | None = None
) -> tuple[list[Draft], list[str]]:
    """The entries for a turn's actions on the board as committed now, and notes on what had gone stale.

    Ids are counted on from the board, so they are unique and short enough for a model to repeat.
    """
    drafts: list[Draft] = []
    notes: list[str] = []
    counts = dict(board.ids)
    revisions: dict[str, int] = {}

    def fresh(letter: str) -> str:
        counts[letter] = counts.get(letter, 0) + 1
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
