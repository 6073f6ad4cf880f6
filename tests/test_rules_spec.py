"""What a user asks for is taken as it is, or refused with one line that names the field."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilogue.errors import Invalid
from trilogue.spec import LONGEST_CONTEXT, LONGEST_OBJECTIVE, checked_round, checked_spec

OBJECTIVE = "Design a caching strategy"


@pytest.mark.parametrize("objective", ["", " ", "\n\t \u2003", "\u200b\u200d", "\u3164 \u2800"])
def test_an_empty_or_blank_objective_is_refused(objective: str) -> None:
    with pytest.raises(Invalid, match="objective: is empty or blank") as refused:
        checked_spec(objective=objective)
    assert refused.value.code == "invalid_objective"


def test_the_longest_objective_is_taken_whole_and_one_more_character_is_refused() -> None:
    for character in ("x", "é", "😀"):
        assert len(checked_spec(objective=character * LONGEST_OBJECTIVE).objective) == 32_768
        with pytest.raises(Invalid, match=r"32,769 characters; at most 32,768"):
            checked_spec(objective=character * (LONGEST_OBJECTIVE + 1))


@given(
    before=st.text(alphabet="ab \n", max_size=20),
    control=st.characters(categories=["Cc", "Cs"], exclude_characters="\n\t\r"),
)
def test_control_characters_and_lone_surrogates_are_refused_with_their_place(before: str, control: str) -> None:
    with pytest.raises(Invalid, match=rf"at position {len(before) + 1}\b") as refused:
        checked_spec(objective=f"x{before}{control}y ")
    assert control not in refused.value.message
    refused.value.message.encode()


@given(objective=st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_every_other_text_is_kept_as_it_is(objective: str) -> None:
    assert checked_spec(objective=f"{objective}.\r\n\t").objective == f"{objective}.\r\n\t"


@pytest.mark.parametrize("field", ["timeout", "agent_timeout"])
@pytest.mark.parametrize("value", [0, -1, -0.0, math.nan, math.inf, -math.inf, 86_401, "soon", "", [], "1e999"])
def test_a_timeout_that_is_no_positive_number_of_seconds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(Invalid, match=f"^{field}: ") as refused:
        checked_spec(objective=OBJECTIVE, **{field: value})
    assert "\n" not in refused.value.message


def test_a_rounds_timeout_is_checked_alike() -> None:
    with pytest.raises(Invalid, match=r"^timeout: "):
        checked_round(timeout=0)
    assert checked_round(timeout=0.5, guidance="mind the cost").timeout == 0.5


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"mode": "cloud"}, "mode"),
        ({"mode": "LOCAL"}, "mode"),
        ({"model": ""}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"models": {"DELTA": "m"}}, "models"),
        ({"models": {"GAMMA": ""}}, "models"),
        ({"colour": "red"}, "colour"),
        ({"labels": ["x"] * 33}, "labels"),
        ({"project": ""}, "project"),
        ({"external_id": "x" * 201}, "external_id"),
        ({"objective": 7}, "objective"),
        ({"objective": None}, "objective"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_spec(**{"objective": OBJECTIVE, **values})
    assert refused.value.code == f"invalid_{field}"
    assert refused.value.message.startswith(field)


def test_a_context_document_holds_256_kib_and_no_byte_more() -> None:
    whole = "é" * (LONGEST_CONTEXT // 2)
    spec = checked_spec(objective=OBJECTIVE, context=[{"name": "a", "text": whole}])
    assert len(spec.context[0].text.encode()) == 262_144
    with pytest.raises(Invalid, match="262,145 bytes; at most 262,144"):
        checked_spec(objective=OBJECTIVE, context=[{"name": "a", "text": whole + "x"}])


@pytest.mark.parametrize("text", ["", " \n", "a\x00b", "a\x1b[2J"])
def test_a_context_document_is_plain_text(text: str) -> None:
    with pytest.raises(Invalid, match=r"^context"):
        checked_spec(objective=OBJECTIVE, context=[{"name": "a", "text": text}])


def test_no_context_document_takes_anothers_place() -> None:
    with pytest.raises(Invalid, match="two documents called 'a'"):
        checked_spec(objective=OBJECTIVE, context=[{"name": "a", "text": "one"}, {"name": "a", "text": "two"}])


def test_an_option_that_was_not_given_means_as_configured() -> None:
    assert checked_spec(objective=OBJECTIVE, timeout=None, mode=None, labels=None) == checked_spec(objective=OBJECTIVE)
