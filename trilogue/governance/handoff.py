"""Revocation and handoff: taking an agent out, what it leaves, and who takes over."""

from typing import Any

from trilogue.agent import TIER_OF, AgentStatus, Role
from trilogue.board import Agent, Amount, Board
from trilogue.entry import Draft, Kind
from trilogue.errors import TrilogueError
from trilogue.governance.mandates import issued

REPLACEMENT = "replacement"
"""Why an agent was spawned in the middle of a phase."""

_ALONE = "take over what it left and solve the objective alone"
_REPLACED = "the replacement goes on from the board; its predecessor's open proposals are nobody's to revise"
_NOBODY = "nobody is left to take over"


def revoked(board: Board, agent: Agent, why: str, error: TrilogueError, charged: Amount) -> list[Draft]:
    """Take an agent out: its status, the failure on the board, its handoff, and its replacement if there is to be one.

    Args:
        agent: with the error that revokes it already counted.
        charged: what its last turn is charged with in the same commit.
    """
    partner = next((other for other in board.voters() if other.agent_id != agent.agent_id), None)
    replacement = _replacement(board, agent)
    heir = replacement or (partner.agent_id if partner else None)
    told = _REPLACED if replacement else _ALONE if partner else _NOBODY
    drafts = [
        _status(agent.agent_id, AgentStatus.REVOKED, why),
        Draft(kind=Kind.FAILURE, body={"agent_id": agent.agent_id, "code": error.code, "message": error.message}),
        Draft(kind=Kind.HANDOFF, body=_handoff(board, agent, why, heir, told)),
    ]
    return drafts + (_enlisted(board, replacement, agent, charged) if replacement else [])


def _enlisted(board: Board, agent_id: str, former: Agent, charged: Amount) -> list[Draft]:
    """A replacement at work, with a mandate for as long as its predecessor's would have been."""
    role, until = former.role, board.mandates[former.agent_id].expires_at
    tokens = None if board.max_tokens is None else board.max_tokens - charged.tokens
    return [
        spawned(agent_id, role, former.model, reason=REPLACEMENT),
        issued(board, agent_id, role, until=until, max_tokens=tokens),
        _status(agent_id, AgentStatus.RUNNING, ""),
    ]


def spawned(agent_id: str, role: Role, model: str, reason: str | None = None) -> Draft:
    """The `agent_spawned` entry."""
    body = {
        "agent_id": agent_id,
        "role": role.value,
        "tier": int(TIER_OF[role]),
        "runtime": "python",
        "model": model,
    }
    return Draft(kind=Kind.AGENT_SPAWNED, body=body if reason is None else {**body, "reason": reason})


def next_agent_id(board: Board, role: Role) -> str:
    """The id of a role's next agent."""
    return f"{role.lower()}-{sum(known.role is role for known in board.agents.values()) + 1}"


def _replacement(board: Board, agent: Agent) -> str | None:
    """The replacement's id, where the pipeline allows another one of the role in this round; GAMMA has none."""
    allowed = board.spec.get("replacements", 0)
    if agent.role is Role.GAMMA or board.replacements.get(agent.role, 0) >= allowed:
        return None
    return next_agent_id(board, agent.role)


def _handoff(board: Board, agent: Agent, why: str, heir: str | None, told: str) -> dict[str, Any]:
    mine = agent.agent_id
    return {
        "agent_id": mine,
        "role": agent.role.value,
        "to": heir,
        "reason": why,
        "done": {
            "findings": [f.id for f in board.findings.values() if f.author == mine],
            "proposals": [p.id for p in board.proposals.values() if p.author == mine],
            "votes": [vote.proposal for vote in board.votes.values() if vote.voter == mine],
            "critiques": [c.id for c in board.critiques if c.author == mine],
            "solutions": [s.id for s in board.solutions.values() if s.author == mine],
        },
        "open_proposals": [p.id for p in board.open_proposals() if p.author == mine],
        "unanswered": [
            m.id
            for m in board.messages
            if m.sender != mine and m.to in {agent.role.value, "ALL"} and m.seq > agent.seen
        ],
        "errors": list(agent.complaints),
        "next": told,
    }


def _status(agent_id: str, status: AgentStatus, reason: str) -> Draft:
    return Draft(kind=Kind.AGENT_STATUS, body={"agent_id": agent_id, "status": status.value, "reason": reason})
