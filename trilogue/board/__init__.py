"""The blackboard: `Board = fold(entries)`, the same code live, on resume and for replay up to any `seq`."""

from trilogue.board.folding import apply, fold
from trilogue.board.items import (
    Agent,
    Finding,
    Mediation,
    OpenTurn,
    Proposal,
    Revision,
    Ruling,
    Solution,
    Subtask,
    Vote,
)
from trilogue.board.state import Board

__all__ = [
    "Agent",
    "Board",
    "Finding",
    "Mediation",
    "OpenTurn",
    "Proposal",
    "Revision",
    "Ruling",
    "Solution",
    "Subtask",
    "Vote",
    "apply",
    "fold",
]
