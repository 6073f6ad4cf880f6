"""A moment of a pipeline as HTML: each part of its page by itself, and the rows of its log."""

from collections.abc import Callable, Mapping
from typing import Any

from trilogue.board import Board
from trilogue.dashboard.parts import (
    budgets,
    checkpoints,
    lanes,
    log,
    masthead,
    middle,
    report,
    result,
    stepper,
    timeline,
)
from trilogue.dashboard.rendering import render
from trilogue.dashboard.scene import Scene
from trilogue.entry import Entry

PARTS: Mapping[str, Callable[[Scene], Mapping[str, Any]]] = {
    "masthead": masthead.shown,
    "actions": masthead.actions,
    "stepper": stepper.shown,
    "alpha": lanes.alpha,
    "middle": middle.shown,
    "beta": lanes.beta,
    "timeline": timeline.shown,
    "budgets": budgets.shown,
    "result": result.shown,
    "report": report.shown,
    "checkpoints": checkpoints.shown,
}
"""What each part of the page shows; the template of the same name below `templates/parts/` says how."""

_TEMPLATES = {"alpha": "lane", "beta": "lane"}


def draw(scene: Scene) -> dict[str, str]:
    """The HTML of every part. The text of running turns is not in it: that is told as it comes."""
    return {name: _drawn(name, {**shown(scene), "scene": scene}) for name, shown in PARTS.items()}


def _drawn(name: str, context: Mapping[str, Any]) -> str:
    return render(f"parts/{_TEMPLATES.get(name, name)}.html", context)


def log_row(board: Board, entry: Entry) -> str:
    """One row of the log, on the board that `entry` was just applied to."""
    return render("parts/log_row.html", log.row(board, entry))
