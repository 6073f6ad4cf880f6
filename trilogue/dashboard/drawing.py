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
    moments,
    report,
    result,
    stepper,
    timeline,
)
from trilogue.dashboard.rendering import render
from trilogue.dashboard.scene import Scene
from trilogue.entry import Entry

PARTS: Mapping[str, Callable[[Scene], Mapping[str, Any]]] = {
    "objective": masthead.objective,
    "masthead": masthead.shown,
    "given": masthead.given,
    "actions": masthead.actions,
    "stepper": stepper.shown,
    "moments": moments.shown,
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


SLOW = frozenset({"timeline", "moments"})
"""Parts that every entry changes, and that are the most to send: once a second is often enough for them."""


def draw(scene: Scene, *, slow: bool = True) -> dict[str, str]:
    """The HTML of every part, or of those that are not `SLOW`. The text of running turns is told as it comes."""
    return {name: draw_part(name, scene) for name in PARTS if slow or name not in SLOW}


def draw_part(name: str, scene: Scene) -> str:
    """The HTML of one of `PARTS`."""
    return render(f"parts/{_TEMPLATES.get(name, name)}.html", {**PARTS[name](scene), "scene": scene})


def log_row(board: Board, entry: Entry) -> str:
    """One row of the log, on the board that `entry` was just applied to."""
    return render("parts/log_row.html", log.row(board, entry))
