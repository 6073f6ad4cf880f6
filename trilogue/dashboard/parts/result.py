"""The agreed text: what it says, who decided it and who dissented; without one, why, and what there is."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from trilogue.board import Board, Proposal
from trilogue.dashboard.scene import Scene
from trilogue.pipeline import Status

MOST_SHOWN: Final = 12
"""Proposals that were not agreed, and solutions, subtasks: the latest of each."""

_T = TypeVar("_T")

_LONG = 1_400
_MANY_LINES = 24
_VERDICTS: Mapping[str, tuple[str, str]] = {
    "approve": ("approves", "fine"),
    "reject": ("rejects", "bad"),
    "none": ("did not vote", "idle"),
}
_NOT_YET: Mapping[Status, str] = {
    Status.SPAWNED: "the pipeline waits for a worker",
    Status.RUNNING: "ALPHA and BETA research, each alone",
    Status.REPORT: "the negotiation has not begun",
}


def shown(scene: Scene) -> Mapping[str, Any]:
    board = scene.story.board
    return {
        "agreed": _agreed(board, board.consensus) if board.consensus else None,
        "why": None if board.consensus else _why_not(board),
        "ended": board.status.ended,
        "rehearsal": bool(board.spec.get("rehearsal") or (board.round and board.round.rehearsal)),
        "proposals": [] if board.consensus else [_proposal(board, p) for p in _latest(board.proposals)],
        "subtasks": _subtasks(board),
        "solutions": [
            {
                "id": solution.id,
                "by": board.role_of(solution.author),
                "title": solution.title,
                "text": solution.text,
                "subtask": solution.subtask,
            }
            for solution in _latest(board.solutions)
        ],
        "left_out": {
            "proposals": 0 if board.consensus else _left_out(board.proposals),
            "subtasks": _left_out(board.subtasks),
            "solutions": _left_out(board.solutions),
        },
    }


def is_long(text: str) -> bool:
    """Whether a text takes so much room that it is shown in a box of its own."""
    return len(text) > _LONG or text.count("\n") > _MANY_LINES


def _agreed(board: Board, consensus: Mapping[str, Any]) -> Mapping[str, Any]:
    by, _, reason = str(consensus["decided_by"]).partition(": ")
    ruled = by.startswith("ruling of ")
    return {
        "id": consensus["proposal_id"],
        "revision": consensus["revision"],
        "title": consensus["title"],
        "text": consensus["text"],
        "long": is_long(consensus["text"]),
        "uncontested": consensus["uncontested"],
        "ruled_by": board.role_of(by.removeprefix("ruling of ")) if ruled else None,
        "reason": reason if ruled else "",
        "votes": [
            {"by": board.role_of(vote["voter"]), "reason": vote["reason"], **_verdict(vote["verdict"])}
            for vote in consensus["votes"]
        ],
        "dissent": [{"by": board.role_of(item["voter"]), "reason": item["reason"]} for item in consensus["dissent"]],
    }


def _verdict(verdict: str) -> Mapping[str, str]:
    word, tone = _VERDICTS.get(verdict, (verdict, "idle"))
    return {"word": word, "tone": tone}


def _why_not(board: Board) -> str:
    if not board.status.ended:
        why = _NOT_YET.get(board.status) or _negotiating(board)
        return f"Nothing is agreed yet: {why}."
    why = str(board.error["message"]).rstrip(".") if board.error else "the pipeline ended without it"
    return f"There is no agreed text: {why}."


def _negotiating(board: Board) -> str:
    many, open_ = len(board.proposals), len(board.unresolved())
    if not many:
        return "nothing is proposed"
    proposals = "1 proposal is" if many == 1 else f"{many} proposals are"
    return f"{proposals} on the board" + (f", {open_} unresolved" if open_ else "")


def _proposal(board: Board, proposal: Proposal) -> Mapping[str, Any]:
    return {
        "id": proposal.id,
        "by": board.role_of(proposal.author),
        "title": proposal.latest.title,
        "revision": proposal.latest.number,
    }


def _subtasks(board: Board) -> Sequence[Mapping[str, Any]]:
    open_ = {task.id for task in board.open_subtasks()}
    return [
        {"id": task.id, "for": task.assignee.value, "title": task.title, "solved": task.id not in open_}
        for task in _latest(board.subtasks)
    ]


def _latest(things: Mapping[str, _T]) -> list[_T]:
    return list(things.values())[-MOST_SHOWN:]


def _left_out(things: Mapping[str, Any]) -> int:
    return max(0, len(things) - MOST_SHOWN)
