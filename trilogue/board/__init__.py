"""The blackboard: `Board = fold(entries)`, the same code live, on resume and for replay up to any `seq`."""

from trilogue.board.folding import apply, fold
from trilogue.board.items import (
    NOTHING,
    Agent,
    Amount,
    Finding,
    Mediation,
    OpenTurn,
    Proposal,
    Revision,
    Ruling,
    Solution,
    Spending,
    Subtask,
    Vote,
)
from trilogue.board.state import Board

__all__ = [
    "NOTHING",
    "Agent",
    "Amount",
    "Board",
    "Finding",
    "Mediation",
    "OpenTurn",
    "Proposal",
    "Revision",
    "Ruling",
    "Solution",
    "Spending",
    "Subtask",
    "Vote",
    "apply",
    "fold",
]
