"""How a pipeline's entries look to a person: one sentence an entry, the same live, watched and in a file.

What models wrote is untrusted text: it is shown without control characters and never as markup.
"""

from rich.text import Text

from trilogue.actions import clean
from trilogue.board import Board
from trilogue.entry import PERSON, SYSTEM, Entry, Kind
from trilogue.governance.handoff import REPLACEMENT
from trilogue.pipeline import Status

STATUS_STYLES = {
    Status.SPAWNED: "dim",
    Status.RUNNING: "blue",
    Status.REPORT: "yellow",
    Status.ORCHESTRATING: "blue",
    Status.COMPLETED: "green",
    Status.TIMEOUT: "yellow",
    Status.ORCHESTRATION_FAILED: "red",
    Status.ORCHESTRATION_ERROR: "red",
    Status.FAILED: "red",
    Status.STOPPED: "magenta",
}
ACTOR_STYLES = {"ALPHA": "cyan", "BETA": "magenta", "GAMMA": "yellow"}
_BROKEN_OFF = {"cancelled", "lost"}
_TITLE_LENGTH = 90
_SAYING_LENGTH = 200


def inert(text: str) -> str:
    """The text without anything that could steer a terminal."""
    return str(clean(text))


def short(text: str, length: int = _TITLE_LENGTH) -> str:
    """One line of at most `length` characters."""
    line = " ".join(inert(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def said(text: str) -> str:
    """One line of what somebody said, longer than a title."""
    return short(text, _SAYING_LENGTH)


def sentence(board: Board, entry: Entry) -> tuple[str, Text] | None:
    """Who, and what an entry tells, on the board that it was applied to; None for what tells nothing new.

    Who is a role, or empty where Trilogue itself or a person records.
    """
    words = _words(entry)
    if words is None:
        return None
    who = board.role_of(entry.actor)
    return "" if who in {SYSTEM, PERSON} else who, Text(words) if isinstance(words, str) else words


def _words(entry: Entry) -> str | Text | None:
    body = entry.body
    match entry.kind:
        case Kind.PHASE_STARTED:
            return Text(f"── {body['phase']} ──", style="bold")
        case Kind.AGENT_SPAWNED:
            why = body.get("reason")
            because = " as a replacement" if why == REPLACEMENT else f" because of {why}" if why else ""
            return f"{body['agent_id']} joins as {body['role']} with {inert(body['model'])}{because}"
        case Kind.CONTEXT:
            return f"both agents are given {short(body['name'])}"
        case Kind.ROUND_STARTED if body["round"] > 1:
            why = f": {said(body['reason'])}" if body["reason"] else ""
            return f"round {body['round']}, {body['timeout']:g} s at most{why}"
        case Kind.FINDING:
            return f"finds {body['id']}: {short(body['title'])} (confidence {body['confidence']:.0%})"
        case Kind.PROPOSAL:
            return f"proposes {body['id']}: {short(body['title'])}"
        case Kind.REVISION:
            return f"revises {body['proposal']} (revision {body['revision']}): {short(body['title'])}"
        case Kind.CRITIQUE:
            return f"criticises {body['proposal']}: {said(body['text'])}"
        case Kind.VOTE:
            verdict = Text(f"{body['verdict']}s", style="green" if body["verdict"] == "approve" else "red")
            why = f": {said(body['reason'])}" if body["reason"] else ""
            return Text.assemble(verdict, f" {body['proposal']} (revision {body['revision']}){why}")
        case Kind.SOLUTION:
            what = f"solves {body['subtask']}" if body["subtask"] else "solves the objective"
            return f"{what}: {short(body['title'])}"
        case Kind.MESSAGE:
            return f"to {body['to']}: {said(body['content'])}"
        case Kind.RULING:
            return f"rules ({body['outcome']}) on {body['proposal']}: {said(body['reason'])}"
        case Kind.SUBTASK:
            return f"subtask {body['id']} for {body['assignee']}: {short(body['title'])}"
        case Kind.MEDIATION_STARTED:
            return Text(f"GAMMA is called: {body['trigger']} {_evidence(body['evidence'])}", style="yellow")
        case Kind.MEDIATION_ENDED:
            return f"mediation ended: {inert(body['outcome'])}"
        case Kind.GUIDANCE:
            return f"guidance: {said(body['text'])}"
        case Kind.REWOUND:
            why = f": {said(body['reason'])}" if body["reason"] else ""
            return Text(f"back to checkpoint {body['checkpoint']} (seq {body['to_seq']}){why}", style="yellow")
        case Kind.BUDGET:
            return Text(f"budget: {said(body['message'])}", style="red" if body["verdict"] == "stop" else "yellow")
        case Kind.VIOLATION:
            return Text(f"violation by {body['agent_id']}: {said(body['reason'])}", style="red")
        case Kind.HANDOFF:
            return Text(
                f"{body['agent_id']} is out ({body['reason']}); handed to {body['to'] or 'nobody'}", style="red"
            )
        case Kind.REPORT:
            reasons = "; ".join(body["continuation"]["reasons"])
            held = "" if body["continuation"]["auto"] else f"; held: {reasons}"
            return f"report: {body['findings']} findings, complexity {body['complexity']:.2f}{held}"
        case Kind.CONSENSUS:
            by = inert(body["decided_by"]).partition(":")[0]
            return Text(f"agreed: {short(body['title'])} (decided by {by})", style="green")
        case Kind.STATUS if Status(body["status"]).ended:
            status = Status(body["status"])
            why = f": {short(body['error']['message'], 200)}" if body["error"] else ""
            return Text(f"{status}{why}", style=STATUS_STYLES[status])
        case Kind.TURN_ENDED:
            return _turn(entry)
        case _:
            return None


def _turn(entry: Entry) -> str | Text | None:
    """Only a turn that brought no actions is worth a line; the others' actions have theirs."""
    body = entry.body
    if body["outcome"] in _BROKEN_OFF:
        return Text(f"was broken off in turn {body['turn']}", style="dim")
    if body["error"]:
        return Text(f"turn {body['turn']} failed ({body['outcome']}): {said(body['error']['message'])}", style="red")
    if body["actions"] == ["pass"]:
        return Text("passes", style="dim")
    return None


def _evidence(evidence: object) -> str:
    if not isinstance(evidence, dict):
        return ""
    shown = (f"{name.replace('_', ' ')} {_plain(value)}" for name, value in evidence.items())
    return f"({'; '.join(shown)})"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
