"""Putting an answer together from what an OpenAI-compatible server sends, streamed or whole.

Knows the shapes on the wire and nothing of the network. Servers differ, so every field may
be missing or of another type than it should be; what cannot be an answer is a `NoAnswer`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.models.faults import Scrubber
from trilogue.models.question import Usage, nanousd, tokens_in

LONGEST_ANSWER = 4 * 1024 * 1024
"""Bytes or characters of one answer that are taken in; beyond it the server is out of its mind."""
MOST_TOKENS = 1_000_000_000
"""A count beyond it is none: no store need hold whatever integer a server writes."""

_plain = Scrubber(key=None)


class NoAnswer(Exception):
    """What came cannot be an answer; the text says why."""


class ErrorInAnswer(Exception):
    """The server reported an error where an answer should be."""

    def __init__(self, error: object) -> None:
        super().__init__("error in the answer")
        self.error = error


@dataclass(kw_only=True)
class Answer:
    """What a model has said so far.

    Attributes:
        model: who answers; the one asked for until the server says otherwise.
        asked_tokens: a guess at how long the question is, for servers that do not count.
        finish: the server's `finish_reason`, once there is one.
        refusal: the model's words when it refuses.
        counted: the server's own `usage`, once there is one.
    """

    model: str
    asked_tokens: int
    text: str = ""
    refusal: str = ""
    finish: str | None = None
    counted: Mapping[str, Any] | None = None

    def take_chunk(self, chunk: object) -> bool:
        """Take in one event of a stream; whether the text grew."""
        return self._take(chunk, part="delta")

    def take_whole(self, body: object) -> bool:
        """Take in a whole `chat.completion`, which servers send that do not stream."""
        grew = self._take(body, part="message")
        self.finish = self.finish or "stop"
        return grew

    def check_complete(self) -> None:
        """Raise `NoAnswer` unless the server said that the answer is at its end."""
        if self.finish is None and self.counted is None:
            raise NoAnswer("the answer ended before its end" if self.text else "the answer holds nothing")

    @property
    def was_cut(self) -> bool:
        """Whether the answer ran into `max_tokens`."""
        return self.finish == "length"

    def usage(self) -> Usage:
        """What this one call consumed, as the server counted it; estimated where it did not."""
        counted = self.counted or {}
        given = _count(counted.get("prompt_tokens"))
        made = _count(counted.get("completion_tokens"))
        details = counted.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
        return Usage(
            input_tokens=self.asked_tokens if given is None else given,
            output_tokens=tokens_in(self.text) if made is None else made,
            cached_tokens=cached or 0,
            cost_nanousd=nanousd(counted.get("cost")),
            calls=1,
            model=self.model,
            estimated=given is None or made is None,
            told_nanousd=nanousd(counted.get("cost")) or 0,
        )

    def usage_when_broken(self) -> Usage:
        """What the call consumed when it failed after the request had been sent: no less than this."""
        if self.counted is not None:
            return self.usage()
        made = tokens_in(self.text)
        return Usage(
            input_tokens=self.asked_tokens,
            output_tokens=made,
            cost_nanousd=None,
            calls=1,
            model=self.model,
            estimated=True,
            broken_calls=1,
            broken_tokens=self.asked_tokens + made,
        )

    def _take(self, body: object, *, part: str) -> bool:
        if not isinstance(body, Mapping):
            raise NoAnswer("what it sent is no JSON object")
        if error := body.get("error"):
            raise ErrorInAnswer(error)
        if body.get("object") == "error":  # vLLM puts the error's fields at the top
            raise ErrorInAnswer(body)
        if isinstance(model := body.get("model"), str) and (name := _plain(model)):
            self.model = name
        if isinstance(usage := body.get("usage"), Mapping):
            self.counted = usage
        choices = body.get("choices")
        if choices == [] and (self.counted is not None or part == "delta"):
            return False
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            raise NoAnswer("what it sent has no `choices`")
        return self._take_choice(choices[0], part=part)

    def _take_choice(self, choice: Mapping[str, Any], *, part: str) -> bool:
        if error := choice.get("error"):
            raise ErrorInAnswer(error)
        if isinstance(finish := choice.get("finish_reason"), str):
            self.finish = finish
            if finish == "error":
                raise ErrorInAnswer({"message": "the provider stopped with an error"})
        said = choice.get(part) or {}
        if not isinstance(said, Mapping):
            raise NoAnswer(f"what it sent has a `{part}` that is no object")
        content = said.get("content")
        if content is not None and not isinstance(content, str):
            raise NoAnswer(f"what it sent has a `{part}.content` that is no text")
        if isinstance(refusal := said.get("refusal"), str):
            self.refusal += refusal
        if not content:
            return False
        if len(self.text) + len(content) > LONGEST_ANSWER:
            raise NoAnswer(f"the answer is longer than {LONGEST_ANSWER} characters")
        self.text += content
        return True


def _count(tokens: object) -> int | None:
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return None
    return tokens if 0 <= tokens <= MOST_TOKENS else None
