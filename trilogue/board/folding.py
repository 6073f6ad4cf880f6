"""Entries into a board: what each kind of entry changes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from trilogue.board import conduct, said
from trilogue.board.items import (
    Mediation,
    PhaseSpan,
    Round,
)
from trilogue.board.state import Board
from trilogue.clock import Micros
from trilogue.entry import NEWS, Entry, Kind
from trilogue.pipeline import Phase, Status

Body = Mapping[str, Any]


def fold(entries: Iterable[Entry]) -> Board:
    """The board that `entries`, from the pipeline's first one on, come to."""
    board = Board()
    for entry in entries:
        apply(board, entry)
    return board


def apply(board: Board, entry: Entry) -> None:
    """Advance `board` by the next entry. Raises `ValueError` when it does not follow."""
    if entry.seq != board.seq + 1:
        raise ValueError(f"entry {entry.seq} does not follow {board.seq} on the board of {entry.pipeline_id}")
    board.seq, board.at, board.attempt = entry.seq, entry.at, entry.attempt
    if fold_one := _FOLDS.get(entry.kind):
        fold_one(board, entry, entry.body)
    if entry.kind in NEWS:
        board.last_news[entry.actor] = entry.seq


def _spawned(board: Board, entry: Entry, body: Body) -> None:
    board.spec = body
    board.max_tokens, board.max_nanousd = body.get("max_tokens"), body.get("max_cost_nanousd")
    board.phases = (PhaseSpan(phase=Phase.SPAWN, started_at=entry.at),)


def _context(board: Board, _: Entry, body: Body) -> None:
    board.contexts[body["name"]] = body["text"]


def _phase(board: Board, entry: Entry, body: Body) -> None:
    _close_phase(board, entry.at)
    board.phases = (*board.phases, PhaseSpan(phase=Phase(body["phase"]), started_at=entry.at))


def _close_phase(board: Board, at: Micros) -> None:
    if board.phases and board.phases[-1].ended_at is None:
        board.phases = (*board.phases[:-1], replace(board.phases[-1], ended_at=at))


def _status(board: Board, entry: Entry, body: Body) -> None:
    board.status = Status(body["status"])
    error = body.get("error")
    board.error = {**error, "at": entry.at} if error else None
    if board.status.ended:
        _close_phase(board, entry.at)


def _round(board: Board, entry: Entry, body: Body) -> None:
    board.round = Round(
        number=body["round"],
        mode=body["mode"],
        rehearsal=body["rehearsal"],
        models=body["models"],
        started_at=entry.at,
        deadline=body["deadline"],
        timeout=body["timeout"],
    )
    board.last_progress = entry.at
    board.replacements.clear()
    _raise_limits(board, body)
    for agent in board.agents.values():
        model = body["models"].get(agent.role.value, agent.model)
        conduct.change(board, agent.agent_id, model=model, turns=0, seen=-1, **_ERRORS_ANEW)


def _raise_limits(board: Board, body: Body) -> None:
    board.max_tokens = body.get("max_tokens", board.max_tokens)
    board.max_nanousd = body.get("max_cost_nanousd", board.max_nanousd)


_ERRORS_ANEW: Mapping[str, Any] = {
    "faults": (),
    "violations": 0,
    "outages": 0,
    "complaints": (),
    "endpoint_fault": None,
    "refused": None,
    "out_of_budget": None,
}


def _resumed(board: Board, _: Entry, body: Body) -> None:
    if board.round and body["deadline"]:
        board.round = replace(board.round, deadline=body["deadline"])
    board.replacements.clear()
    _raise_limits(board, body)
    for agent in board.agents.values():
        conduct.change(board, agent.agent_id, **_ERRORS_ANEW)


def _guidance(board: Board, _: Entry, body: Body) -> None:
    board.guidance = (*board.guidance, body["text"])


def _mediation_started(board: Board, _: Entry, body: Body) -> None:
    mediation = Mediation(
        number=body["mediation"],
        trigger=body["trigger"],
        evidence=body["evidence"],
        round=board.round.number if board.round else 0,
    )
    board.mediations = (*board.mediations, mediation)


def _mediation_ended(board: Board, entry: Entry, body: Body) -> None:
    board.mediations = tuple(
        replace(m, outcome=body["outcome"]) if m.number == body["mediation"] else m for m in board.mediations
    )
    board.last_mediation = entry.at


def _handoff(board: Board, _: Entry, body: Body) -> None:
    board.handoffs = (*board.handoffs, body)


def _failure(board: Board, _: Entry, body: Body) -> None:
    board.failures = (*board.failures, body)


def _report(board: Board, _: Entry, body: Body) -> None:
    board.report = body


def _consensus(board: Board, _: Entry, body: Body) -> None:
    board.consensus = body


def _checkpoint(board: Board, _: Entry, body: Body) -> None:
    board.snapshots[body["to_seq"]] = board.forked()
    board.checkpoints = (*board.checkpoints, body["name"])


_NEVER_REWOUND = (
    "seq",
    "at",
    "attempt",
    "spending",
    "max_tokens",
    "max_nanousd",
    "turns",
    "turns_of",
    "errors_of",
    "checkpoints",
    "ids",
    "snapshots",
)
"""What was spent, counted and given out stays, wherever the pipeline goes on from."""


def _rewound(board: Board, _: Entry, body: Body) -> None:
    former = board.snapshots[body["to_seq"]].forked()
    for name, value in vars(former).items():
        if name not in _NEVER_REWOUND:
            setattr(board, name, value)
    board.open_turns = {}


_FOLDS: Mapping[Kind, Callable[[Board, Entry, Body], None]] = {
    **conduct.FOLDS,
    **said.FOLDS,
    Kind.PIPELINE_SPAWNED: _spawned,
    Kind.CONTEXT: _context,
    Kind.PHASE_STARTED: _phase,
    Kind.STATUS: _status,
    Kind.ROUND_STARTED: _round,
    Kind.RESUMED: _resumed,
    Kind.GUIDANCE: _guidance,
    Kind.MEDIATION_STARTED: _mediation_started,
    Kind.MEDIATION_ENDED: _mediation_ended,
    Kind.HANDOFF: _handoff,
    Kind.FAILURE: _failure,
    Kind.REPORT: _report,
    Kind.CONSENSUS: _consensus,
    Kind.CHECKPOINT: _checkpoint,
    Kind.REWOUND: _rewound,
}
