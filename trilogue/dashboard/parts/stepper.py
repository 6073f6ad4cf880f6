"""The five phases with their times, and where the pipeline is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.board import Board
from trilogue.clock import Micros
from trilogue.dashboard.scene import Scene
from trilogue.pipeline import Phase, Status

_ABOUT = {
    Phase.SPAWN: "agents and mandates",
    Phase.RUN: "both research, alone",
    Phase.REPORT: "findings joined",
    Phase.ORCHESTRATE: "they negotiate",
    Phase.COMPLETE: "agreed, on record",
}
_TONES = {
    Status.TIMEOUT: "held",
    Status.ORCHESTRATION_FAILED: "bad",
    Status.ORCHESTRATION_ERROR: "bad",
    Status.FAILED: "bad",
    Status.STOPPED: "stopped",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One phase.

    Attributes:
        state: `done`, `now`, `held`, `broken` (the pipeline ended there) or `ahead`.
        tone: its status class.
        took: how long all its times took together, in microseconds; None while it is under way or ahead.
        since: when it began, while it is under way.
        times: how often it was entered.
    """

    phase: Phase
    about: str
    state: str
    tone: str
    took: Micros | None
    since: Micros | None
    times: int


def shown(scene: Scene) -> Mapping[str, Any]:
    """`steps`, and the round's deadline while it runs."""
    board = scene.story.board
    deadline = board.round.deadline if board.round and board.status is Status.ORCHESTRATING and scene.live else None
    return {"steps": [_step(board, phase, live=scene.live) for phase in Phase], "deadline": deadline}


def _step(board: Board, phase: Phase, *, live: bool) -> Step:
    spans = [span for span in board.phases if span.phase is phase]
    ended = [span.ended_at - span.started_at for span in spans if span.ended_at is not None]
    here = bool(spans) and board.phase is phase
    state, tone = _state(board, phase, here=here, been=bool(spans))
    running = here and state in {"now", "held"} and live
    return Step(
        phase=phase,
        about=_ABOUT[phase],
        state=state,
        tone=tone,
        took=sum(ended) if ended and not running else None,
        since=spans[-1].started_at if running else None,
        times=len(spans),
    )


def _state(board: Board, phase: Phase, *, here: bool, been: bool) -> tuple[str, str]:
    if not here:
        return ("done", "fine") if been else ("ahead", "idle")
    if board.status in _TONES:
        return "broken", _TONES[board.status]
    if board.status is Status.COMPLETED:
        return "done", "fine"
    if phase is Phase.REPORT and board.report and not board.report["continuation"]["auto"]:
        return "held", "held"
    return "now", "busy"
