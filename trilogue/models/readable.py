"""The readable text in an answer that is still being written."""

from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

_SKIPPED = frozenset({"action", "proposal", "subtask", "to", "verdict", "outcome", "assignee"})
_LEAST_GROWTH = 40
_GROWTH = 1 / 32
"""Of what was read: each reading starts at the beginning, so a fixed step would make long answers quadratic."""


def readable(raw: str) -> str:
    """The words in a partial JSON answer, as they come; empty while there are none to be read."""
    try:
        value = from_json(raw[raw.index("{") :], allow_partial="trailing-strings")
    except ValueError:
        return ""
    return "\n".join(_words(value))


def _words(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [word for name, inner in value.items() if name not in _SKIPPED for word in _words(inner)]
        case list():
            return [word for inner in value for word in _words(inner)]
        case _:
            return []


class TextStream:
    """Turns the raw text so far into pieces of readable text, each published once.

    Args:
        publish: gets the offset of a piece in the turn's readable text, in characters, and the piece.
    """

    def __init__(self, publish: Callable[[int, str], None]) -> None:
        self._publish = publish
        self._shown = ""
        self._read = 0

    def update(self, raw: str) -> None:
        """Take the whole raw text so far. Parsed only after some growth: parsing starts at its beginning."""
        if len(raw) < self._read:  # a retry or a repair turn begins anew, from offset 0
            self._read = 0
            self._shown = ""
        if len(raw) - self._read < max(_LEAST_GROWTH, self._read * _GROWTH):
            return
        self.finish(raw)

    def finish(self, raw: str) -> None:
        """Publish what is left of `raw`, if it goes on from what was shown."""
        self._read = len(raw)
        text = readable(raw)
        if len(text) > len(self._shown) and text.startswith(self._shown):
            self._publish(len(self._shown), text[len(self._shown) :])
            self._shown = text
