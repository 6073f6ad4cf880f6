"""Entries as log lines: one line each, with a level. What models and people wrote in them is cut and made inert."""

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from trilogue.actions import clean
from trilogue.api.outcomes import Moment
from trilogue.clock import iso
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Status

LevelName = Literal["debug", "info", "warning", "error"]
_LONGEST = 400
_FINE = {Status.COMPLETED, Status.SPAWNED, Status.RUNNING, Status.REPORT, Status.ORCHESTRATING}
_BROKEN_OFF = {"cancelled", "lost", "expired"}


class Level(IntEnum):
    """How much a line matters."""

    debug = 10
    info = 20
    warning = 30
    error = 40


class LogLine(BaseModel):
    """An entry as a line of a log."""

    seq: int
    at: Moment
    level: LevelName
    kind: Kind
    actor: str
    message: Annotated[str, Field(examples=["proposal p1: Cache at the edge"])]


class LogPage(BaseModel):
    """Lines in order."""

    items: list[LogLine]
    next: Annotated[int | None, Field(description="What to ask for as `after` to get what follows; null at the end.")]


def level_of(entry: Entry) -> Level:
    """How much an entry matters to whoever reads logs."""
    body = entry.body
    match entry.kind:
        case Kind.TURN_BEGUN | Kind.MANDATE | Kind.CHECKPOINT | Kind.AGENT_STATUS | Kind.CONTEXT:
            return Level.debug
        case Kind.TURN_ENDED:
            if body["error"]:
                return Level.warning
            return Level.info if body["outcome"] not in _BROKEN_OFF else Level.warning
        case Kind.FAILURE | Kind.VIOLATION | Kind.HANDOFF:
            return Level.error
        case Kind.STOPPED | Kind.REWOUND | Kind.BUDGET:
            return Level.warning
        case Kind.STATUS:
            if Status(body["status"]) in _FINE:
                return Level.info
            return Level.warning if body["status"] == Status.STOPPED.value else Level.error
        case _:
            return Level.info


def line(entry: Entry) -> LogLine:
    return LogLine(
        seq=entry.seq,
        at=iso(entry.at),
        level=level_of(entry).name,
        kind=entry.kind,
        actor=entry.actor,
        message=_one_line(_words(entry)),
    )


def _one_line(text: str) -> str:
    shown = " ".join(str(clean(text)).split())
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1].rstrip() + "…"


def _words(entry: Entry) -> str:
    body = entry.body
    name = entry.kind.value.replace("_", " ")
    match entry.kind:
        case Kind.PIPELINE_SPAWNED:
            return f"spawned: {body['objective']}"
        case Kind.STATUS:
            error = body.get("error")
            return f"status {body['status']}" + (f": {error['code']}: {error['message']}" if error else "")
        case Kind.TURN_BEGUN:
            return f"turn {body['turn']} begun by {body['agent_id']} with {body['model']}"
        case Kind.TURN_ENDED:
            told = f"turn {body['turn']} of {body['agent_id']} ended: {body['outcome']}"
            error = body.get("error")
            return f"{told}: {error['message']}" if error else f"{told} ({', '.join(body['actions']) or 'no actions'})"
        case Kind.VOTE:
            return f"vote on {body['proposal']}: {body['verdict']}: {body['reason']}"
        case Kind.MESSAGE:
            return f"message to {body['to']}: {body['content']}"
        case Kind.HANDOFF:
            return f"handoff of {body['agent_id']} to {body['to'] or 'nobody'}: {body['reason']}"
        case Kind.REPORT:
            return f"report: {body['findings']} findings, complexity {body['complexity']:.2f}"
        case Kind.CONSENSUS:
            return f"consensus on {body['proposal_id']}: {body['title']}"
        case Kind.ROUND_STARTED:
            return f"round {body['round']} started, {body['timeout']:g} s at most"
        case _:
            return f"{name} {_said(body)}".rstrip()


def _said(body: Mapping[str, Any]) -> str:
    """Which thing, and what was said of it, whatever the kind."""
    which = body.get("id") or body.get("proposal") or body.get("agent_id") or body.get("name") or body.get("trigger")
    said = next((body[key] for key in ("title", "message", "reason", "outcome", "text", "status") if body.get(key)), "")
    phase = body.get("phase", "") if not which else ""
    words = ": ".join(str(part) for part in (which, said or phase) if part)
    return words or json.dumps({key: value for key, value in body.items() if isinstance(value, str | int | float)})
