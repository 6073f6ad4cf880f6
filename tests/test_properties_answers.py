"""Whatever a model writes in whatever field: it is read, or refused as malformed or as a violation."""

from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import NONSENSE, STEADY, confused, random_action
from trilogue.actions import ActionKind, Offer, read_turn
from trilogue.agent import Role
from trilogue.entry import Draft, Kind
from trilogue.errors import Malformed, Violation
from trilogue.ledger.chain import prepare

ALL = frozenset(ActionKind)
OFFER = Offer(
    mandate=ALL,
    actions=ALL,
    votable=("p1",),
    criticisable=("p1",),
    revisable=("p1",),
    rulable=("p1",),
    subtasks=("s1",),
    recipients=(Role.BETA,),
)


def read(said: Any) -> None:
    """Read an answer as a room does; what is taken can be recorded."""
    with suppress(Malformed, Violation):
        for action in read_turn(said, OFFER):
            prepare(Draft(kind=Kind.MESSAGE, body=action.model_dump(mode="json")))


@pytest.mark.parametrize("kind", sorted(ActionKind))
def test_any_field_of_any_action_may_hold_anything(kind: ActionKind) -> None:
    whole = random_action(Random(1), kind, OFFER)
    assert read_turn({"actions": [whole]}, OFFER)
    for field in (*whole, "something"):
        read({"actions": [{name: value for name, value in whole.items() if name != field}]})
        for value in NONSENSE:
            read({"actions": [{**whole, field: value}]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(sorted(ActionKind)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("actions", "action", "a")), inner),
    max_leaves=8,
)


@settings(STEADY, max_examples=300)
@given(said=JSON, seed=st.integers(0, 2**32))
def test_an_answer_may_be_anything(said: Any, seed: int) -> None:
    random = Random(seed)
    read(said)
    read({"actions": [confused(random, random_action(random, random.choice(sorted(ALL)), OFFER)), said]})
