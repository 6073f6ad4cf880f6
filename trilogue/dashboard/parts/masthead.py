"""The head of the page: what was asked for, how it stands and what it took, and what a person may do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import Role
from trilogue.board import Board
from trilogue.clock import SECOND, Micros
from trilogue.dashboard.parts.budgets import Costs
from trilogue.dashboard.possible import possible
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.statuses import standing_in
from trilogue.dashboard.story import Story
from trilogue.entry import Kind
from trilogue.phases import model_of
from trilogue.pipeline import Status

LONG = 220
"""Characters from which an objective is shown in part at first."""
DOCUMENT_SHOWN = 2_000
"""Characters of a context document that the page has; all of it is in its entry."""
_LINES = 3


@dataclass(frozen=True, kw_only=True)
class Document:
    """A context document: its name, its size, its beginning, and the entry that has all of it."""

    name: str
    length: int
    start: str
    seq: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The last stop. `stillness` says how soon nobody acted any more; None while that is not so yet."""

    at: Micros
    reason: str
    stillness: str | None


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was spent so far; `unknown` where the cost of some call is, `estimated` where its tokens are."""

    nanousd: int
    unknown: bool
    tokens: int
    estimated: bool


def objective(scene: Scene) -> Mapping[str, Any]:
    """What was asked for; it never changes."""
    text = scene.row.objective.strip()
    return {"text": text, "long": len(text) > LONG or text.count("\n") >= _LINES}


def shown(scene: Scene) -> Mapping[str, Any]:
    """Status and facts, why it ended where it did not complete, and what can be done then."""
    board = scene.story.board
    standing = standing_in(scene)
    return {
        "standing": standing,
        "stop": _stop(scene) if board.status is Status.STOPPED else None,
        "error": None if board.status is Status.STOPPED else board.error,
        "next": _next(scene),
        "rehearsal": bool(board.round.rehearsal if board.round else board.spec["rehearsal"]),
        "mode": board.round.mode if board.round else board.spec["mode"],
        "models": _models(board),
        "labels": board.spec.get("labels", ()),
        "round": board.round.number if board.round else 0,
        "spent": _spent(scene.story),
        "ended_at": scene.story.ended_at,
    }


def given(scene: Scene) -> Mapping[str, Any]:
    """The context documents, and what a person said to the agents."""
    documents = [
        Document(
            name=entry.body["name"],
            length=len(entry.body["text"]),
            start=entry.body["text"][:DOCUMENT_SHOWN],
            seq=entry.seq,
        )
        for entry in scene.story.entries[: 1 + len(scene.story.board.contexts)]  # they are given with the objective
        if entry.kind is Kind.CONTEXT
    ]
    return {"documents": documents, "guidance": scene.story.board.guidance}


def actions(scene: Scene) -> Mapping[str, Any]:
    """Continue, Resume and Stop: why not, where not, and what their dialogs must know."""
    board = scene.story.board
    round_ = board.round
    return {
        "possible": possible(scene),
        "stopped": board.status is Status.STOPPED,
        "ended": board.status.ended,
        "next_round": round_.number + 1 if round_ else 1,
        "mode": round_.mode if round_ else board.spec["mode"],
        "model": ", ".join(_models(board)),
        "timeout": round_.timeout if round_ else board.spec["timeout"],
    }


def _models(board: Board) -> list[str]:
    """The models that answer, ALPHA's first; one name where they are the same."""
    return [name for name in dict.fromkeys(model_of(board, role) for role in Role) if name]


def _spent(story: Story) -> Spent:
    """The same sums as in the budgets, so that calls that were broken off are among them."""
    costs, charged = Costs.of(story.turns.values()), story.board.spending_in_all()
    return Spent(nanousd=costs.told, unknown=costs.untold > 0, tokens=charged.spent.tokens, estimated=charged.estimated)


def _stop(scene: Scene) -> Stop | None:
    entry = next((entry for entry in reversed(scene.story.entries) if entry.kind is Kind.STOPPED), None)
    if entry is None:
        return None
    still = scene.row.still_since if scene.row.status is Status.STOPPED else None
    stillness = None if still is None else _stillness(still - entry.at)
    return Stop(at=entry.at, reason=str(entry.body["reason"]), stillness=stillness)


def _stillness(after: Micros) -> str:
    return f"{after / SECOND:.2f} s later" if after > 0 else "at once"


def _next(scene: Scene) -> str | None:
    """What a person can do with a pipeline that does not go on by itself."""
    row, board = scene.row, scene.story.board
    if scene.replay or row.leased or row.queued_at is not None:
        return None
    may = possible(scene)
    if board.status is Status.REPORT and may.resume is not None:
        reasons = "; ".join(board.report["continuation"]["reasons"]) if board.report else ""
        return (
            f"It is held here ({reasons or 'as asked'}). Read the report, then continue it, with or without guidance."
        )
    if not board.status.ended:
        return None if may.resume else "Nobody works on it. Resume it, and a worker takes it up where it was."
    if may.continue_ is None:
        more = " with more tokens or money" if board.error and board.error["code"] == "budget_spent" else ""
        return f"Continue it{more}, and another round begins."
    return None if may.resume else "It can be resumed where it was."
