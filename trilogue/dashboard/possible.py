"""What a person may do with the pipeline of a page now, and where not, why: in a sentence.

The checks are the very ones that the services make when it is done. Two things would be taken and change nothing, so
they are not offered: to resume what waits for a worker already, or what is held at REPORT and would be held again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trilogue.board import Board
from trilogue.dashboard.scene import Scene
from trilogue.errors import IllegalTransition, TrilogueError
from trilogue.interventions import check_continuable, check_resumable, check_rewindable
from trilogue.ledger import PipelineRow
from trilogue.pipeline import Status, check_transition

_PAST = "This is the pipeline as it stood. Go back to the present to act."
_AT_WORK = "A worker acts for it; this can be done when it stands still."
_WAITS = "It waits for a worker already."
_NO_ROUND: Mapping[Status, str] = {
    Status.SPAWNED: "There is no report yet to go on from.",
    Status.RUNNING: "There is no report yet to go on from.",
    Status.ORCHESTRATING: "Its round goes on already.",
    Status.COMPLETED: "It has completed; start a new pipeline.",
    Status.FAILED: "It failed; it can be resumed.",
    Status.STOPPED: "It was stopped; it can be resumed.",
}


@dataclass(frozen=True, kw_only=True)
class Possible:
    """Why each thing cannot be done; None where it can."""

    continue_: str | None
    stop: str | None
    resume: str | None


def possible(scene: Scene) -> Possible:
    """What may be done with the pipeline of a page."""
    if scene.replay:
        return Possible(continue_=_PAST, stop=_PAST, resume=_PAST)
    row, board = scene.row, scene.story.board
    return Possible(continue_=_no_continue(row, board), stop=_no_stop(board), resume=_no_resume(row, board))


def no_rewind(scene: Scene, to_seq: int) -> str | None:
    """Why the pipeline cannot go on from its checkpoint at `to_seq`."""
    if scene.replay:
        return _PAST
    try:
        check_rewindable(scene.story.board, to_seq)
    except TrilogueError as error:
        return _sentence(error.message)
    return _AT_WORK if scene.row.leased else None


def _no_continue(row: PipelineRow, board: Board) -> str | None:
    try:
        check_continuable(board)
    except IllegalTransition:
        return _NO_ROUND[board.status]
    except TrilogueError as error:
        return _sentence(error.message)
    return _AT_WORK if row.leased else None


def _no_stop(board: Board) -> str | None:
    try:
        check_transition(board.status, Status.STOPPED)
    except IllegalTransition:
        return "It has ended; there is nothing to stop."
    return None


def _no_resume(row: PipelineRow, board: Board) -> str | None:
    if not board.status.ended:
        if row.leased:
            return "A worker acts for it already."
        if row.queued_at is not None:
            return _WAITS
        return "It is held at REPORT; continue it." if _held(board) else None
    try:
        check_resumable(board, "a reason is asked for")
    except TrilogueError:
        why = "It has completed; start a new pipeline."
        return "It has ended without being stopped; continue it." if board.status.continuable else why
    return _AT_WORK if row.leased else None


def _held(board: Board) -> bool:
    """Whether a worker that took it up would leave it where it is."""
    return board.status is Status.REPORT and board.report is not None and not board.report["continuation"]["auto"]


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:].rstrip('.')}."
