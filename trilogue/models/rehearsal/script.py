"""Who says what in a rehearsal: a pure function of the model's name and the situation shown.

Scenarios are chosen by model name: `rehearsal` agrees after an exchange; `rehearsal/conflict`
proposes against each other until GAMMA rules; `rehearsal/stuck` talks without proposing until
GAMMA shows a way; `rehearsal/complex` rates the objective so high that GAMMA decomposes it;
`rehearsal/faulty` agrees too, over malformed answers and failing calls (`transport`).
"""

import json
from collections.abc import Mapping
from typing import Any

from trilogue.models.prompts import SITUATION
from trilogue.models.rehearsal.phrases import MARK, angles, criteria, keywords, pick, plan, subject

SCENARIOS = ("rehearsal", "rehearsal/conflict", "rehearsal/stuck", "rehearsal/complex", "rehearsal/faulty")

_TALKS = 4
Actions = list[dict[str, Any]]
Situation = Mapping[str, Any]


def situation_in(request: Mapping[str, Any]) -> Situation | None:
    """The situation in a chat-completions request; None when it shows none."""
    for message in reversed(request.get("messages", [])):
        text = message.get("content")
        if message.get("role") == "user" and isinstance(text, str) and text.startswith(SITUATION):
            shown, _ = json.JSONDecoder().raw_decode(text[len(SITUATION) :])
            return shown if isinstance(shown, dict) else None
    return None


def rehearse(request: Mapping[str, Any]) -> str:
    """The text of the answer to a chat-completions request."""
    shown = situation_in(request)
    if shown is None:
        return f"{MARK} There is no situation to answer to."
    return json.dumps({"actions": _actions(str(request.get("model", "")), shown)}, ensure_ascii=False)


def _actions(model: str, shown: Situation) -> Actions:
    if shown["phase"] == "RUN":
        return _findings(model, shown)
    if called_for := shown.get("called_for"):
        return _mediate(called_for, shown)
    if shown.get("alone"):
        return [{"action": "solve", "title": _title(shown, "alone"), "text": _plan(shown, [])}]
    if model == "rehearsal/conflict":
        return _contend(shown)
    if model == "rehearsal/stuck" and not shown["proposals"]:
        return _talk(shown)
    if model == "rehearsal/complex" and (work := _subtasks(shown)):
        return work
    return _propose_or_revise(shown) if shown["you"] == "ALPHA" else _evaluate(shown)


def _findings(model: str, shown: Situation) -> Actions:
    about, role = subject(shown["objective"]), shown["you"]
    sources = [source["name"] for source in shown.get("sources", [])]
    evidence = f"read in {', '.join(sources)}" if sources else "the objective's own words"
    rating = 1.0 if model == "rehearsal/complex" else 0.4
    return [
        {
            "action": "find",
            "title": f"{about}: {angle}",
            "text": f"For {about}, {role} {does}. {MARK}",
            "evidence": evidence,
            "confidence": 0.7 if role == "ALPHA" else 0.6,
            "complexity": rating,
        }
        for angle, does in angles(shown["objective"], role)
    ]


def _propose_or_revise(shown: Situation) -> Actions:
    own = [p for p in shown["proposals"] if p["by"] == "ALPHA"]
    if votes := _votes_on(shown, lambda proposal: "approve" if proposal["by"] == "GAMMA" else "reject"):
        return votes
    if not own:
        return [{"action": "propose", "title": _title(shown, "first draft"), "text": _plan(shown, [])}]
    proposal = own[-1]
    remarks = [m["content"] for m in shown["messages"] if m["from"] != "ALPHA" and m["seq"] > proposal["seq"]]
    remarks += [c["text"] for c in proposal["critiques"] if c["seq"] > proposal["seq"]]
    if proposal["revision"] == 1 and not remarks:
        remarks = [m["content"] for m in shown["messages"] if m["from"] == "BETA"]
    rejected = any(v["verdict"] == "reject" and v["revision"] == proposal["revision"] for v in proposal["votes"])
    if (remarks and proposal["revision"] == 1) or rejected:
        return [
            {
                "action": "revise",
                "proposal": proposal["id"],
                "title": _title(shown, f"revision {proposal['revision'] + 1}"),
                "text": _plan(shown, remarks),
            }
        ]
    return _pass("my proposal stands")


def _evaluate(shown: Situation) -> Actions:
    asked = f"I will approve what shows {criteria(shown['objective'])}. {MARK}"
    if not any(m["from"] == "BETA" for m in shown["messages"]):
        return [{"action": "message", "to": "ALPHA", "content": asked}]
    drafts = [p["id"] for p in _unvoted(shown) if p["by"] == "ALPHA" and p["revision"] == 1 and not _answers(p)]
    if draft := next(iter(drafts), None):
        return [
            {"action": "critique", "proposal": draft, "text": f"It does not yet show {_wanted(shown)}."},
            {
                "action": "vote",
                "proposal": draft,
                "verdict": "reject",
                "reason": f"{_wanted(shown)} missing",
            },
        ]
    return _votes_on(shown, lambda _: "approve") or _pass("nothing new to judge")


def _answers(proposal: Mapping[str, Any]) -> bool:
    return "Answers to remarks" in proposal["text"]


def _wanted(shown: Situation) -> str:
    return criteria(shown["objective"])


def _contend(shown: Situation) -> Actions:
    role = shown["you"]
    if not any(p["by"] == role for p in shown["proposals"]):
        ways = ("small and soon", "thorough") if role == "ALPHA" else ("balanced",)
        return [
            {"action": "propose", "title": _title(shown, way), "text": _plan(shown, [f"the {way} way"])} for way in ways
        ]
    return _votes_on(shown, lambda _: "reject") or _pass("I hold to my own proposal")


def _talk(shown: Situation) -> Actions:
    role = shown["you"]
    said = sum(m["from"] == role for m in shown["messages"])
    if said >= _TALKS:
        return _pass("I wait for the other")
    word = pick(keywords(shown["objective"]), role, str(said))
    return [{"action": "message", "to": "ALL", "content": f"Before I propose anything: what about {word}? {MARK}"}]


def _subtasks(shown: Situation) -> Actions:
    """What an agent does about subtasks first; empty once all are solved."""
    tasks = shown.get("subtasks")
    if not tasks:
        return _pass("this is too complex to settle at once")
    mine = [task for task in tasks if task["assignee"] == shown["you"] and not task["solution"]]
    if mine:
        return [
            {"action": "solve", "subtask": task["id"], "title": task["title"], "text": f"Done: {task['text']} {MARK}"}
            for task in mine[:3]
        ]
    if any(not task["solution"] for task in tasks):
        return _pass("the other's subtasks are still open")
    return []


def _mediate(called_for: str, shown: Situation) -> Actions:
    about = subject(shown["objective"])
    match called_for:
        case "CONFLICT":
            best = max(shown["proposals"], key=lambda p: (sum(v["verdict"] == "approve" for v in p["votes"]), p["id"]))
            return [
                {
                    "action": "rule",
                    "outcome": "merge",
                    "proposal": best["id"],
                    "title": _title(shown, "ruling"),
                    "text": _plan(shown, [f"merged: {p['title']}" for p in shown["proposals"]]),
                    "reason": "The proposals differ in pace, not in aim; the merged text keeps the aim of each.",
                }
            ]
        case "COMPLEXITY":
            names = (keywords(shown["objective"]) * 2)[:4]
            return [
                {
                    "action": "decompose",
                    "subtasks": [
                        {
                            "title": f"{about}: {name} ({number})",
                            "text": f"Settle what {name} means for {about}.",
                            "assignee": "ALPHA" if number % 2 else "BETA",
                        }
                        for number, name in enumerate(names if len(names) > 1 else names * 2, 1)
                    ],
                }
            ]
        case _:
            return [
                {"action": "message", "to": "ALL", "content": f"The obstacle: nobody has proposed yet. {MARK}"},
                {"action": "propose", "title": _title(shown, "a way on"), "text": _plan(shown, [])},
            ]


def _unvoted(shown: Situation) -> list[Mapping[str, Any]]:
    """Others' proposals whose latest revision this agent has not voted on."""
    role = shown["you"]
    return [
        p
        for p in shown["proposals"]
        if p["by"] != role and not any(v["by"] == role and v["revision"] == p["revision"] for v in p["votes"])
    ]


def _votes_on(shown: Situation, verdict: Any) -> Actions:
    return [
        {
            "action": "vote",
            "proposal": p["id"],
            "verdict": verdict(p),
            "reason": f"measured against {_wanted(shown)}",
        }
        for p in _unvoted(shown)[:3]
    ]


def _title(shown: Situation, suffix: str) -> str:
    return f"{subject(shown['objective'])}: {suffix}"


def _plan(shown: Situation, answered: list[str]) -> str:
    titles = [finding["title"] for finding in shown["findings"]]
    titles += [f"solved: {task['title']}" for task in shown.get("subtasks", []) if task["solution"]]
    return plan(shown["objective"], titles, answered)


def _pass(reason: str) -> Actions:
    return [{"action": "pass", "reason": f"{reason} {MARK}"}]
