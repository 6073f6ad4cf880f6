"""The report, and whether the pipeline may go on from it."""

from collections.abc import Mapping
from typing import Any

from trilogue.dashboard.parts.result import is_long
from trilogue.dashboard.scene import Scene
from trilogue.pipeline import Status


def shown(scene: Scene) -> Mapping[str, Any]:
    board = scene.story.board
    if board.report is None:
        return {"report": None, "why": _why_not(board.status)}
    body, going = board.report, board.report["continuation"]
    return {
        "report": {
            "markdown": body["markdown"],
            "long": is_long(body["markdown"]),
            "findings": body["findings"],
            "complexity": f"{body['complexity']:.2f}",
            "tone": "fine" if going["auto"] else "held" if going["eligible"] else "bad",
            "verdict": "went on by itself" if going["auto"] else "held" if going["eligible"] else "cannot go on",
            "reasons": going["reasons"],
        }
    }


def _why_not(status: Status) -> str:
    if status.ended:
        return "There is no report: the pipeline ended before its findings were joined."
    return "No report yet: it joins what ALPHA and BETA find."
