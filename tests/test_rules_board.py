"""The board is what the entries come to, wherever one begins to read, and says who waits and what is unresolved."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import (
    PASS,
    START,
    WORD,
    MemoryRoom,
    Temper,
    carry,
    in_virtual_time,
    played,
    propose,
    random_model,
    revise,
    rules,
    say,
    scripted,
    spawn,
    vote,
)
from trilogue.board import NOTHING, Board, apply, fold
from trilogue.clock import seconds
from trilogue.entry import GENESIS, NEWS, Draft, Entry, Kind
from trilogue.ledger.chain import prepare, seal

ALPHA, BETA = "alpha-1", "beta-1"


class Book:
    """A pipeline's entries, written by hand; one second lies between two."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.add(Kind.PIPELINE_SPAWNED, objective="Design a caching strategy", models={})
        for agent, role in ((ALPHA, "ALPHA"), (BETA, "BETA")):
            self.add(Kind.AGENT_SPAWNED, agent_id=agent, role=role, tier=1, model="m", runtime="python")
        self.add(
            Kind.ROUND_STARTED,
            round=1,
            mode="local",
            rehearsal=False,
            models={},
            timeout=120,
            deadline=START + seconds(120),
            reason="",
        )

    @property
    def board(self) -> Board:
        return fold(self.entries)

    def add(self, kind: Kind, actor: str = "system", **body: Any) -> "Book":
        self.entries += seal(
            [prepare(Draft(kind=kind, actor=actor, body=body))],
            tenant="default",
            pipeline_id="p-test",
            attempt=1,
            at=START + seconds(len(self.entries)),
            after=len(self.entries),
            prev_hash=self.entries[-1].hash if self.entries else GENESIS,
        )
        return self

    def begin(self, agent: str) -> int:
        turn = self.board.turns + 1
        seen = len(self.entries)
        call = {"model": "m", "fallbacks": [], "max_tokens": 1, "reserved": NOTHING.as_json()}
        self.add(Kind.TURN_BEGUN, agent, turn=turn, agent_id=agent, phase="ORCHESTRATE", round=1, seen=seen, **call)
        return turn

    def end(self, turn: int, outcome: str = "acted") -> "Book":
        agent = self.board.open_turns[turn].agent_id
        error = {"code": "x", "message": "x", "fingerprint": "x"} if outcome in {"malformed", "endpoint"} else None
        books = {"reserved": NOTHING.as_json(), "settled": {**NOTHING.as_json(), "estimated": False}}
        return self.add(Kind.TURN_ENDED, agent, turn=turn, agent_id=agent, outcome=outcome, error=error, **books)

    def turn(self, agent: str) -> "Book":
        return self.end(self.begin(agent))

    def propose(self, agent: str, name: str) -> "Book":
        return self.add(Kind.PROPOSAL, agent, id=name, title=name, text=name)

    def vote(self, agent: str, name: str, verdict: str = "approve", revision: int = 1) -> "Book":
        return self.add(Kind.VOTE, agent, proposal=name, revision=revision, verdict=verdict, reason="")

    def waits(self, agent: str) -> bool:
        board = self.board
        return board.waiting(board.agents[agent])


@settings(deadline=20_000, max_examples=25)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_any_prefix_and_then_the_rest_is_the_whole(seed: int, share: float) -> None:
    async def run() -> MemoryRoom:
        model = random_model(Random(seed), Temper(malformed=0.1, faults=0.1))
        room = MemoryRoom(model, rules=rules(turn_limit=4))
        await spawn(room, context=[{"name": "a.md", "text": "a source"}])
        await carry(room)
        return room

    entries = in_virtual_time(run()).entries
    whole = fold(entries)
    cut = round(share * len(entries))
    board = fold(entries[:cut])
    for entry in entries[cut:]:
        apply(board, entry)
    assert board == whole
    assert board.seq == len(entries)


def test_an_entry_that_does_not_follow_is_refused_and_changes_nothing() -> None:
    entries = Book().propose(ALPHA, "p1").entries
    for wrong in (entries[-1], entries[0]):
        board = fold(entries[:-2])
        with pytest.raises(ValueError, match=f"{wrong.seq} does not follow {len(entries) - 2}"):
            apply(board, wrong)
        assert board == fold(entries[:-2])


BODIES: dict[Kind, dict[str, Any]] = {
    Kind.FINDING: {"id": "f1", "title": "t", "text": "t", "evidence": "", "confidence": 0.5, "complexity": 0.5},
    Kind.PROPOSAL: {"id": "p9", "title": "t", "text": "t"},
    Kind.CRITIQUE: {"id": "c1", "proposal": "p1", "revision": 1, "text": "t"},
    Kind.REVISION: {"proposal": "p1", "revision": 2, "title": "t", "text": "t"},
    Kind.VOTE: {"proposal": "p1", "revision": 1, "verdict": "approve", "reason": ""},
    Kind.SOLUTION: {"id": "x1", "title": "t", "text": "t", "subtask": None},
    Kind.MESSAGE: {"id": "m1", "to": "ALL", "content": "t"},
    Kind.SUBTASK: {"id": "s1", "title": "t", "text": "t", "assignee": "ALPHA"},
    Kind.HANDOFF: {"agent_id": BETA, "role": "BETA", "reason": "", "open_proposals": []},
    Kind.GUIDANCE: {"text": "mind the cost"},
    Kind.RULING: {
        "mediation": 1,
        "trigger": "CONFLICT",
        "proposal": "p1",
        "revision": 1,
        "outcome": "choose",
        "title": "t",
        "text": "t",
        "reason": "r",
    },
}


@pytest.mark.parametrize("kind", sorted(NEWS))
def test_an_agent_waits_until_somebody_else_has_news(kind: Kind) -> None:
    book = Book().propose(ALPHA, "p1").turn(ALPHA)
    assert book.waits(ALPHA)
    assert not book.waits(BETA)  # it has not acted in this round
    book.add(kind, ALPHA, **BODIES[kind])
    assert book.waits(ALPHA), "its own words woke it"
    somebody = {Kind.GUIDANCE: "person", Kind.HANDOFF: "system"}.get(kind, BETA)
    book.add(kind, somebody, **{**BODIES[kind], "id": "other"})
    assert not book.waits(ALPHA)
    assert book.turn(ALPHA).waits(ALPHA)


def test_talk_of_turns_and_of_status_wakes_nobody() -> None:
    book = Book().turn(ALPHA)
    book.turn(BETA).add(Kind.AGENT_STATUS, agent_id=BETA, status="RUNNING", reason="")
    book.add(Kind.FAILURE, agent_id=BETA, code="x", message="x")
    book.add(Kind.CHECKPOINT, name="x", to_seq=1, status="ORCHESTRATING", phase="ORCHESTRATE", round=1, details=None)
    assert book.waits(ALPHA)
    assert book.waits(BETA)


def test_who_is_at_work_or_whose_last_answer_was_no_use_does_not_wait() -> None:
    book = Book().turn(ALPHA)
    book.propose(BETA, "p1")
    turn = book.begin(ALPHA)
    assert not book.waits(ALPHA)
    assert not book.end(turn, "malformed").waits(ALPHA)
    assert not book.end(book.begin(ALPHA), "endpoint").waits(ALPHA)
    assert not book.end(book.begin(ALPHA), "lost").waits(ALPHA)
    assert book.turn(ALPHA).waits(ALPHA)


def unresolved(book: Book) -> list[str]:
    return [proposal.id for proposal in book.board.unresolved()]


def test_unresolved_is_what_every_other_voter_has_seen_and_not_agreed_to() -> None:
    book = Book().propose(ALPHA, "p1")
    assert unresolved(book) == []
    book.turn(ALPHA)
    assert unresolved(book) == [], "only its author has ended a turn"
    turn = book.begin(BETA)
    assert unresolved(book) == []
    assert unresolved(book.end(turn)) == ["p1"]
    book.vote(BETA, "p1")
    assert unresolved(book) == [], "it is agreed"
    book.add(Kind.REVISION, ALPHA, proposal="p1", revision=2, title="t", text="t")
    assert unresolved(book) == [], "nobody has seen its revision yet"
    assert unresolved(book.turn(BETA)) == ["p1"]


def test_a_turn_that_did_not_see_a_proposal_does_not_make_it_unresolved() -> None:
    book = Book()
    turn = book.begin(BETA)
    book.propose(ALPHA, "p1").end(turn)
    assert unresolved(book) == []
    assert unresolved(book.turn(BETA)) == ["p1"]


def test_a_mediators_proposal_needs_both_to_be_seen_and_to_be_agreed() -> None:
    book = Book().add(Kind.AGENT_SPAWNED, agent_id="gamma-1", role="GAMMA", tier=2, model="m", runtime="python")
    book.propose("gamma-1", "p1").turn(ALPHA)
    assert unresolved(book) == []
    assert unresolved(book.turn(BETA)) == ["p1"]
    assert not book.vote(ALPHA, "p1").board.agreed()
    assert [p.id for p in book.vote(BETA, "p1").board.agreed()] == ["p1"]


def test_an_authors_revision_resets_the_votes_and_an_old_vote_stays_without_effect() -> None:
    book = Book().propose(ALPHA, "p1").vote(BETA, "p1")
    assert book.board.decided()
    book.add(Kind.REVISION, ALPHA, proposal="p1", revision=2, title="t", text="t")
    assert not book.board.agreed()
    assert not book.vote(BETA, "p1", revision=1).board.agreed()
    assert book.vote(BETA, "p1", revision=2).board.agreed()
    assert not book.vote(BETA, "p1", "reject", revision=2).board.agreed()


def test_a_revoked_agent_neither_votes_nor_holds_up_and_its_replacement_must_vote_itself() -> None:
    book = Book().propose(ALPHA, "p1").vote(BETA, "p1")
    book.add(Kind.AGENT_STATUS, agent_id=BETA, status="REVOKED", reason="x")
    assert [agent.agent_id for agent in book.board.voters()] == [ALPHA]
    assert not book.board.agreed()
    book.add(Kind.AGENT_SPAWNED, agent_id="beta-2", role="BETA", tier=1, model="m", runtime="python")
    assert not book.board.agreed()
    assert book.vote("beta-2", "p1").board.agreed()


def test_progress_is_a_proposal_a_revision_a_solution_or_a_changed_vote() -> None:
    book = Book().propose(ALPHA, "p1")

    def moved(kind: Kind, actor: str, **body: Any) -> bool:
        before = book.board.last_progress
        return book.add(kind, actor, **{**BODIES[kind], **body}).board.last_progress > before

    assert not any(moved(kind, BETA) for kind in (Kind.MESSAGE, Kind.CRITIQUE, Kind.FINDING, Kind.SUBTASK))
    assert moved(Kind.VOTE, BETA, verdict="reject")
    assert not moved(Kind.VOTE, BETA, verdict="reject")
    assert moved(Kind.VOTE, BETA, verdict="approve")
    assert all(moved(kind, ALPHA) for kind in (Kind.PROPOSAL, Kind.REVISION, Kind.SOLUTION))


def test_what_was_noted_of_others_is_shown_by_role_and_a_revoked_agents_by_its_id() -> None:
    """Its replacement must not take its predecessor's proposals and votes for its own."""
    forbidden = {"action": "decompose", "subtasks": []}
    shown: list[str] = []
    model = scripted({"ALPHA": [say(propose("one")), say(forbidden)], "BETA": [say(WORD), say(PASS)]})

    def recorded(room: MemoryRoom, agent: Any, turn: Any, prompt: str, offer: Any) -> Any:
        shown.append(prompt)
        return model(room, agent, turn, prompt, offer)

    played(recorded)
    assert any('"proposals":[{"id":"p1","by":"ALPHA"' in prompt and '"alone"' not in prompt for prompt in shown)
    assert '"proposals":[{"id":"p1","by":"alpha-1"' in shown[-1]
    assert '"alone":true' in shown[-1]


def test_ids_of_what_two_agents_say_at_once_never_collide() -> None:
    lines = [say(propose("x"), propose("y"), WORD, after=1)] * 2
    board = played(scripted({"ALPHA": lines, "BETA": lines}), limits=rules(conflict=99)).board
    assert sorted(board.proposals) == [f"p{n}" for n in range(1, 9)]
    assert len({message.id for message in board.messages}) == len(board.messages)


def test_two_revisions_in_one_turn_are_two_numbers() -> None:
    lines = {"ALPHA": [say(propose("a")), say(revise("p1", "b"), revise("p1", "c"))], "BETA": [say(WORD), say(WORD)]}
    board = played(scripted({**lines, "BETA": [*lines["BETA"], say(vote("p1")), say(vote("p1"))]})).board
    assert [r.number for r in board.proposals["p1"].revisions] == [1, 2, 3]
