"""What an agent may say in one turn: one to three actions, and the JSON schema that asks for them.

An `Offer` narrows the schema to what this agent may do now and to ids that exist for it.
What comes back is untrusted text: control characters go, sizes are bounded, and an id that
was not offered is an error that the model can mend.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from trilogue.agent import Role
from trilogue.errors import Malformed, Violation

MOST_ACTIONS = 3
LONGEST_TEXT = 20_000
LONGEST_TITLE = 200

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean(value: object) -> object:
    """Text without control characters, lone surrogates and direction overrides; anything else as it is."""
    return _CONTROL.sub("", value.replace("\r\n", "\n")).strip() if isinstance(value, str) else value


def _title(value: object) -> object:
    text = clean(value)
    return " ".join(text.split())[:LONGEST_TITLE] if isinstance(text, str) else text


def _text(value: object) -> object:
    text = clean(value)
    return text[:LONGEST_TEXT] if isinstance(text, str) else text


def _share(value: object) -> object:
    """A share as models write it: `0.8`, `"0.8"`, `8` of ten, `80` of a hundred, `"80 %"`; else the nearest bound."""
    scale = 1.0
    if isinstance(value, str):
        scale = 100.0 if value.strip().endswith("%") else 1.0
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(max(-1, min(value, 101)))  # one of hundreds of digits fits no float
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    if scale == 1 and 1 < value <= 100:
        scale = 10.0 if value <= 10 else 100.0
    return min(1.0, max(0.0, value / scale))


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


Title = Annotated[str, BeforeValidator(_title), Field(min_length=1)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Remark = Annotated[str, BeforeValidator(_text)]
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1, allow_inf_nan=False)]
Ref = Annotated[str, BeforeValidator(_title)]


class ActionKind(StrEnum):
    """The verbs of a turn (DESIGN section 1)."""

    FIND = "find"
    PROPOSE = "propose"
    CRITIQUE = "critique"
    REVISE = "revise"
    VOTE = "vote"
    SOLVE = "solve"
    MESSAGE = "message"
    RULE = "rule"
    DECOMPOSE = "decompose"
    PASS = "pass"  # noqa: S105 (the action, no password)


class _Action(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Find(_Action):
    """Something learned about the objective, with its evidence and how complex the agent rates the objective."""

    action: Literal[ActionKind.FIND]
    title: Title
    text: Text
    evidence: Remark = ""
    confidence: Share = 0.5
    complexity: Share = 0.5


class Propose(_Action):
    """A text that the agent wants agreed."""

    action: Literal[ActionKind.PROPOSE]
    title: Title
    text: Text


class Critique(_Action):
    """What is wrong or missing in another's proposal."""

    action: Literal[ActionKind.CRITIQUE]
    proposal: Ref
    text: Text


class Revise(_Action):
    """A new revision of the agent's own proposal; votes on the former one no longer count."""

    action: Literal[ActionKind.REVISE]
    proposal: Ref
    title: Title
    text: Text


class Vote(_Action):
    """Approve or reject another's proposal as the agent sees it."""

    action: Literal[ActionKind.VOTE]
    proposal: Ref
    verdict: Annotated[Literal["approve", "reject"], BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)]
    reason: Remark = ""


class Solve(_Action):
    """An answer to a subtask, or to the objective itself where the agent is alone."""

    action: Literal[ActionKind.SOLVE]
    title: Title
    text: Text
    subtask: Ref | None = None


class Message(_Action):
    """A word to the others; talk, no progress."""

    action: Literal[ActionKind.MESSAGE]
    to: Annotated[Literal["ALPHA", "BETA", "GAMMA", "ALL"], BeforeValidator(_upper)] = "ALL"
    content: Text


class Rule(_Action):
    """The mediator's ruling: the proposal that holds, as it stands (`choose`) or with a merged text (`merge`)."""

    action: Literal[ActionKind.RULE]
    outcome: Literal["choose", "merge"]
    proposal: Ref
    title: Remark = ""
    text: Remark = ""
    reason: Text


class Part(BaseModel):
    """One subtask of a decomposition."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    title: Title
    text: Text
    assignee: Annotated[Literal["ALPHA", "BETA"], BeforeValidator(_upper)]


class Decompose(_Action):
    """Two to six subtasks that ALPHA and BETA address."""

    action: Literal[ActionKind.DECOMPOSE]
    subtasks: Annotated[tuple[Part, ...], Field(min_length=2, max_length=6)]


class Pass(_Action):
    """Nothing to add for now."""

    action: Literal[ActionKind.PASS]
    reason: Remark = ""


Action = Find | Propose | Critique | Revise | Vote | Solve | Message | Rule | Decompose | Pass
_ACTIONS: dict[ActionKind, type[_Action]] = {
    ActionKind.FIND: Find,
    ActionKind.PROPOSE: Propose,
    ActionKind.CRITIQUE: Critique,
    ActionKind.REVISE: Revise,
    ActionKind.VOTE: Vote,
    ActionKind.SOLVE: Solve,
    ActionKind.MESSAGE: Message,
    ActionKind.RULE: Rule,
    ActionKind.DECOMPOSE: Decompose,
    ActionKind.PASS: Pass,
}
_READER: TypeAdapter[Action] = TypeAdapter(Annotated[Action, Field(discriminator="action")])


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one agent may do in one turn.

    Attributes:
        mandate: the kinds its tier and phase allow; any other is a procedure violation.
        actions: the kinds that also make sense now; the schema shows only these.
        votable, criticisable, revisable, rulable: ids of proposals; subtasks: ids of open subtasks.
    """

    mandate: frozenset[ActionKind]
    actions: frozenset[ActionKind]
    votable: tuple[str, ...] = ()
    criticisable: tuple[str, ...] = ()
    revisable: tuple[str, ...] = ()
    rulable: tuple[str, ...] = ()
    subtasks: tuple[str, ...] = ()
    recipients: tuple[Role, ...] = ()

    def ids_for(self, kind: ActionKind) -> tuple[str, ...]:
        """The ids that an action of this kind may name; empty where it names none."""
        return {
            ActionKind.VOTE: self.votable,
            ActionKind.CRITIQUE: self.criticisable,
            ActionKind.REVISE: self.revisable,
            ActionKind.RULE: self.rulable,
            ActionKind.SOLVE: self.subtasks,
        }.get(kind, ())


def read_turn(value: Any, offer: Offer) -> tuple[Action, ...]:
    """The actions in a model's answer, at most `MOST_ACTIONS` of them (more are cut off).

    Raises:
        Malformed: the shape or an id is wrong; the message tells the model what to mend.
        Violation: a kind of action outside the mandate; nothing can mend that.
    """
    items = _items(value)[:MOST_ACTIONS]
    for item in items:  # first of all: a mistake beside it, which can be mended, must not hide a violation
        if (kind := _kind(item)) and kind not in offer.mandate:
            allowed = ", ".join(sorted(offer.actions))
            raise Violation(f"action {kind.value!r} is outside the agent's mandate; allowed: {allowed}")
    actions = tuple(_read_action(item, offer) for item in items)
    for action in actions:
        _check_reference(action, offer)
    return actions


def _items(value: Any) -> list[Any]:
    match value:
        case {"actions": list(items)}:
            pass
        case list(items):
            pass
        case {"action": str()}:
            items = [value]
        case _:
            raise Malformed('the answer must be a JSON object {"actions": [...]} with one to three actions')
    if not items:
        raise Malformed('"actions" is empty: give one to three actions, or {"action": "pass"}')
    return items


def _kind(item: Any) -> ActionKind | None:
    name = item.get("action") if isinstance(item, Mapping) else None
    return next((kind for kind in ActionKind if isinstance(name, str) and name.strip().lower() == kind), None)


def _read_action(item: Any, offer: Offer) -> Action:
    kind = _kind(item)
    if kind is None:
        name = item.get("action") if isinstance(item, Mapping) else None
        raise Malformed(f"unknown action {str(name)[:40]!r}; allowed now: {', '.join(sorted(offer.actions))}")
    try:
        return _READER.validate_python({**item, "action": kind})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise Malformed(f"action {kind.value!r}: {where}: {first['msg']}") from None


def _check_reference(action: Action, offer: Offer) -> None:
    match action:
        case Vote(proposal=ref) | Critique(proposal=ref) | Revise(proposal=ref) | Rule(proposal=ref):
            pass
        case Solve(subtask=str(ref)) if ref:
            pass
        case Solve() if offer.subtasks or ActionKind.SOLVE not in offer.actions:
            ref = ""  # only an agent that is alone solves the objective itself
        case _:
            return
    known = offer.ids_for(ActionKind(action.action))
    if ref not in known:
        may = ", ".join(known) or "nothing now"
        raise Malformed(f"action {action.action!r} names {ref[:40]!r}; it may name: {may}")


def turn_schema(offer: Offer) -> dict[str, Any]:
    """The JSON schema of a turn's answer: strict (all properties required, none beside them),
    with only the offered kinds and ids in it. Source of the rules: OpenAI's structured outputs."""
    variants = [_variant(kind, offer) for kind in ActionKind if kind in offer.actions]
    return {
        "type": "object",
        "properties": {
            "actions": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_ACTIONS,
                "items": variants[0] if len(variants) == 1 else {"anyOf": variants},
            }
        },
        "required": ["actions"],
        "additionalProperties": False,
    }


_STRING = {"type": "string"}
_SHARE = {"type": "number", "description": "from 0 to 1"}


def _variant(kind: ActionKind, offer: Offer) -> dict[str, Any]:
    properties: dict[str, Any] = {"action": {"type": "string", "enum": [kind.value]}}
    ids = offer.ids_for(kind)
    match kind:
        case ActionKind.FIND:
            properties |= {
                "title": _STRING,
                "text": _STRING,
                "evidence": _STRING,
                "confidence": _SHARE,
                "complexity": {"type": "number", "description": "how complex the whole objective is, from 0 to 1"},
            }
        case ActionKind.PROPOSE:
            properties |= {"title": _STRING, "text": _STRING}
        case ActionKind.CRITIQUE:
            properties |= {"proposal": _enum(ids), "text": _STRING}
        case ActionKind.REVISE:
            properties |= {"proposal": _enum(ids), "title": _STRING, "text": _STRING}
        case ActionKind.VOTE:
            properties |= {"proposal": _enum(ids), "verdict": _enum(("approve", "reject")), "reason": _STRING}
        case ActionKind.SOLVE:
            properties |= {"title": _STRING, "text": _STRING}
            if ids:
                properties["subtask"] = _enum(ids)
        case ActionKind.MESSAGE:
            properties |= {"to": _enum(("ALL", *(role.value for role in offer.recipients))), "content": _STRING}
        case ActionKind.RULE:
            properties |= {
                "outcome": _enum(("choose", "merge")),
                "proposal": _enum(ids),
                "title": _STRING,
                "text": {"type": "string", "description": "the merged text; empty when choosing"},
                "reason": _STRING,
            }
        case ActionKind.DECOMPOSE:
            part = {"title": _STRING, "text": _STRING, "assignee": _enum(("ALPHA", "BETA"))}
            properties["subtasks"] = {"type": "array", "minItems": 2, "maxItems": 6, "items": _object(part)}
        case ActionKind.PASS:
            properties |= {"reason": _STRING}
    return _object(properties)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _enum(values: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}
