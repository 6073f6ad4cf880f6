"""Whatever a model answers becomes actions, something to mend, or a violation: nothing else, and nothing harmful."""

import json
import re
import unicodedata
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import random_action
from trilogue.actions import (
    LONGEST_TEXT,
    LONGEST_TITLE,
    MOST_ACTIONS,
    Action,
    ActionKind,
    Offer,
    Propose,
    read_turn,
    turn_schema,
)
from trilogue.agent import NEGOTIATORS, Role
from trilogue.errors import Malformed, Violation

IDS = ("p1", "p2", "p3", "s1", "s2")
TIER_1 = frozenset(ActionKind) - {ActionKind.RULE, ActionKind.DECOMPOSE}
EVERYTHING = frozenset(ActionKind)
PLAIN = Offer(
    mandate=TIER_1,
    actions=TIER_1,
    votable=("p2",),
    criticisable=("p2",),
    revisable=("p1",),
    subtasks=("s1",),
    recipients=(Role.BETA,),
)

some_ids = st.lists(st.sampled_from(IDS), unique=True, max_size=3).map(tuple)


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    mandate = frozenset(draw(st.sets(st.sampled_from(ActionKind), min_size=1)))
    return Offer(
        mandate=mandate,
        actions=frozenset(draw(st.sets(st.sampled_from(sorted(mandate)), min_size=1))),
        votable=draw(some_ids),
        criticisable=draw(some_ids),
        revisable=draw(some_ids),
        rulable=draw(some_ids),
        subtasks=draw(some_ids),
        recipients=NEGOTIATORS,
    )


def json_values() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(IDS)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
    )


def almost_actions() -> st.SearchStrategy[dict[str, Any]]:
    names = "title text evidence confidence complexity proposal verdict reason subtask to content outcome subtasks"
    fields = st.dictionaries(st.sampled_from(names.split()), json_values() | st.sampled_from(IDS), max_size=8)
    kinds = st.sampled_from([kind.value for kind in ActionKind]) | st.text(max_size=8) | json_values()
    return st.builds(lambda kind, rest: {**rest, "action": kind}, kinds, fields)


def texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from texts(inner)
        case list() | tuple():
            for inner in value:
                yield from texts(inner)


@settings(deadline=None, max_examples=200)
@given(offer=offers(), value=json_values() | st.lists(almost_actions(), max_size=5).map(lambda a: {"actions": a}))
def test_any_json_is_actions_or_malformed_or_a_violation(offer: Offer, value: Any) -> None:
    complaint = ""
    actions: tuple[Action, ...] = ()
    try:
        actions = read_turn(value, offer)
    except (Malformed, Violation) as error:
        complaint = error.message
    assert (1 <= len(actions) <= MOST_ACTIONS) != (0 < len(complaint.encode()) < 2_000)
    for action in actions:
        assert action.action in offer.mandate
        json.dumps(action.model_dump(), allow_nan=False).encode()


@settings(deadline=None, max_examples=100)
@given(offer=offers(), seed=st.integers(0, 2**32))
def test_the_schema_shows_what_may_be_said_now_and_that_is_taken(offer: Offer, seed: int) -> None:
    items = turn_schema(offer)["properties"]["actions"]["items"]
    variants = items.get("anyOf", [items])
    assert {v["properties"]["action"]["enum"][0] for v in variants} == {kind.value for kind in offer.actions}
    for kind in offer.actions:
        variant = next(v for v in variants if v["properties"]["action"]["enum"] == [kind.value])
        action = random_action(Random(seed), kind, offer)
        named = variant["properties"].get("subtask" if kind is ActionKind.SOLVE else "proposal")
        assert tuple(named["enum"] if named else ()) == offer.ids_for(kind)
        if offer.ids_for(kind) or kind in {"find", "propose", "message", "decompose", "pass", "solve"}:
            assert [a.action for a in read_turn([action], offer)] == [kind]


@settings(deadline=None)
@given(offer=offers())
def test_the_schema_is_strict_throughout(offer: Offer) -> None:
    def check(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
                assert node["required"] == list(node["properties"])
            for inner in node.values():
                check(inner)
        elif isinstance(node, list):
            for inner in node:
                check(inner)

    schema = turn_schema(offer)
    check(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("kind", [ActionKind.RULE, ActionKind.DECOMPOSE])
@pytest.mark.parametrize("spelled", [str, str.upper, lambda name: f" {name.title()}\n"])
def test_a_kind_outside_the_mandate_is_a_violation_however_it_is_written(kind: ActionKind, spelled: Any) -> None:
    with pytest.raises(Violation, match=kind.value):
        read_turn({"actions": [{"action": spelled(kind.value)}]}, PLAIN)


def test_no_mistake_beside_it_turns_a_violation_into_something_to_mend() -> None:
    forbidden = {"action": "rule", "outcome": "choose", "proposal": "p1", "reason": "mine"}
    for mistake in (
        {"action": "dance"},
        {"action": "vote"},
        {"action": "vote", "proposal": "p9", "verdict": "approve"},
    ):
        for actions in ([mistake, forbidden], [forbidden, mistake]):
            with pytest.raises(Violation):
                read_turn({"actions": actions}, PLAIN)


@pytest.mark.parametrize(
    ("action", "mending"),
    [
        ({"action": "vote", "proposal": "p1", "verdict": "approve"}, "p2"),  # its own
        ({"action": "vote", "proposal": "p9", "verdict": "approve"}, "p2"),
        ({"action": "revise", "proposal": "p2", "title": "t", "text": "t"}, "p1"),  # another's
        ({"action": "critique", "proposal": "", "text": "t"}, "p2"),
        ({"action": "solve", "subtask": "s9", "title": "t", "text": "t"}, "s1"),
        ({"action": "vote", "proposal": "p2", "verdict": "abstain"}, "approve"),
        ({"action": "dance"}, "propose"),
        ({"action": "propose", "title": "t", "text": " \u0000 "}, "text"),
        ({"action": "find", "title": "t", "text": "t", "confidence": "high"}, "confidence"),
    ],
)
def test_a_wrong_id_or_field_can_be_mended_and_the_message_says_how(action: dict[str, Any], mending: str) -> None:
    with pytest.raises(Malformed, match=re.escape(mending)):
        read_turn({"actions": [action]}, PLAIN)


@settings(deadline=None)
@given(text=st.text(st.characters(), min_size=1, max_size=200))
def test_no_control_character_surrogate_or_override_survives(text: str) -> None:
    hostile = f"a{text}\x00\x1b[2J\r\u202e\u2066\ud800z"
    said = [
        {"action": "propose", "title": hostile, "text": hostile},
        {"action": "message", "to": "ALL", "content": hostile},
        {"action": "find", "title": hostile, "text": hostile, "evidence": hostile},
    ]
    for action in read_turn(said, PLAIN):
        for kept in texts(action.model_dump(exclude={"action"})):
            kept.encode()
            assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in kept)
            assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(kept)
        assert "\n" not in getattr(action, "title", "")


def test_more_than_three_actions_are_cut_and_long_texts_are_bounded() -> None:
    long = {"action": "propose", "title": "t" * 100_000, "text": "x" * 100_000}
    actions = read_turn({"actions": [long] * 3 + [{"action": "dance"}] * 50}, PLAIN)
    assert len(actions) == MOST_ACTIONS
    for action in actions:
        assert isinstance(action, Propose)
        assert (len(action.title), len(action.text)) == (LONGEST_TITLE, LONGEST_TEXT)


def test_the_usual_ways_to_write_a_single_action_are_understood() -> None:
    for value in ({"actions": [{"action": "pass"}]}, [{"action": "PASS"}], {"action": "pass", "reason": "x"}):
        assert [action.action for action in read_turn(value, PLAIN)] == ["pass"]
