"""The log: every entry as one row, and what rows are chosen by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trilogue.agent import Role
from trilogue.api.loglines import Level, LevelName, level_of, line
from trilogue.board import Board
from trilogue.entry import PERSON, SYSTEM, Entry, Kind

Group = Literal["said", "turns", "course", "governance"]
Actor = Literal["ALPHA", "BETA", "GAMMA", "system", "person"]

_SAID = {
    Kind.CONTEXT,
    Kind.FINDING,
    Kind.PROPOSAL,
    Kind.CRITIQUE,
    Kind.REVISION,
    Kind.VOTE,
    Kind.SOLUTION,
    Kind.MESSAGE,
    Kind.RULING,
    Kind.SUBTASK,
    Kind.GUIDANCE,
    Kind.REPORT,
    Kind.CONSENSUS,
}
_GOVERNANCE = {
    Kind.AGENT_SPAWNED,
    Kind.MANDATE,
    Kind.AGENT_STATUS,
    Kind.BUDGET,
    Kind.VIOLATION,
    Kind.HANDOFF,
    Kind.FAILURE,
}
_TONES: Mapping[str, str] = {role.value: role.value.lower() for role in Role}
_LEVEL_TONES: Mapping[LevelName, str] = {"debug": "idle", "info": "idle", "warning": "held", "error": "bad"}
_PLAIN_ACTORS = {SYSTEM, PERSON}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows are wanted; empty means any.

    Attributes:
        text: that a row's message, kind or actor holds, in upper or lower case.
    """

    level: LevelName = "debug"
    actor: Actor | None = None
    group: Group | None = None
    text: str = ""

    def takes(self, shown: Mapping[str, Any]) -> bool:
        """Whether a row is wanted, given as `shown_as` made it."""
        return (
            Level[shown["level"]] >= Level[self.level]
            and self.actor in {None, shown["actor"]}
            and self.group in {None, shown["group"]}
            and self.text.lower() in f"{shown['message']} {shown['name']} {shown['actor']}".lower()
        )


def row(board: Board, entry: Entry) -> Mapping[str, Any]:
    """An entry's row, on a board that knows its agents."""
    return shown_as(board.role_of(entry.actor), entry)


def shown_as(actor: str, entry: Entry) -> Mapping[str, Any]:
    """An entry's row; `actor` is a role, or who else recorded it."""
    level: LevelName = level_of(entry).name  # type: ignore[assignment]  # names of one another
    name = entry.kind.value.replace("_", " ")
    message = line(entry).message
    return {
        "pipeline_id": entry.pipeline_id,
        "seq": entry.seq,
        "at": entry.at,
        "level": level,
        "level_tone": _LEVEL_TONES[level],
        "actor": actor,
        "actor_tone": _TONES.get(actor, "idle"),
        "agent_id": "" if entry.actor in _PLAIN_ACTORS else entry.actor,
        "kind": entry.kind.value,
        "name": name,
        "group": group_of(entry.kind),
        "message": message.removeprefix(name).lstrip(" :") or message,  # the kind has a column of its own
    }


def group_of(kind: Kind) -> Group:
    """What a kind of entry tells of."""
    if kind in _SAID:
        return "said"
    if kind in _GOVERNANCE:
        return "governance"
    return "turns" if kind in {Kind.TURN_BEGUN, Kind.TURN_ENDED} else "course"
