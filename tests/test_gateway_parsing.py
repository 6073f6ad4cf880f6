"""JSON is found in whatever a model writes around it, and nothing that it writes does harm."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilogue.errors import Malformed
from trilogue.models.parsing import LARGEST_INTEGER, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
PROSE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}[]<>`~\x00"), max_size=60)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(TEXT, VALUES, min_size=1, max_size=4)


@settings(deadline=None)  # the machine may be busy; what is promised is the outcome
@given(value=VALUES, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_any_value_survives_by_itself_and_in_a_fence(value: Any, indent: int | None, ascii_only: bool) -> None:
    dumped = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse(dumped) == value
    assert parse(f"Here it is:\n```json\n{dumped}\n```\nAnything else?") == value


@settings(deadline=None)
@given(value=OBJECTS, before=PROSE, after=PROSE)
def test_any_object_survives_in_prose_and_after_thinking(value: Any, before: str, after: str) -> None:
    dumped = json.dumps(value)
    assert parse(f"{before}{dumped}{after}") == value
    assert parse(f'<think>{before} {{"answer": "no"}}</think>\n{dumped}') == value


@settings(deadline=None)
@given(text=st.text() | st.text(alphabet="{}[]\",:\\\n `<>/*tf1ka'", max_size=300))
def test_no_text_does_worse_than_malformed(text: str) -> None:
    for hostile in (text, '{"a": "' + text, "```\n{" + text):
        try:
            found = parse(hostile)
        except Malformed:
            continue
        json.dumps(found, allow_nan=False).encode()


@settings(deadline=None)
@given(value=st.fixed_dictionaries({"actions": st.lists(OBJECTS, min_size=1, max_size=3)}), share=st.floats(0, 1))
def test_a_cut_answer_keeps_what_was_complete(value: Any, share: float) -> None:
    dumped = json.dumps(value)
    least = len('{"actions": [')
    found = parse(dumped[: least + round(share * (len(dumped) - least))])
    assert isinstance(found["actions"], list)
    for kept, whole in list(zip(found["actions"], value["actions"], strict=False))[:-1]:
        assert kept == whole


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * 1_000_000,
        '{"a":' * 200_000,
        "{" * 1_000_000,
        '{"a": "' + "\\} " * 300_000,
        '{"a": "' + "\\} " * 1_600,
        "```" + " " * 1_000_000,
        "<think>" * 100_000,
        '```\n{"\n```\n' * 90_000,
        "x" * 2_000_001,
        '{"a": 1e999}',
        '{"a": ' + "9" * 400 + "}",
        " \n\t",
    ],
    ids=lambda text: f"{text[:8]!r} x {len(text)}",
)
def test_hostile_text_is_malformed_at_once(hostile: str) -> None:
    began = time.process_time()  # what others do on this machine does not count
    try:
        parse(hostile)
    except Malformed as error:
        assert len(error.message) < 200  # noqa: PT017 - some of these can be read; none may take long
    assert time.process_time() - began < 5


def test_the_usual_slips_are_mended() -> None:
    assert parse("{'answer': 42,}") == {"answer": 42}
    assert parse('{"text": "two\nlines"}') == {"text": "two\nlines"}
    assert parse('reasoning without its opening tag {"no": 1}</think> {"answer": 42}') == {"answer": 42}
    assert parse('In the form {placeholder}, see [1]: {"answer": 42}.') == {"answer": 42}
    assert parse('{"text": "<think>kept</think> ```\\n{}\\n```"}') == {"text": "<think>kept</think> ```\n{}\n```"}
    assert parse('{"text": "a\\u0000b\\ud800"}') == {"text": "a\ufffdb\ufffd"}
    assert parse('Sure:\n```json\n{"actions": [{"a": 1}, {"b": "c') == {"actions": [{"a": 1}, {"b": "c"}]}
