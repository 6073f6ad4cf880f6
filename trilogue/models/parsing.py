"""Reading JSON out of what a model wrote.

Models wrap JSON in prose and code fences, think aloud before it, and get cut off in the
middle. `parse` takes all of that; what it returns can be stored anywhere: finite numbers,
no lone surrogates, no NUL, bounded depth.
"""

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from json_repair import repair_json

from trilogue.errors import Malformed

LONGEST = 2_000_000
"""Characters. A longer answer is not looked at; `max_tokens` keeps real ones far below."""
LONGEST_REPAIR = 5_000
"""`json_repair` takes quadratic time on hostile text: 6 s for 20,000 characters of `\\} `, measured."""
DEEPEST = 64
"""Nesting beyond this is no answer of ours, and would overflow the stack of whoever walks it."""
MOST_STARTS = 64
"""How many `{` in prose are tried as the beginning of the answer."""
MOST_FENCES = 16
LARGEST_INTEGER = 2**53 - 1
"""What canonical JSON (RFC 8785) can hold."""

_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# Possessive (`*+`), so that no hostile run of spaces makes them backtrack.
_FENCE_OPENS = re.compile(r"^[ \t]*+(?:```|~~~)[ \t]*+[\w+-]*+[ \t]*+\r?\n", re.MULTILINE)
_FENCE_CLOSES = re.compile(r"^[ \t]*+(?:```|~~~)[ \t]*+\r?$", re.MULTILINE)
_LIKE_AN_OBJECT = re.compile(r"""\{\s*+(?:["'/]|\w++\s*+:)""")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?P<end>")?|[{}\[\],]', re.DOTALL)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# Not strict: a raw line end inside a string is the commonest slip of all.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, strict=False)


def parse(text: str) -> Any:
    """The JSON value in `text`.

    Raises:
        Malformed: there is none; the message can be shown to the model.
    """
    if len(text) > LONGEST:
        raise Malformed(f"the answer is {len(text)} characters long; the limit is {LONGEST}")
    if not text.strip():
        raise Malformed("the answer is empty")
    for found in _readings(text):
        return _storable(found, depth=0)
    raise Malformed("the answer holds no JSON object that can be read")


def _readings(text: str) -> Iterator[Any]:
    """Values found in `text`, the most literal reading first."""
    yield from _exactly(text)
    said = _without_thought(text)
    yield from _exactly(said)
    fenced = list(islice(_fenced(said), MOST_FENCES))
    for block in fenced:
        yield from _exactly(block)
    yield from _in_prose(said)
    near = _from_first_object(next((block for block in fenced if "{" in block), said))
    yield from _completed(near)
    yield from _repaired(near)


def _exactly(text: str) -> Iterator[Any]:
    stripped = text.strip().removeprefix("\ufeff")
    try:
        value, end = _DECODER.raw_decode(stripped)
    except (ValueError, RecursionError):
        return
    if end == len(stripped):
        yield value


def _without_thought(text: str) -> str:
    """`text` after the model's thinking; some chat templates swallow the tag that opens it."""
    if thought := _THOUGHT.match(text):
        return text[thought.end() :]
    end = _END_OF_THOUGHT.search(text)
    return text[end.end() :] if end and "{" in text[end.end() :] else text


def _fenced(text: str) -> Iterator[str]:
    """The insides of code fences; the last one may never have been closed.

    A fence closes only at the start of a line, where JSON cannot hold the backticks of a string.
    """
    at = 0
    while opening := _FENCE_OPENS.search(text, at):
        closing = _FENCE_CLOSES.search(text, opening.end())
        yield text[opening.end() : closing.start() if closing else len(text)]
        at = closing.end() if closing else len(text)


def _in_prose(text: str) -> Iterator[Any]:
    """The longest object that stands in `text`: a short one before it is an example or a placeholder.

    Nothing, when something that looks like an object turns out broken: what is intact further on is
    then most likely only a part of it.
    """
    best: Any = None
    longest = tries = 0
    at = text.find("{")
    while at >= 0 and tries < MOST_STARTS:
        tries += 1
        end = at + 1
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            if _LIKE_AN_OBJECT.match(text, at):
                return
        else:
            if value and end - at > longest:
                best, longest = value, end - at
        at = text.find("{", end)
    if best:
        yield best


def _from_first_object(text: str) -> str:
    start = _LIKE_AN_OBJECT.search(text)
    return text[start.start() :] if start else ""


def _completed(near: str) -> Iterator[Any]:
    """The object that was cut off at the end of `near`: closed there, or after the last complete item."""
    closers = ""
    whole = (0, "")
    text = near
    for token in _TOKEN.finditer(near):
        sign = token[0]
        if sign in {"{", "["}:
            closers = ("}" if sign == "{" else "]") + closers
            whole = (token.end(), closers)
        elif sign in {"}", "]"}:
            if not closers.startswith(sign):
                return
            closers = closers[1:]
        elif sign == ",":
            whole = (token.start(), closers)
        elif token["end"] is None:
            text = near[: token.end()] + '"'
        if len(closers) > DEEPEST:
            return
    for attempt in (text + closers, near[: whole[0]] + whole[1]):
        for value in _exactly(attempt):
            if value:
                yield value
                return


def _repaired(near: str) -> Iterator[Any]:
    if not near or len(near) > LONGEST_REPAIR or _nesting(near) > DEEPEST:
        return
    try:
        value = repair_json(near, return_objects=True, skip_json_loads=True)
    except Exception:  # noqa: BLE001 - whatever a guessing parser stumbles over, the text was no JSON
        return
    if isinstance(value, list):
        # Several things were found: the answer and what stands around it.
        value = max((item for item in value if isinstance(item, dict)), key=lambda item: len(str(item)), default=None)
    if isinstance(value, dict) and value:
        yield value


def _nesting(text: str) -> int:
    """The most brackets open at once, not minding strings: cheap, and never too low for balanced text."""
    depth = most = 0
    for bracket in re.findall(r"[{}\[\]]", text):
        depth += 1 if bracket in "{[" else -1
        most = max(most, depth)
    return most


def _storable(value: Any, *, depth: int) -> Any:
    if depth > DEEPEST:
        raise Malformed(f"the answer is nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed("the answer holds a number that is not finite")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise Malformed(f"the answer holds an integer beyond {LARGEST_INTEGER}")
    if isinstance(value, list):
        return [_storable(item, depth=depth + 1) for item in value]
    if isinstance(value, dict):
        return {_storable(str(key), depth=depth): _storable(item, depth=depth + 1) for key, item in value.items()}
    return value
