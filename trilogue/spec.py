"""What a user asks for: an objective with its options, checked before anything is started."""

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from trilogue.agent import Role
from trilogue.errors import Invalid

LONGEST_OBJECTIVE = 32_768
LONGEST_CONTEXT = 256 * 1024
_ALLOWED_CONTROLS = "\n\t\r"
_NOTHING_TO_SEE = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
_UNSEEN = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols by their category that show nothing."""

Mode = Literal["openrouter", "local"]


def _plain(text: str) -> str:
    if not any(unicodedata.category(one) not in _NOTHING_TO_SEE and one not in _UNSEEN for one in text):
        raise ValueError("is empty or blank: say in plain text what you want")
    for place, character in enumerate(text):
        if (ord(character) < 0x20 and character not in _ALLOWED_CONTROLS) or 0x7F <= ord(character) <= 0x9F:
            raise ValueError(f"has the control character {character!r} at position {place}; plain text only")
        if 0xD800 <= ord(character) <= 0xDFFF:
            raise ValueError(f"has a character at position {place} that is not valid Unicode")
    return text


def _objective(text: str) -> str:
    if len(text) > LONGEST_OBJECTIVE:
        raise ValueError(
            f"has {len(text):,} characters; at most {LONGEST_OBJECTIVE:,}. Longer material belongs in context documents"
        )
    return _plain(text)


def _context_text(text: str) -> str:
    if (size := len(text.encode(errors="surrogatepass"))) > LONGEST_CONTEXT:
        raise ValueError(f"has {size:,} bytes; at most {LONGEST_CONTEXT:,} a document")
    return _plain(text)


def _distinct(documents: "tuple[ContextDocument, ...]") -> "tuple[ContextDocument, ...]":
    names = [document.name for document in documents]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"has two documents called {twice!r}: the agents know them by their names")
    return documents


_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class ContextDocument(BaseModel):
    """A text that both agents are given as a source."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[_Name, Field(description="What the agents call it, such as a file name.")]
    text: Annotated[str, AfterValidator(_context_text), Field(description="Plain text, at most 256 KiB.")]


def _told(description: str, **shown: JsonValue) -> Any:
    """A field's description, with more rules to show. As extra JSON schema, since Prefect's form of a flow's
    parameters keeps that and drops a `Field`'s own description."""
    return Field(json_schema_extra={"description": description, **shown})


@dataclass(frozen=True)
class _Named:
    """What the two choices of a field that may be left out are called, in Prefect's form as in OpenAPI."""

    given: str
    left_out: str = "default"

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = handler(schema)
        for choice in shown["anyOf"]:
            choice["title"] = self.left_out if choice.get("type") == "null" else self.given
        return shown


# The fields, with the descriptions that the Prefect UI, OpenAPI and our errors show.
Objective = Annotated[
    str,
    AfterValidator(_objective),
    Field(min_length=1),
    _told(
        f"What you want, in plain text (at most {LONGEST_OBJECTIVE:,} characters).",
        maxLength=LONGEST_OBJECTIVE,
        pattern=r"\S",
    ),
]
AutoContinue = Annotated[bool, _told("Go on from REPORT by itself; off holds the pipeline there.")]
ModeChoice = Annotated[
    Mode | None,
    _Named("mode"),
    _told("Where models are called: `openrouter`, or `local` (your own server, or the built-in rehearsal)."),
]
Model = Annotated[_Name | None, _Named("name"), _told("The model of all agents, such as `anthropic/claude-sonnet-4`.")]
Models = Annotated[
    dict[Role, _Name] | None,
    _Named("per role", "none"),
    _told('A model of their own for some roles, such as `{"GAMMA": "…"}`.'),
]
Timeout = Annotated[
    _Seconds | None, _Named("seconds"), _told("Seconds that a round of ORCHESTRATE may take (at most a day).")
]
AgentTimeout = Annotated[
    _Seconds | None, _Named("seconds"), _told("Seconds that each agent may take in RUN (at most a day).")
]
MaxTokens = Annotated[
    Annotated[int, Field(ge=1, le=1_000_000_000)] | None,
    _Named("tokens"),
    _told("Tokens that each agent may spend in all, questions and answers together."),
]
MaxCost = Annotated[
    Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None,
    _Named("dollars"),
    _told("US dollars that the pipeline may spend in all."),
]


_Count = Annotated[int, Field(ge=1, le=1_000)]


class ErrorBudgetSpec(BaseModel):
    """How many errors take an agent out: in all, of one kind, and violations of its mandate."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    in_all: Annotated[_Count, Field(description="Errors in all.")] = 8
    alike: Annotated[_Count, Field(description="Errors of one kind.")] = 2
    violations: Annotated[_Count, Field(description="Actions outside its mandate.")] = 1


def _error_budget(value: Any) -> Any:
    """`8/2/1`, as on the command line, or an object."""
    if not isinstance(value, str):
        return value
    numbers, names = value.split("/"), list(ErrorBudgetSpec.model_fields)
    if len(numbers) != len(names) or not all(number.strip().isdecimal() for number in numbers):
        raise ValueError("must be three numbers such as 8/2/1: errors in all, of one kind, and procedure violations")
    return dict(zip(names, numbers, strict=True))


Errors = Annotated[
    ErrorBudgetSpec | None,
    BeforeValidator(_error_budget),
    _Named("error budget"),
    _told("How many errors take an agent out."),
]
Replacements = Annotated[
    Annotated[int, Field(ge=0, le=10)] | None,
    _Named("number"),
    _told("How often in a round an agent that was taken out is replaced at once; 0 lets its partner go on alone."),
]
Context = Annotated[
    tuple[ContextDocument, ...],
    Field(max_length=32),
    AfterValidator(_distinct),
    _told("Texts that both agents are given as sources."),
]
Project = Annotated[_Name, _told("The project that the pipeline belongs to.")]
Labels = Annotated[tuple[_Name, ...], Field(max_length=32), _told("Words to find the pipeline by.")]
ExternalId = Annotated[_Name | None, _Named("name", "none"), _told("Your own id for it; unique in your tenant.")]
Webhook = Annotated[
    Annotated[str, Field(max_length=2_000, pattern=r"^https?://[\x21-\x7e]+$")] | None,
    _Named("URL"),
    _told("Where a signed POST goes whenever the pipeline ends, such as `https://example.com/hooks`."),
]
PipelineId = Annotated[
    _Name | None, _Named("name", "none"), _told("A pipeline that is recorded already, to take up; none for a new one.")
]
KnownPipelineId = Annotated[_Name, _told("The pipeline to continue, such as p-7k3m9q2xw4bd.")]
Reason = Annotated[str, Field(max_length=2_000), _told("Why it is continued; kept on record.")]
Guidance = Annotated[
    str, Field(max_length=LONGEST_OBJECTIVE), _told("What the agents should heed; they see it on the board.")
]


class PipelineSpec(BaseModel):
    """One objective with its options; `None` means "as configured". Durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    objective: Objective
    auto_continue: AutoContinue = True
    mode: ModeChoice = None
    model: Model = None
    models: Models = None
    timeout: Timeout = None
    agent_timeout: AgentTimeout = None
    max_tokens: MaxTokens = None
    max_cost: MaxCost = None
    errors: Errors = None
    replacements: Replacements = None
    context: Context = ()
    project: Project = "default"
    labels: Labels = ()
    external_id: ExternalId = None
    webhook: Webhook = None


class RoundSpec(BaseModel):
    """What `continue` may change for the next round; `None` means "as before"."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mode: ModeChoice = None
    model: Model = None
    timeout: Timeout = None
    max_tokens: MaxTokens = None
    max_cost: MaxCost = None
    reason: Reason = ""
    guidance: Guidance = ""


def checked_spec(**values: Any) -> PipelineSpec:
    """A `PipelineSpec` from plain values.

    Raises:
        Invalid: names the field, what is wrong with it, and its value where that is short.
    """
    try:
        return PipelineSpec(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise _invalid(error) from None


def checked_round(**values: Any) -> RoundSpec:
    """A `RoundSpec` from plain values. Raises `Invalid` like `checked_spec`."""
    try:
        return RoundSpec(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> Invalid:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]") or "request"
    what = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    shown = f" (given: {value!r})" if isinstance(value, str | int | float) and len(str(value)) <= 80 else ""
    return Invalid(f"{where}: {what[:1].lower()}{what[1:]}{shown}", code=f"invalid_{where.split('.')[0]}")


def digest(text: str) -> str:
    """SHA-256 of a text, lowercase hex."""
    return hashlib.sha256(text.encode()).hexdigest()
