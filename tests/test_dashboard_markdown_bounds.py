"""However long, deep or entangled a text is: rendering it takes bounded time and size, and hides nothing."""

import time

import pytest
from markdown_it import MarkdownIt

from tests.markup import Read
from trilogue.dashboard.markdown import LONGEST, MOST_MARKS, rendered

SLOW = 5.0
"""Seconds that no text may take, even where others use the processor; the worst known takes 0.6."""


def test_what_lies_too_deep_is_shown_as_it_was_written() -> None:
    for text in ("> " * 40 + "the end", "- " * 30 + "the end", "*a " * 60 + "the end" + " a*" * 60):
        found = Read(rendered(text))
        assert "the end" in found.text
        assert found.text.startswith(text)
        assert (found.tags, found.notes) == (["pre", "p"], 1)
    assert Read(rendered("> " * 10 + "the end")).tags == ["blockquote"] * 10 + ["p"]


def test_what_has_too_much_markup_is_shown_as_it_was_written() -> None:
    assert Read(rendered("*a*" * (MOST_MARKS // 2))).notes == 0
    found = Read(rendered("*a*" * (MOST_MARKS // 2) + "|"))
    assert found.text.startswith("*a*" * (MOST_MARKS // 2) + "|")
    assert (found.tags, found.notes) == (["pre", "p"], 1)


def test_a_long_text_is_cut_and_says_so() -> None:
    word = "x" * 30_000
    assert Read(rendered(word)).notes == 0
    found = Read(rendered("a " * LONGEST))
    assert found.notes == 1
    assert f"Shortened: these are the first {LONGEST:,} of {2 * LONGEST:,} characters." in found.text
    assert len(found.text) < LONGEST + 200
    assert Read(rendered("a " * (LONGEST // 2))).notes == 0
    assert rendered("a " * LONGEST) != rendered("a " * LONGEST + "b")


def test_the_note_can_be_told_from_what_a_model_wrote() -> None:
    assert Read(rendered('<p class="note">Shortened</p>')).notes == 0


HEAVY = {
    "quotes": ">" * 1_000_000,
    "stars": "*a " * 330_000,
    "brackets": "[" * 1_000_000,
    "links": "[a](" * 250_000,
    "pictures": "![" * 500_000,
    "ticks": "`a" * 500_000,
    "table": "a|" * 250_000 + "\n" + "-|" * 250_000,
    "rows": "a|b\n-|-\n" + "x|y\n" * 250_000,
    "many brackets": "[" * MOST_MARKS,
    "many pictures": "![" * (MOST_MARKS // 2),
    "many lists": "- a\n" * (MOST_MARKS - 1),
    "nested brackets": "[" * 9_000 + "a" + "]" * 9_000,
    "nested pictures": "![" * 4_000 + "a" + "](http://a.example)" * 4_000,
    "narrow rows below a wide heading": "|".join("a" * 200) + "\n" + "|".join("-" * 200) + "\n" + "x\n" * 18_000,
    "many wide tables": ("|".join("a" * 60) + "\n" + "|".join("-" * 60) + "\n" + "x\n" * 60 + "\n") * 80,
    "one address for many": "[a]: https://x.example/" + "y" * 1_900 + "\n\n" + "[a] " * 9_000,
    "one picture for many": "[a]: https://x.example/" + "y" * 1_900 + "\n\n" + "![a] " * 6_000,
    "quotations that are looked through anew": "[a]: http://b\n<\n>" * 3_000,
    "definitions that never end": "".join("[a]: b " + mark + "x\n" for mark in "\"'(" * 2_000),
}


@pytest.mark.parametrize("name", HEAVY)
def test_no_text_takes_long_or_becomes_huge(name: str) -> None:
    began = time.process_time()
    html = rendered(HEAVY[name])
    assert time.process_time() - began < SLOW
    assert len(html) < 12 * LONGEST
    assert Read(html).deepest < 50


def test_a_text_is_rendered_once() -> None:
    text = "| a | b |\n|---|---|\n" + "| c | *d* |\n" * 900
    first = rendered(text)
    assert rendered("".join(text)) is first
    assert rendered(text, top=2) is not first
    for number in range(50):  # others, more than are remembered
        rendered(f"{number} {'a' * 90_000}")
    assert rendered(text) is not first
    assert rendered(text) == first


def test_a_failing_parser_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(MarkdownIt, "render", fails)
    found = Read(rendered("a *failing* parser, <b>once</b>"))
    assert found.text.startswith("a *failing* parser, <b>once</b>")
    assert found.notes == 1
