"""The readable text of an answer grows as the answer does, and its pieces make up the whole."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trilogue.models.readable import TextStream, readable

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(['a "quote"', "é\\n😀", "{"])
actions = st.lists(
    st.fixed_dictionaries(
        {"action": st.sampled_from(["propose", "message", "vote"])},
        optional={"title": words, "text": words, "proposal": words, "to": words, "subtasks": st.lists(words)},
    ),
    min_size=1,
    max_size=3,
)


def streamed(parts: list[str]) -> str:
    shown: list[str] = []

    def publish(offset: int, piece: str) -> None:
        assert piece
        assert offset == sum(map(len, shown))
        shown.append(piece)

    stream = TextStream(publish)
    raw = ""
    for part in parts:
        raw += part
        stream.update(raw)
    stream.finish(raw)
    return "".join(shown)


@settings(deadline=None, max_examples=100)
@given(actions=actions, ascii_only=st.booleans(), fence=st.sampled_from(["", "```json\n"]), data=st.data())
def test_the_pieces_make_up_the_readable_text_wherever_the_stream_is_split(
    actions: list[dict[str, Any]], ascii_only: bool, fence: str, data: st.DataObject
) -> None:
    answer = json.dumps({"actions": actions}, ensure_ascii=ascii_only)
    whole = f"{fence}{answer}" + ("\n```" if fence else "")
    splits = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=30)))
    edges = [0, *splits, len(whole)]
    parts = [whole[start:end] for start, end in pairwise(edges)]
    assert streamed(parts) == readable(whole)


@settings(deadline=None, max_examples=50)
@given(actions=actions)
def test_every_prefix_reads_as_the_beginning_of_the_whole(actions: list[dict[str, Any]]) -> None:
    whole = json.dumps({"actions": actions})
    for end in range(len(whole)):
        assert readable(whole).startswith(readable(whole[:end]))


def test_what_an_agent_names_is_left_out_and_what_it_says_is_shown() -> None:
    answer = {"actions": [{"action": "vote", "proposal": "p1", "verdict": "approve", "reason": "it holds"}]}
    assert readable(json.dumps(answer)) == "it holds"
    assert readable("no JSON at all") == ""


def test_an_answer_that_begins_anew_is_shown_from_its_beginning() -> None:
    shown: list[tuple[int, str]] = []
    stream = TextStream(lambda offset, piece: shown.append((offset, piece)))
    stream.update(json.dumps({"text": "x" * 100})[:-20])
    stream.update('{"te')
    stream.finish(json.dumps({"text": "again"}))
    assert shown[-1] == (0, "again")
