"""The mediator joins when, and only when, its triggers say so, does its one thing, and leaves."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rooms import PASS, START, WORD, played, propose, rules, say, scripted, solve, vote
from tests.test_rules_board import ALPHA, BETA, Book
from trilogue.actions import ActionKind
from trilogue.agent import TIER_OF, Mandate, Role, Tier
from trilogue.clock import seconds
from trilogue.entry import Kind
from trilogue.governance.policy import granted, permitted
from trilogue.mediation import Thresholds, Trigger, complexity, due, measure
from trilogue.pipeline import Phase

LIMITS = Thresholds(stuck=30, conflict=3, complexity=0.8, turn_limit=12)


def struck(book: Book, *, after: float = 0.0, limits: Thresholds = LIMITS) -> Trigger | None:
    """The trigger that has struck so many seconds after the book's last entry."""
    found = due(book.board, book.board.at + seconds(after), limits)
    return found.trigger if found else None


def mediation(book: Book, trigger: Trigger, *, ended: bool = True) -> Book:
    number = len(book.board.mediations) + 1
    book.add(Kind.MEDIATION_STARTED, mediation=number, trigger=trigger.value, evidence={})
    if ended:
        book.add(Kind.MEDIATION_ENDED, mediation=number, trigger=trigger.value, outcome="done")
    return book


def disputed(count: int) -> Book:
    book = Book()
    for number in range(count):
        book.propose((ALPHA, BETA)[number % 2], f"p{number + 1}")
    return book.turn(ALPHA).turn(BETA).add(Kind.MESSAGE, ALPHA, id="m1", to="ALL", content="x")


def test_stuck_strikes_at_the_threshold_after_the_last_progress_and_not_before() -> None:
    book = Book().propose(ALPHA, "p1")
    assert struck(book, after=29.999) is None
    assert struck(book, after=30) is Trigger.STUCK
    book.add(Kind.MESSAGE, BETA, id="m1", to="ALL", content="talk is no progress")
    assert struck(book, after=28.9) is None
    assert struck(book, after=29) is Trigger.STUCK


def test_stuck_strikes_at_once_when_everybody_waits() -> None:
    book = Book().turn(ALPHA)
    assert struck(book) is None
    assert struck(book.turn(BETA)) is Trigger.STUCK


def test_stuck_neither_strikes_over_a_pending_agreement_nor_during_a_mediation_nor_right_after_one() -> None:
    book = Book().propose(ALPHA, "p1")
    book.begin(ALPHA)
    assert struck(book.vote(BETA, "p1"), after=1_000) is None
    busy = mediation(Book(), Trigger.COMPLEXITY, ended=False)
    assert struck(busy, after=1_000) is None
    done = mediation(Book(), Trigger.COMPLEXITY)
    assert struck(done, after=29.9) is None
    assert struck(done, after=30) is Trigger.STUCK


def test_a_conflict_is_as_many_unresolved_proposals_as_the_threshold_says() -> None:
    assert struck(disputed(2)) is None
    assert struck(disputed(3)) is Trigger.CONFLICT
    assert struck(disputed(3), limits=Thresholds(stuck=30, conflict=4, complexity=0.8, turn_limit=12)) is None


def test_an_agreement_among_many_proposals_is_no_conflict() -> None:
    assert struck(disputed(4).vote(BETA, "p1")) is None


@pytest.mark.parametrize("trigger", Trigger)
def test_one_mediation_of_a_kind_in_a_round(trigger: Trigger) -> None:
    book = {Trigger.STUCK: Book().turn(ALPHA).turn(BETA), Trigger.CONFLICT: disputed(3)}.get(trigger, Book())
    if trigger is Trigger.COMPLEXITY:
        finding = {"id": "f1", "title": "t", "text": "t", "evidence": "", "confidence": 1.0, "complexity": 1.0}
        book.add(Kind.FINDING, ALPHA, **finding)
    assert struck(book) is trigger
    assert struck(mediation(book, trigger)) is not trigger
    begun: dict[str, Any] = {
        "round": 2,
        "mode": "local",
        "rehearsal": False,
        "models": {},
        "timeout": 120,
        "reason": "",
    }
    book.add(Kind.ROUND_STARTED, **begun, deadline=START + seconds(500)).turn(ALPHA).turn(BETA)
    assert struck(book) is trigger


def test_complexity_strikes_above_its_threshold_only() -> None:
    finding = {"title": "t", "text": "t", "evidence": "", "confidence": 1.0}
    book = Book().add(Kind.FINDING, ALPHA, id="f1", complexity=0.9, **finding)
    score = complexity(book.board)
    assert struck(book, limits=Thresholds(stuck=30, conflict=3, complexity=score, turn_limit=12)) is None
    below = Thresholds(stuck=30, conflict=3, complexity=score - 0.0001, turn_limit=12)
    assert struck(book, limits=below) is Trigger.COMPLEXITY


words = st.lists(st.sampled_from("cache store and or fast; slow, why? - note\n 1. then. é".split(" ")), max_size=500)


@given(words=words, more=words)
def test_the_measure_is_a_share_and_never_falls_when_words_or_demands_are_added(
    words: list[str], more: list[str]
) -> None:
    short = " ".join(words)
    assert 0 <= measure(short) <= 1
    assert measure(f"{short} a") <= measure(" ".join([short, "a", *more, "b"]))


@given(ratings=st.lists(st.tuples(st.sampled_from([ALPHA, BETA]), st.floats(0, 1)), max_size=6))
def test_the_score_is_a_share_grows_with_each_rating_and_weighs_agents_alike(ratings: list[tuple[str, float]]) -> None:
    book, higher = Book(), Book()
    for number, (agent, rating) in enumerate(ratings):
        finding = {"id": f"f{number}", "title": "t", "text": "t", "evidence": "", "confidence": 1.0}
        book.add(Kind.FINDING, agent, complexity=rating, **finding)
        higher.add(Kind.FINDING, agent, complexity=min(1.0, rating + 0.1), **finding)
    assert 0 <= complexity(book.board) <= complexity(higher.board) <= 1


def test_a_talkative_agent_weighs_no_more_than_its_partner() -> None:
    finding = {"title": "t", "text": "t", "evidence": "", "confidence": 1.0}
    book = Book().add(Kind.FINDING, ALPHA, id="f0", complexity=1.0, **finding)
    for number in range(1, 10):
        book.add(Kind.FINDING, BETA, id=f"f{number}", complexity=0.0, **finding)
    assert complexity(book.board) == pytest.approx(0.8 * 0.5 + 0.2 * measure("Design a caching strategy"), abs=1e-4)


@pytest.mark.parametrize(
    ("trigger", "may"),
    [
        (Trigger.STUCK, {"propose", "message"}),
        (Trigger.CONFLICT, {"rule"}),
        (Trigger.COMPLEXITY, {"decompose"}),
        (None, set()),
    ],
)
def test_the_mediators_mandate_is_its_trigger_and_never_a_vote(trigger: Trigger | None, may: set[str]) -> None:
    assert permitted(_mandate(Role.GAMMA, trigger), Phase.ORCHESTRATE) == {ActionKind(kind) for kind in may}
    assert not permitted(_mandate(Role.GAMMA, trigger), Phase.RUN)


@pytest.mark.parametrize("role", [Role.ALPHA, Role.BETA])
def test_negotiators_find_in_run_and_neither_rule_nor_decompose_ever(role: Role) -> None:
    assert permitted(_mandate(role), Phase.RUN) == {ActionKind.FIND, ActionKind.PASS}
    assert permitted(_mandate(role), Phase.ORCHESTRATE) == set(ActionKind) - {ActionKind.RULE, ActionKind.DECOMPOSE}
    assert permitted(_mandate(role, tier=Tier.OBSERVE), Phase.ORCHESTRATE) == {ActionKind.PASS}


def _mandate(role: Role, trigger: Trigger | None = None, tier: Tier | None = None) -> Mandate:
    tier = TIER_OF[role] if tier is None else tier
    actions = granted(role, tier, trigger)
    return Mandate(agent_id="a", role=role, tier=tier, actions=actions, tokens=None, expires_at=0)


COMPLEX = {"action": "find", "title": "t", "text": "t", "confidence": 0.5, "complexity": 1.0}
PARTS = [{"title": f"part {role}", "text": "do it", "assignee": role} for role in ("ALPHA", "BETA")]


def test_a_complex_objective_is_decomposed_once_and_each_part_is_offered_to_whom_it_is_assigned() -> None:
    offered: dict[str, set[str]] = {}
    model = scripted(
        {
            "run-ALPHA": [say(COMPLEX)],
            "run-BETA": [say(COMPLEX)],
            "GAMMA": [say({"action": "decompose", "subtasks": PARTS})],
            "ALPHA": [say(WORD), say({**solve("done"), "subtask": "s1"}), say(propose("one"))],
            "BETA": [say(WORD), say({**solve("done"), "subtask": "s2"}), say(PASS), say(vote("p1")), say(vote("p1"))],
        }
    )

    def watched(room: Any, agent: Any, turn: Any, prompt: str, offer: Any) -> Any:
        offered.setdefault(agent.agent_id, set()).update(offer.subtasks)
        return model(room, agent, turn, prompt, offer)

    room = played(watched)
    board = room.board
    assert [(m.trigger, m.outcome) for m in board.mediations] == [("COMPLEXITY", "decomposed into 2 subtasks")]
    assert (offered[ALPHA], offered[BETA]) == ({"s1"}, {"s2"})
    assert board.open_subtasks() == ()
    assert board.agents["gamma-1"].status == "COMPLETED"


def test_a_trigger_that_no_longer_holds_when_it_comes_to_it_calls_nobody() -> None:
    """The clock strikes while a proposal is being committed."""
    lines = {"ALPHA": [say(WORD, after=29), say(propose("one"), after=1.5)], "BETA": [say(WORD, after=30.5)]}
    room = played(scripted({**lines, "BETA": [*lines["BETA"], say(vote("p1")), say(vote("p1"))]}))
    assert all(m.evidence.get("seconds_without_progress", 99) >= 29 for m in room.board.mediations)


def test_a_mediator_that_brings_nothing_is_heard_twice_at_most() -> None:
    room = played(scripted({}, then=say(PASS)), limits=rules())
    assert [agent for agent, _, _ in room.asked].count("gamma-1") <= 2
    assert room.board.mediations[0].outcome in {"failed: no usable answer", "failed: revoked"}
