"""Entries into the fields of the board's hashes: pure, and the same in whatever portions they come.

Every value is JSON, so that numbers stay numbers and text may be anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trilogue.entry import Entry, Kind
from trilogue.live import keys
from trilogue.live.notice import dumps
from trilogue.pipeline import Phase, Status

STATE, PROPOSALS, SOLUTIONS, VOTES, CONSENSUS, FAILURES = range(6)
"""Places of the hashes in `PipelineKeys.board`."""
HASHES = ("state", "proposals", "solutions", "votes", "consensus", "failures")

OBJECTIVE_SHOWN = 500
"""Characters of the objective on the board; the whole of it is in the ledger."""

Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What some consecutive entries change.

    Attributes:
        hashes: per hash of the board, the fields to set.
        ended_turns: fields of the hash `turns`, whose text is no longer wanted.
    """

    hashes: tuple[Fields, ...] = field(default_factory=lambda: tuple({} for _ in HASHES))
    ended_turns: list[str] = field(default_factory=list)


def project(entries: Iterable[Entry]) -> Projection:
    """The changes that `entries` make together; a later one overwrites an earlier one."""
    projection = Projection()
    for entry in entries:
        _project(projection, entry)
    return projection


def standing(entries: Iterable[Entry]) -> set[int]:
    """The `seq` of those entries, from a pipeline's first one on, that no rewinding has undone."""
    alive: list[int] = []
    kept: dict[int, list[int]] = {}
    for entry in entries:
        if entry.kind is Kind.REWOUND:
            alive = list(kept[entry.body["to_seq"]])
        if entry.kind is Kind.CHECKPOINT:
            kept[entry.body["to_seq"]] = list(alive)
        alive.append(entry.seq)
    return set(alive)


def _project(projection: Projection, entry: Entry) -> None:
    hashes, body = projection.hashes, entry.body
    state: dict[str, Any] = {"seq": entry.seq, "attempt": entry.attempt, "updated_at": entry.at}
    match entry.kind:
        case Kind.PIPELINE_SPAWNED:
            state |= _spawned(entry)
        case Kind.PHASE_STARTED:
            state["phase"] = body.get("phase")
        case Kind.STATUS:
            state |= {"status": body.get("status"), "error": body.get("error")}
        case Kind.REWOUND:
            state |= {name: body[name] for name in ("status", "error", "phase", "round")}
        case Kind.ROUND_STARTED:
            state |= {name: body[name] for name in ("round", "mode", "model") if body.get(name) is not None}
        case Kind.PROPOSAL:
            hashes[PROPOSALS][str(body["id"])] = _revision(entry, proposal=body["id"], revision=1)
        case Kind.REVISION:
            proposal, revision = body["proposal"], body["revision"]
            hashes[PROPOSALS][str(proposal)] = _revision(entry, proposal=proposal, revision=revision)
        case Kind.SOLUTION:
            shown = {name: body.get(name) for name in ("id", "title", "text", "subtask")}
            hashes[SOLUTIONS][str(body["id"])] = dumps(shown | {"author": entry.actor})
        case Kind.VOTE:
            shown = {name: body.get(name) for name in ("revision", "verdict", "reason")}
            hashes[VOTES][f"{body['proposal']}/{entry.actor}"] = dumps(shown)
        case Kind.CONSENSUS:
            hashes[CONSENSUS].update(_fields(body))
        case Kind.FAILURE | Kind.VIOLATION | Kind.HANDOFF:
            told = {**body, "kind": entry.kind.value, "at": entry.at, "actor": entry.actor}
            hashes[FAILURES][str(entry.seq)] = dumps(told)
        case Kind.TURN_ENDED:
            projection.ended_turns.append(keys.of_turn(body["turn"], body["agent_id"]))
    hashes[STATE].update(_fields(state))


def _spawned(entry: Entry) -> dict[str, Any]:
    known = {name: entry.body[name] for name in ("mode", "model", "rehearsal") if name in entry.body}
    return known | {
        "objective": str(entry.body.get("objective", ""))[:OBJECTIVE_SHOWN],
        "status": Status.SPAWNED.value,
        "phase": Phase.SPAWN.value,
        "round": 0,
        "created_at": entry.at,
    }


def _revision(entry: Entry, *, proposal: str, revision: int) -> str:
    # Only its author may revise a proposal, so the actor of any revision is the author.
    shown = {"id": proposal, "revision": revision, "title": entry.body.get("title"), "text": entry.body.get("text")}
    return dumps(shown | {"author": entry.actor})


def _fields(values: Mapping[str, Any]) -> Fields:
    return {name: dumps(value) for name, value in values.items()}
