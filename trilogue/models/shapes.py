"""How a question is put, and how it is put to a server that refuses part of it.

A server is asked for a JSON schema first, then for any JSON object, then in words alone; it
is asked for streamed usage until it objects. What it takes is remembered by model, so that
finding out is paid for once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from trilogue.models.endpoint import Endpoint
from trilogue.models.faults import Said
from trilogue.models.question import Question
from trilogue.models.wording import in_words

_ABOUT_STREAM_OPTIONS = ("stream_options", "stream options", "include_usage")
_ABOUT_STRUCTURE = (
    "response_format",
    "response format",
    "json_schema",
    "json_object",
    "json mode",
    "schema",
    "structured",
    "grammar",
    "requested parameters",  # OpenRouter: no provider of this model takes them
)
_OBJECTING = frozenset({400, 404, 415, 422, 500, 501})
"""500 too: llama.cpp answers so when it cannot make a grammar of a schema."""


class Structure(IntEnum):
    """What makes an answer JSON; lower is weaker."""

    WORDS = 0
    JSON_OBJECT = 1
    JSON_SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How to ask a certain model at a certain address."""

    structure: Structure = Structure.JSON_SCHEMA
    stream_options: bool = True

    def without(self, said: Said) -> "Shape | None":
        """This shape without what the server objects to; `None` when it objects to something else."""
        if said.status not in _OBJECTING:
            return None
        words = f"{said.message} {said.raw} {said.metadata}".lower()
        if self.stream_options and any(name in words for name in _ABOUT_STREAM_OPTIONS):
            return replace(self, stream_options=False)
        if self.structure is Structure.WORDS:
            return None
        # Some servers say only "bad request" to what they do not know: the first such answer is not believed.
        mute = said.status == 400 and self.structure is Structure.JSON_SCHEMA
        if mute or any(name in words for name in _ABOUT_STRUCTURE):
            return replace(self, structure=Structure(self.structure - 1))
        return None


@dataclass(kw_only=True)
class KnownShapes:
    """What each model has been found to take."""

    _found: dict[str, Shape] = field(default_factory=dict)

    def of(self, model: str) -> Shape:
        return self._found.get(model, Shape())

    def keep(self, model: str, shape: Shape) -> None:
        """Remember that `model` answered when asked in `shape`."""
        self._found[model] = shape


Message = Mapping[str, str]


def messages_for(question: Question) -> list[Message]:
    """The conversation that `question` begins; the schema stands in it too, as many servers ignore the parameter."""
    system = (
        f"{question.system}\n\n"
        "Answer with exactly one JSON object and nothing else: no prose, no code fence. "
        f"It must have this form, with every field:\n{in_words(question.schema)}"
    )
    return [_message("system", system), _message("user", question.prompt)]


def repair_messages(asked: Sequence[Message], *, answer: str, complaint: str) -> list[Message]:
    """The conversation `asked`, taken up after an `answer` that could not be used."""
    turned_down = f"That answer cannot be used: {complaint}\nGive the whole answer again as one JSON object, corrected."
    given = [_message("assistant", answer)] if answer.strip() else []
    return [*asked, *given, _message("user", turned_down)]


def request_for(question: Question, messages: Sequence[Message], *, endpoint: Endpoint, shape: Shape) -> dict[str, Any]:
    """The arguments of `chat.completions.create`."""
    request: dict[str, Any] = {
        "model": question.model,
        "messages": list(messages),
        "max_tokens": question.max_tokens,
        "stream": True,
    }
    if shape.stream_options:
        request["stream_options"] = {"include_usage": True}
    if shape.structure is Structure.JSON_SCHEMA:
        schema = {"name": question.schema_name, "strict": True, "schema": dict(question.schema)}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif shape.structure is Structure.JSON_OBJECT:
        request["response_format"] = {"type": "json_object"}
    if endpoint.mode == "openrouter" and question.fallback_models:
        request["extra_body"] = {"models": [question.model, *question.fallback_models]}
    return request


def _message(role: str, content: str) -> Message:
    # A lone surrogate (an argument from a shell in another encoding) would fail while the body is written.
    return {"role": role, "content": content.encode("utf-8", "replace").decode()}
