"""What differs between two moments of a pipeline, in pieces that a page can show: sections, things, facts, words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

from trilogue.actions import clean
from trilogue.board import Board, apply
from trilogue.board.view import Difference, difference
from trilogue.entry import Entry

MOST_THINGS = 100
"""Differences of one section that are shown."""
LONGEST = 4_000
"""Characters of one text that are shown."""

_MOST_WORDS = 600
"""Of one text that is compared word by word: the comparison may take time in the square of them."""
_MOST_COMPARED = 25
"""Texts of one comparison that are compared word by word."""
_CONTEXT = 160
"""Characters that are shown on either side of what differs, where much is the same."""
_SHORT = 80
_WORD = re.compile(r"\s*\S+|\s+\Z")
_UNTOLD = {"id", "agent_id", "seq", "number", "running", "agreed"}
"""What tells nothing that is not told elsewhere."""
_IDS = ("id", "number", "voter", "agent_id")
_SAID = ("text", "content", "reason", "outcome", "status")
_WORDS = ("role", "verdict", "trigger", "outcome", "title", "text", "content", "reason", "status")


@dataclass(frozen=True)
class Piece:
    """Some words of a text: in both, only in the one after, or only in the one before."""

    change: Literal["same", "added", "removed"]
    text: str


@dataclass(frozen=True)
class Fact:
    """One field: what it was and what it is, None where there is nothing; and word by word where it has `pieces`."""

    name: str
    before: str | None
    after: str | None
    pieces: Sequence[Piece] = ()

    @property
    def short(self) -> bool:
        """Whether it fits on a line."""
        return not self.pieces and len(self.before or "") + len(self.after or "") <= _SHORT


@dataclass(frozen=True)
class Thing:
    """One thing that the two moments do not share: what of it changed, or what one says that came or went."""

    change: Literal["added", "changed", "removed"]
    id: str
    title: str
    facts: Sequence[Fact] = ()
    text: str = ""


@dataclass(frozen=True)
class Section:
    """The things of one kind; `more` were left out."""

    name: str
    things: Sequence[Thing]
    more: int


def compared(entries: Sequence[Entry], first: int, second: int) -> list[Section]:
    """What differs on the board after the entry `second` from that after `first`, which may be the later one.

    Args:
        entries: from the pipeline's first one on, as far as the later of the two.
    """
    boards = dict[int, Board]()
    board = Board()
    for entry in entries[: max(first, second)]:
        apply(board, entry)
        if entry.seq in {first, second}:
            boards[entry.seq] = board.forked()
    telling = _Telling()
    return [
        Section(name, [telling.thing(one) for one in found[:MOST_THINGS]], max(0, len(found) - MOST_THINGS))
        for name, items in groupby(difference(boards[first], boards[second]), key=lambda one: one.section)
        if (found := list(items))
    ]


class _Telling:
    """Puts differences into words; it compares word by word only so often."""

    def __init__(self) -> None:
        self._left = _MOST_COMPARED

    def thing(self, one: Difference) -> Thing:
        there = one.after if one.after is not None else one.before
        if one.change == "changed":
            return Thing(one.change, one.id, _title(there), list(self._facts("", one.before, one.after)))
        title, text = _title(there), _text(there)
        if not title:  # a message, or what a person said
            title = _line(text)
        return Thing(one.change, one.id, title, text="" if text == title else text)

    def _facts(self, name: str, before: Any, after: Any) -> Iterator[Fact]:
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from self._fields(name, before, after)
        elif isinstance(before, list) and isinstance(after, list):
            yield from self._items(name, before, after)
        else:
            yield self._fact(name, _value(before), _value(after))

    def _fields(self, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Fact]:
        for field in [*before, *(field for field in after if field not in before)]:
            if field not in _UNTOLD and before.get(field) != after.get(field):
                yield from self._facts(f"{name} {field}".strip(), before.get(field), after.get(field))

    def _items(self, name: str, before: list[Any], after: list[Any]) -> Iterator[Fact]:
        if name == "revisions" and before and after and before[-1] != after[-1]:
            which = f"revision {before[-1]['number']} to {after[-1]['number']}"
            yield from self._fields(which, before[-1], after[-1])
            return
        old, new = _keyed(before), _keyed(after)
        one = name.removesuffix("s")
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                if key in old and key in new:
                    yield from self._facts(f"{one} {key}", old[key], new[key])
                else:
                    yield self._fact(f"{one} {key}", _told(old.get(key)), _told(new.get(key)))

    def _fact(self, name: str, before: str | None, after: str | None) -> Fact:
        pieces: Sequence[Piece] = ()
        if before and after and len(before) + len(after) > _SHORT and self._left:
            self._left -= 1
            pieces = word_by_word(before, after)
        return Fact(name.replace("_", " "), before, after, pieces)


def word_by_word(before: str, after: str) -> list[Piece]:
    """The two texts as one, with what is only in either; empty where they are too long or have little in common."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if len(old) > _MOST_WORDS or len(new) > _MOST_WORDS:
        return []
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.quick_ratio() < 0.3:
        return []
    pieces = list[Piece]()
    for tag, from_, to, after_from, after_to in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", _shortened("".join(old[from_:to]))))
            continue
        if to > from_:
            pieces.append(Piece("removed", "".join(old[from_:to])))
        if after_to > after_from:
            pieces.append(Piece("added", "".join(new[after_from:after_to])))
    return pieces


def _shortened(same: str) -> str:
    return same if len(same) <= 3 * _CONTEXT else f"{same[:_CONTEXT].rstrip()} … {same[-_CONTEXT:].lstrip()}"


def _keyed(items: list[Any]) -> dict[str, Any]:
    """Items by what names them, else by their place."""
    keyed = {}
    for place, item in enumerate(items, start=1):
        known = (item.get(name) for name in _IDS) if isinstance(item, Mapping) else iter(())
        keyed[str(next((name for name in known if name), place))] = item
    return keyed


def _title(thing: Any) -> str:
    if not isinstance(thing, Mapping):
        return ""
    if revisions := thing.get("revisions"):
        return str(revisions[-1]["title"])
    if "sender" in thing:
        return f"{thing['sender']} to {thing['to']}: {_line(thing['content'])}"
    return str(thing.get("title") or thing.get("trigger") or thing.get("role") or "")


def _text(thing: Any) -> str:
    """What a thing says below its title."""
    if not isinstance(thing, Mapping):
        return _value(thing) or ""
    if revisions := thing.get("revisions"):
        return _value(revisions[-1]["text"]) or ""
    return _value(next((thing[name] for name in _SAID if thing.get(name)), "")) or ""


def _line(text: str) -> str:
    line = " ".join(text[: 10 * _SHORT].split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1].rstrip() + "…"


def _told(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return _value(item)
    return _value(": ".join(str(item[name]) for name in _WORDS if item.get(name)))


def _value(value: Any) -> str | None:
    """A JSON value as text of bounded length."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = "; ".join(f"{name} {_value(one)}" for name, one in value.items())
    elif isinstance(value, list):
        value = ", ".join(_value(one) or "" for one in value)
    text = str(clean(str(value)))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
