"""What agents say, as it comes to lie on the board."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trilogue.agent import Role
from trilogue.board.items import (
    Critique,
    Finding,
    Message,
    Proposal,
    Revision,
    Ruling,
    Solution,
    Subtask,
    Vote,
)
from trilogue.board.state import Board
from trilogue.entry import Entry, Kind

Body = Mapping[str, Any]


def _given(board: Board, letter: str) -> None:
    board.ids[letter] = board.ids.get(letter, 0) + 1


def _finding(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "f")
    board.findings[body["id"]] = Finding(
        id=body["id"],
        author=entry.actor,
        title=body["title"],
        text=body["text"],
        evidence=body["evidence"],
        confidence=body["confidence"],
        complexity=body["complexity"],
    )


def _proposal(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "p")
    first = Revision(number=1, title=body["title"], text=body["text"], seq=entry.seq)
    number = board.round.number if board.round else 0
    board.proposals[body["id"]] = Proposal(id=body["id"], author=entry.actor, round=number, revisions=(first,))
    board.last_progress = entry.at


def _revision(board: Board, entry: Entry, body: Body) -> None:
    proposal = board.proposals[body["proposal"]]
    revision = Revision(number=body["revision"], title=body["title"], text=body["text"], seq=entry.seq)
    board.proposals[proposal.id] = replace(proposal, revisions=(*proposal.revisions, revision))
    board.last_progress = entry.at


def _critique(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "c")
    critique = Critique(
        id=body["id"],
        author=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        text=body["text"],
        seq=entry.seq,
    )
    board.critiques = (*board.critiques, critique)


def _vote(board: Board, entry: Entry, body: Body) -> None:
    key = (body["proposal"], entry.actor)
    former = board.votes.get(key)
    board.votes[key] = Vote(
        voter=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        verdict=body["verdict"],
        reason=body["reason"],
        seq=entry.seq,
    )
    if former is None or former.verdict != body["verdict"]:
        board.last_progress = entry.at


def _message(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "m")
    message = Message(id=body["id"], sender=entry.actor, to=body["to"], content=body["content"], seq=entry.seq)
    board.messages = (*board.messages, message)


def _solution(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "x")
    board.solutions[body["id"]] = Solution(
        id=body["id"],
        author=entry.actor,
        round=board.round.number if board.round else 0,
        title=body["title"],
        text=body["text"],
        subtask=body["subtask"],
    )
    board.last_progress = entry.at


def _subtask(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "s")
    board.subtasks[body["id"]] = Subtask(
        id=body["id"],
        title=body["title"],
        text=body["text"],
        assignee=Role(body["assignee"]),
        author=entry.actor,
    )


def _ruling(board: Board, entry: Entry, body: Body) -> None:
    ruling = Ruling(
        mediation=body["mediation"],
        trigger=body["trigger"],
        author=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        outcome=body["outcome"],
        title=body["title"],
        text=body["text"],
        reason=body["reason"],
        round=board.round.number if board.round else 0,
        seq=entry.seq,
    )
    board.rulings = (*board.rulings, ruling)


FOLDS: Mapping[Kind, Callable[[Board, Entry, Body], None]] = {
    Kind.FINDING: _finding,
    Kind.PROPOSAL: _proposal,
    Kind.REVISION: _revision,
    Kind.CRITIQUE: _critique,
    Kind.VOTE: _vote,
    Kind.MESSAGE: _message,
    Kind.SOLUTION: _solution,
    Kind.SUBTASK: _subtask,
    Kind.RULING: _ruling,
}
