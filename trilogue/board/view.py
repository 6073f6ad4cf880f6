"""A board as JSON, and what differs between two boards of one pipeline, for people and for faces."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trilogue.board.items import Proposal
from trilogue.board.state import Board

_SECTIONS = (
    "agents",
    "findings",
    "proposals",
    "messages",
    "solutions",
    "subtasks",
    "rulings",
    "mediations",
    "guidance",
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that two boards do not share.

    Attributes:
        section: such as `proposals`, or `pipeline` for status, phase and round.
        id: of the thing, or the field's name.
        change: as seen from the first board to the second.
        before, after: JSON values; None where there is nothing.
    """

    section: str
    id: str
    change: Literal["added", "changed", "removed"]
    before: Any
    after: Any


def as_json(board: Board) -> dict[str, Any]:
    """Everything on the board as JSON values; times are microseconds UTC."""
    return {
        "seq": board.seq,
        "at": board.at,
        "status": board.status.value,
        "phase": board.phase.value,
        "round": board.round.number if board.round else 0,
        "agents": [
            {
                "agent_id": agent.agent_id,
                "role": agent.role.value,
                "tier": agent.tier,
                "runtime": agent.runtime,
                "model": agent.model,
                "status": agent.status.value,
                "turns": board.turns_of.get(agent.agent_id, 0),
                "errors": board.errors_of.get(agent.agent_id, 0),
                "running": board.turn_of(agent.agent_id) is not None,
            }
            for agent in board.agents.values()
        ],
        "findings": [asdict(finding) for finding in board.findings.values()],
        "proposals": [_proposal(board, proposal) for proposal in board.proposals.values()],
        "messages": [asdict(message) for message in board.messages],
        "solutions": [asdict(solution) for solution in board.solutions.values()],
        "subtasks": [{**asdict(subtask), "assignee": subtask.assignee.value} for subtask in board.subtasks.values()],
        "rulings": [asdict(ruling) for ruling in board.rulings],
        "mediations": [{**asdict(m), "evidence": dict(m.evidence)} for m in board.mediations],
        "guidance": list(board.guidance),
        "handoffs": [dict(handoff) for handoff in board.handoffs],
        "failures": [dict(failure) for failure in board.failures],
        "consensus": dict(board.consensus) if board.consensus else None,
        "error": dict(board.error) if board.error else None,
        "checkpoints": list(board.checkpoints),
    }


def _proposal(board: Board, proposal: Proposal) -> dict[str, Any]:
    agreed = {agreed.id for agreed in board.agreed()}
    return {
        "id": proposal.id,
        "author": proposal.author,
        "round": proposal.round,
        "agreed": proposal.id in agreed,
        "revisions": [asdict(revision) for revision in proposal.revisions],
        "votes": [asdict(vote) for vote in board.votes.values() if vote.proposal == proposal.id],
        "critiques": [asdict(critique) for critique in board.critiques if critique.proposal == proposal.id],
    }


def difference(before: Board, after: Board) -> list[Difference]:
    """What was added, changed and removed from one board to another, section by section."""
    first, second = as_json(before), as_json(after)
    return [
        *_compared("pipeline", _facts(first), _facts(second)),
        *(found for name in _SECTIONS for found in _compared(name, _by_id(first[name]), _by_id(second[name]))),
        *_compared("consensus", _only(first["consensus"]), _only(second["consensus"])),
    ]


def _facts(board: Mapping[str, Any]) -> dict[str, Any]:
    return {name: board[name] for name in ("status", "phase", "round")}


def _only(value: Any) -> dict[str, Any]:
    return {"consensus": value} if value is not None else {}


def _by_id(items: list[Any]) -> dict[str, Any]:
    """Things by their id; those without one by their place."""
    keyed = {}
    for place, item in enumerate(items, start=1):
        name = item.get("id") or item.get("agent_id") or item.get("number") if isinstance(item, Mapping) else None
        keyed[str(name or place)] = item
    return keyed


def _compared(section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        if old != new:
            change: Literal["added", "changed", "removed"] = "changed"
            if name not in before:
                change = "added"
            elif name not in after:
                change = "removed"
            yield Difference(section=section, id=name, change=change, before=old, after=new)
