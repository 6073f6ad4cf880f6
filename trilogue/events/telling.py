"""Entries and streamed text as events: pure, and the same for WebSockets, server-sent events and the CLI.

Every entry is told as exactly one event, which bears its `seq`: a viewer that counts knows that
it missed nothing, and `after` a number means the same to whoever asks.
"""

from collections.abc import Callable, Mapping
from typing import Any

from typing_extensions import TypedDict

from trilogue.agent import Role
from trilogue.board import Board
from trilogue.clock import Micros, iso
from trilogue.entry import Entry, Kind
from trilogue.live import Delta
from trilogue.money import USD
from trilogue.pipeline import Status

Body = Mapping[str, Any]
Data = dict[str, Any]


class Event(TypedDict):
    """One message: `data` is as its `type` says; `seq` is null for what is not recorded."""

    type: str
    pipeline_id: str | None
    seq: int | None
    at: str
    data: Mapping[str, Any]


def event_of(board: Board, entry: Entry) -> Event:
    """What `entry` is to a viewer, on the board that it was just applied to."""
    type_, data = _TOLD[entry.kind](board, entry)
    return {
        "type": type_,
        "pipeline_id": entry.pipeline_id,
        "seq": entry.seq,
        "at": iso(entry.at),
        "data": {"pipeline_id": entry.pipeline_id, **data},
    }


def delta_event(board: Board, pipeline_id: str, delta: Delta, at: Micros) -> Event:
    """Streamed text of a running turn."""
    return {
        "type": "turn_delta",
        "pipeline_id": pipeline_id,
        "seq": None,
        "at": iso(at),
        "data": {
            "pipeline_id": pipeline_id,
            "turn": delta.turn,
            "agent_id": delta.agent_id,
            "role": board.role_of(delta.agent_id),
            "offset": delta.offset,
            "text": delta.text,
        },
    }


def connection_event(type_: str, at: Micros, data: Mapping[str, Any]) -> Event:
    """What concerns a viewer's connection and no pipeline: `snapshot`, `heartbeat`, `error`."""
    return {"type": type_, "pipeline_id": None, "seq": None, "at": iso(at), "data": data}


def has_come_to_rest(board: Board) -> bool:
    """Whether the pipeline has ended and everything about its end is told."""
    return board.status.ended and board.checkpoints[-1:] == (_final(board.status),)


def _final(status: Status) -> str:
    """The name of the checkpoint at an end: the last entry until the pipeline is taken up again."""
    return status.value.lower()


def _fault(error: Mapping[str, Any] | None) -> Data | None:
    return {"code": error["code"], "message": error["message"]} if error else None


def _usd(nanousd: int | None) -> float | None:
    return None if nanousd is None else nanousd / USD


def _plain(type_: str, **renamed: str) -> Callable[[Board, Entry], tuple[str, Data]]:
    """The body as it is, but for renamed keys."""

    def told(_: Board, entry: Entry) -> tuple[str, Data]:
        return type_, {renamed.get(key, key): value for key, value in entry.body.items()}

    return told


def _about_agent(type_: str) -> Callable[[Board, Entry], tuple[str, Data]]:
    """The body of an entry about an agent, with its role."""

    def told(board: Board, entry: Entry) -> tuple[str, Data]:
        return type_, {**entry.body, "role": board.role_of(str(entry.body.get("agent_id")))}

    return told


def _by_agent(type_: str, **renamed: str) -> Callable[[Board, Entry], tuple[str, Data]]:
    """The body of what an agent did, with who it was; keys renamed so that ids say of what they are."""

    def told(board: Board, entry: Entry) -> tuple[str, Data]:
        body = {renamed.get(key, key): value for key, value in entry.body.items()}
        return type_, {"agent_id": entry.actor, "role": board.role_of(entry.actor), **body}

    return told


def _standing(board: Board) -> Data:
    return {
        "status": board.status.value,
        "phase": board.phase.value,
        "round": board.round.number if board.round else 0,
        "error": _fault(board.error),
    }


def _spawned(board: Board, entry: Entry) -> tuple[str, Data]:
    asked = {name: entry.body[name] for name in ("objective", "project", "mode", "rehearsal") if name in entry.body}
    return "pipeline_status", _standing(board) | asked


def _status(board: Board, _: Entry) -> tuple[str, Data]:
    return "pipeline_status", _standing(board)


def _rewound(board: Board, entry: Entry) -> tuple[str, Data]:
    return "pipeline_status", _standing(board) | {"checkpoint": entry.body["checkpoint"]}


def _context(_: Board, entry: Entry) -> tuple[str, Data]:
    body = entry.body
    return "context", {"name": body["name"], "characters": len(body["text"]), "sha256": body["sha256"]}


def _round_started(board: Board, entry: Entry) -> tuple[str, Data]:
    body = entry.body
    agents = [{"agent_id": agent.agent_id, "role": agent.role.value, "model": agent.model} for agent in board.voters()]
    told = {name: body[name] for name in ("model", "round", "mode", "rehearsal", "timeout", "reason")}
    return "orchestration_started", {**told, "agents": agents, "deadline": iso(body["deadline"])}


def _agent_spawned(_: Board, entry: Entry) -> tuple[str, Data]:
    type_ = "gamma_spawned" if entry.body["role"] == Role.GAMMA else "agent_spawned"
    return type_, {"reason": None, **entry.body}


def _mandate(_: Board, entry: Entry) -> tuple[str, Data]:
    body = entry.body
    told = {name: body[name] for name in ("agent_id", "role", "tier", "tokens")}
    return "mandate", {**told, "expires_at": iso(body["expires_at"])}


def _turn_begun(board: Board, entry: Entry) -> tuple[str, Data]:
    told = {name: entry.body[name] for name in ("turn", "agent_id", "phase", "round", "model")}
    return "turn_begun", {**told, "role": board.role_of(entry.body["agent_id"])}


def _turn_ended(board: Board, entry: Entry) -> tuple[str, Data]:
    body = entry.body
    usage = body.get("usage") or {}
    return "turn_ended", {
        "turn": body["turn"],
        "agent_id": body["agent_id"],
        "role": board.role_of(body["agent_id"]),
        "outcome": body["outcome"],
        "actions": list(body["actions"]),
        "notes": list(body["notes"]),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cost_usd": _usd(body.get("cost_nanousd")),
        "error": _fault(body["error"]),
    }


def _message(board: Board, entry: Entry) -> tuple[str, Data]:
    type_, data = _by_agent("agent_message", id="message_id")(board, entry)
    return type_, {"from": data["role"], **data}


def _proposal(board: Board, entry: Entry) -> tuple[str, Data]:
    type_, data = _by_agent("proposal", id="proposal_id", proposal="proposal_id")(board, entry)
    return type_, {"revision": 1, **data}


def _resumed(_: Board, entry: Entry) -> tuple[str, Data]:
    body = entry.body
    deadline = iso(body["deadline"]) if body["deadline"] else None
    return "resumed", {"reason": body["reason"], "from": body["from"], "deadline": deadline}


def _checkpoint(board: Board, entry: Entry) -> tuple[str, Data]:
    if not has_come_to_rest(board):
        return "checkpoint", {name: entry.body[name] for name in ("name", "to_seq", "status", "phase", "round")}
    standing = _standing(board)
    return "orchestration_complete", {
        "status": standing["status"],
        "results": _results(board),
        "round": standing["round"],
        "error": standing["error"],
    }


def _results(board: Board) -> Data:
    return {
        "consensus": dict(board.consensus) if board.consensus else None,
        "solutions": [
            {"solution_id": s.id, "subtask_id": s.subtask, "author": s.author, "title": s.title, "text": s.text}
            for s in board.solutions.values()
        ],
        "proposals": [
            {"proposal_id": p.id, "author": p.author, "revision": p.latest.number, "title": p.latest.title}
            for p in board.proposals.values()
        ],
        "rehearsal": bool(board.round.rehearsal if board.round else board.spec.get("rehearsal")),
    }


_TOLD: Mapping[Kind, Callable[[Board, Entry], tuple[str, Data]]] = {
    Kind.PIPELINE_SPAWNED: _spawned,
    Kind.CONTEXT: _context,
    Kind.PHASE_STARTED: _plain("phase_started"),
    Kind.STATUS: _status,
    Kind.AGENT_SPAWNED: _agent_spawned,
    Kind.MANDATE: _mandate,
    Kind.AGENT_STATUS: _about_agent("agent_status"),
    Kind.TURN_BEGUN: _turn_begun,
    Kind.TURN_ENDED: _turn_ended,
    Kind.BUDGET: _about_agent("budget"),
    Kind.FINDING: _by_agent("finding", id="finding_id"),
    Kind.PROPOSAL: _proposal,
    Kind.CRITIQUE: _by_agent("critique", id="critique_id", proposal="proposal_id"),
    Kind.REVISION: _proposal,
    Kind.VOTE: _by_agent("vote", proposal="proposal_id"),
    Kind.SOLUTION: _by_agent("solution", id="solution_id", subtask="subtask_id"),
    Kind.MESSAGE: _message,
    Kind.RULING: _by_agent("ruling", proposal="proposal_id"),
    Kind.SUBTASK: _by_agent("subtask", id="subtask_id"),
    Kind.VIOLATION: _about_agent("violation"),
    Kind.HANDOFF: _plain("handoff"),
    Kind.FAILURE: _plain("failure"),
    Kind.REPORT: _plain("report"),
    Kind.ROUND_STARTED: _round_started,
    Kind.GUIDANCE: _plain("guidance"),
    Kind.MEDIATION_STARTED: _plain("mediation_started"),
    Kind.MEDIATION_ENDED: _plain("mediation_ended"),
    Kind.STOPPED: _plain("stopped"),
    Kind.RESUMED: _resumed,
    Kind.REWOUND: _rewound,
    Kind.CONSENSUS: _plain("consensus_reached"),
    Kind.CHECKPOINT: _checkpoint,
}
