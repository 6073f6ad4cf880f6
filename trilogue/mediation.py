"""When GAMMA joins: STUCK, CONFLICT or COMPLEXITY, decided from a board, a time and thresholds.

**The complexity score** (0…1) is `0.8 · mean(agents' ratings) + 0.2 · measure(objective)`.
The agents have read the objective and its sources, so their ratings weigh four fifths; the
measure of the text keeps a pair of agents that rates everything alike from deciding alone
near the threshold. Without any rating the measure stands by itself.

**The measure of an objective** (0…1) joins two counts of its text, because both lengthen a
negotiation and neither depends on the language model: its *demands* (list items, sentences,
questions, and clauses joined by "and", "or", ";" or ","), 12 of which count as full; and its
*length*, of which 300 words count as full. Demands weigh 0.7, length 0.3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from trilogue.agent import NEGOTIATORS
from trilogue.board import Agent, Board
from trilogue.clock import SECOND, Micros, seconds

_RATINGS_WEIGH = 0.8
_DEMANDS_WEIGH = 0.7
_FULL_DEMANDS = 12
_FULL_WORDS = 300
_DEMAND = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+|[.?!;:,](?=\s|$)|\b(?:and|or|und|et|y)\b", re.IGNORECASE | re.MULTILINE)


class Trigger(StrEnum):
    """Why GAMMA is called."""

    STUCK = "STUCK"
    CONFLICT = "CONFLICT"
    COMPLEXITY = "COMPLEXITY"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a trigger strikes. `stuck` is seconds; `conflict` unresolved proposals; `complexity` a score."""

    stuck: float
    conflict: int
    complexity: float
    turn_limit: int


@dataclass(frozen=True, kw_only=True)
class Due:
    """A trigger that has struck, with what shows it."""

    trigger: Trigger
    evidence: Mapping[str, Any]


def measure(objective: str) -> float:
    """The documented measure of an objective's text, 0…1 (module docstring)."""
    demands = min(1.0, (1 + len(_DEMAND.findall(objective.strip().rstrip(".?!")))) / _FULL_DEMANDS)
    length = min(1.0, len(objective.split()) / _FULL_WORDS)
    return round(_DEMANDS_WEIGH * demands + (1 - _DEMANDS_WEIGH) * length, 4)


def complexity(board: Board) -> float:
    """The complexity score of the pipeline, 0…1 (module docstring)."""
    measured = measure(board.spec.get("objective", ""))
    ratings = _ratings(board)
    if not ratings:
        return measured
    return round(_RATINGS_WEIGH * fmean(ratings.values()) + (1 - _RATINGS_WEIGH) * measured, 4)


def _ratings(board: Board) -> dict[str, float]:
    """Each agent's own rating: the mean over its findings, so that a talkative agent weighs no more."""
    by_agent: dict[str, list[float]] = {}
    for finding in board.findings.values():
        by_agent.setdefault(finding.author, []).append(finding.complexity)
    return {author: round(fmean(values), 4) for author, values in by_agent.items()}


def out_of_turns(agent: Agent, turn_limit: int) -> bool:
    """Whether the agent may begin no other turn in this round, by the limit or by its budget."""
    return agent.turns >= turn_limit or agent.out_of_budget is not None


def exhausted(board: Board, turn_limit: int) -> bool:
    """Whether no voter has a turn left in this round."""
    return all(out_of_turns(agent, turn_limit) for agent in board.voters())


def all_waiting(board: Board, turn_limit: int) -> bool:
    """Whether every voter waits, or has used up its turns without one under way."""
    return all(
        board.waiting(agent) or (out_of_turns(agent, turn_limit) and not board.turn_of(agent.agent_id))
        for agent in board.voters()
    )


def quiet_since(board: Board) -> Micros:
    """Since when nothing has moved; time under mediation does not count."""
    return max(board.last_progress, board.last_mediation)


def stuck_at(board: Board, thresholds: Thresholds) -> Micros:
    """When STUCK strikes by the clock if nothing moves until then."""
    return quiet_since(board) + seconds(thresholds.stuck)


def due(board: Board, now: Micros, thresholds: Thresholds) -> Due | None:
    """The trigger that has struck; None while one is at work, was used in this round, or the round is decided."""
    if board.round is None or board.mediation() or board.ruling() or not board.voters():
        return None
    used = {mediation.trigger for mediation in board.round_mediations()}
    checks = (
        (Trigger.COMPLEXITY, _complexity_evidence(board, thresholds)),
        (Trigger.CONFLICT, _conflict_evidence(board, thresholds)),
        (Trigger.STUCK, _stuck_evidence(board, now, thresholds)),
    )
    return next((Due(trigger=t, evidence=e) for t, e in checks if e is not None and t not in used), None)


def _complexity_evidence(board: Board, thresholds: Thresholds) -> dict[str, Any] | None:
    score = complexity(board)
    if score <= thresholds.complexity:
        return None
    return {
        "score": score,
        "threshold": thresholds.complexity,
        "ratings": _ratings(board),
        "measure": measure(board.spec.get("objective", "")),
    }


def _conflict_evidence(board: Board, thresholds: Thresholds) -> dict[str, Any] | None:
    if len(board.voters()) < len(NEGOTIATORS):
        return None
    if len(rivals := board.decided()) > 1:
        return {"agreed_at_once": [proposal.id for proposal in rivals]}
    unresolved = board.unresolved()
    if board.agreed() or len(unresolved) < thresholds.conflict:
        return None
    return {"unresolved": [proposal.id for proposal in unresolved], "threshold": thresholds.conflict}


def _stuck_evidence(board: Board, now: Micros, thresholds: Thresholds) -> dict[str, Any] | None:
    if board.agreed() or exhausted(board, thresholds.turn_limit):
        return None
    quiet = now - quiet_since(board)
    if all_waiting(board, thresholds.turn_limit):
        return {"all_waiting": True, "seconds_without_progress": round(quiet / SECOND, 1)}
    if now < stuck_at(board, thresholds):
        return None
    return {
        "all_waiting": False,
        "seconds_without_progress": round(quiet / SECOND, 1),
        "threshold": thresholds.stuck,
    }
