"""The lanes of ALPHA and BETA: what each did, turn by turn, and what it is saying now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import AgentStatus, Role
from trilogue.board import Agent
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Turn
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Phase

MOST_TURNS = 40
"""Turns of a lane that are shown; those before are in the log."""

_STATUS_TONES = {
    AgentStatus.SPAWNED: "idle",
    AgentStatus.RUNNING: "busy",
    AgentStatus.WAITING: "idle",
    AgentStatus.COMPLETED: "fine",
    AgentStatus.TIMED_OUT: "held",
    AgentStatus.REVOKED: "bad",
}
_IN_A_TURN = "in a turn"
_OUTCOMES = {
    "malformed": "its answer could not be used",
    "violation": "outside its mandate",
    "endpoint": "the model endpoint failed",
    "refused": "the model endpoint turned it down",
    "budget": "its budget was spent",
    "expired": "its mandate had ended",
    "cancelled": "broken off",
    "lost": "lost with its worker",
}


@dataclass(frozen=True, kw_only=True)
class Said:
    """One action of a turn.

    Attributes:
        verb: what it did, such as `proposes`.
        about: the id of the thing on the board, as a link to it; empty where there is none.
        text: of any length, plain.
    """

    kind: Kind
    verb: str
    about: str
    title: str
    text: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One turn of a lane; `heading` opens a new phase or round, or tells that another agent took the role."""

    turn: Turn
    heading: str
    said: tuple[Said, ...]
    trouble: str


def alpha(scene: Scene) -> Mapping[str, Any]:
    """The lane of ALPHA."""
    return lane(scene, Role.ALPHA)


def beta(scene: Scene) -> Mapping[str, Any]:
    """The lane of BETA."""
    return lane(scene, Role.BETA)


def lane(scene: Scene, role: Role) -> Mapping[str, Any]:
    """What an agent's lane shows: `agent` and its `state` (None before it was spawned), its `blocks`."""
    board = scene.story.board
    turns = [turn for turn in scene.story.turns.values() if board.role_of(turn.agent_id) == role]
    agent = board.agent_in(role)
    return {
        "role": role,
        "agent": agent,
        "state": _state(scene, agent) if agent else None,
        "tone": _tone(scene, agent) if agent else "idle",
        "working": agent is not None and board.turn_of(agent.agent_id) is not None and scene.at_work,
        "blocks": list(blocks(turns[-MOST_TURNS:])),
        "earlier": max(0, len(turns) - MOST_TURNS),
    }


def blocks(turns: list[Turn]) -> Iterator[Block]:
    """Turns as a lane shows them, each with the heading that goes before it."""
    before = ""
    for turn in turns:
        where = "RUN" if turn.phase is Phase.RUN else f"Round {turn.round}" if turn.round else turn.phase.value
        heading = f"{where} · {turn.agent_id}{' · undone' if turn.undone else ''}"
        yield Block(
            turn=turn,
            heading=heading if heading != before else "",
            said=tuple(_said(entry) for entry in turn.said),
            trouble=_trouble(turn),
        )
        before = heading


def _tone(scene: Scene, agent: Agent) -> str:
    busy = agent.status.settled or _state(scene, agent) == _IN_A_TURN
    return _STATUS_TONES[agent.status] if busy else "idle"


def _state(scene: Scene, agent: Agent) -> str:
    """Where an agent is, in words."""
    board = scene.story.board
    if agent.status.settled:
        return agent.status.lower().replace("_", " ")
    if board.status.ended:
        return "acts no more"
    if not board.turn_of(agent.agent_id):
        return "waits"
    return _IN_A_TURN if scene.at_work or scene.replay else "interrupted"


def _trouble(turn: Turn) -> str:
    """Why a turn brought nothing; empty where it did, or is under way."""
    if turn.outcome in {None, "acted"}:
        return ""
    what = _OUTCOMES.get(str(turn.outcome), str(turn.outcome))
    return f"{what}: {turn.error}" if turn.error else what


def _said(entry: Entry) -> Said:
    body = entry.body
    match entry.kind:
        case Kind.FINDING:
            note = f"confidence {body['confidence']:.0%}"
            return Said(
                kind=entry.kind, verb="finds", about=body["id"], title=body["title"], text=body["text"], note=note
            )
        case Kind.PROPOSAL:
            return Said(kind=entry.kind, verb="proposes", about=body["id"], title=body["title"], text="")
        case Kind.REVISION:
            verb = f"revises to revision {body['revision']}"
            return Said(kind=entry.kind, verb=verb, about=body["proposal"], title=body["title"], text="")
        case Kind.CRITIQUE:
            return Said(kind=entry.kind, verb="criticises", about=body["proposal"], title="", text=body["text"])
        case Kind.VOTE:
            approves = body["verdict"] == "approve"
            verb, tone = ("approves", "fine") if approves else ("rejects", "bad")
            return Said(kind=entry.kind, verb=verb, about=body["proposal"], title="", text=body["reason"], tone=tone)
        case Kind.SOLUTION:
            what = f"solves {body['subtask']}" if body["subtask"] else "solves the objective"
            return Said(kind=entry.kind, verb=what, about=body["id"], title=body["title"], text="")
        case Kind.MESSAGE:
            return Said(kind=entry.kind, verb=f"to {body['to']}", about="", title="", text=body["content"])
        case Kind.RULING:
            verb = f"rules: {body['outcome']}"
            return Said(kind=entry.kind, verb=verb, about=body["proposal"], title="", text=body["reason"])
        case Kind.SUBTASK:
            verb = f"gives {body['assignee']}"
            return Said(kind=entry.kind, verb=verb, about=body["id"], title=body["title"], text="")
        case _:
            return Said(kind=entry.kind, verb=entry.kind.replace("_", " "), about="", title="", text="")
