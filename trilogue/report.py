"""Findings into a report, and whether the pipeline may go on from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import NEGOTIATORS
from trilogue.board import Board, Finding
from trilogue.mediation import complexity


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Whether ORCHESTRATE may follow (`eligible`), and whether it does by itself (`auto`).

    `reasons` are sentences: why not, where either is false.
    """

    eligible: bool
    auto: bool
    reasons: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"eligible": self.eligible, "auto": self.auto, "reasons": list(self.reasons)}


def continuation(board: Board, *, auto_orchestrate: bool) -> Continuation:
    """The continuation rule (DESIGN section 3, "Going on from REPORT")."""
    obstacles = []
    if not board.findings:
        obstacles.append("no agent has findings")
    obstacles += [f"{a.agent_id} is {a.status}" for a in board.agents.values() if not a.status.settled]
    if not board.voters():
        obstacles.append("no agent is left to go on")
    elif all(agent.out_of_budget for agent in board.voters()):
        obstacles += dict.fromkeys(agent.out_of_budget or "" for agent in board.voters())
    holds = []
    if not board.spec.get("auto_continue", True):
        holds.append("the pipeline was started with auto_continue off")
    if not auto_orchestrate:
        holds.append("AUTO_ORCHESTRATE is off")
    return Continuation(
        eligible=not obstacles, auto=not obstacles and not holds, reasons=tuple(obstacles) + tuple(holds)
    )


def report_body(board: Board, *, auto_orchestrate: bool) -> Mapping[str, Any]:
    """The body of the `report` entry: Markdown, number of findings, complexity score, continuation."""
    return {
        "markdown": _markdown(board),
        "findings": len(board.findings),
        "complexity": complexity(board),
        "continuation": continuation(board, auto_orchestrate=auto_orchestrate).as_json(),
    }


def _markdown(board: Board) -> str:
    objective = " ".join(str(board.spec.get("objective", "")).split())
    lines = [f"# Report: {_short(objective, 120)}", ""]
    if board.spec.get("rehearsal"):
        lines += ["> Rehearsal: no language model was used.", ""]
    for agent in board.agents.values():
        if agent.role not in NEGOTIATORS:
            continue
        own = [finding for finding in board.findings.values() if finding.author == agent.agent_id]
        lines += [f"## {agent.role} ({agent.agent_id}, {agent.status.lower().replace('_', ' ')})", ""]
        lines += [line for finding in own for line in _finding(finding)] or ["No findings.", ""]
    lines += ["## Assessment", "", f"Complexity {complexity(board):.2f} of 1."]
    if board.failures:
        lines += ["", "Failures:", ""]
        lines += [f"- {failure['agent_id'] or 'pipeline'}: {failure['message']}" for failure in board.failures]
    return "\n".join(lines).rstrip() + "\n"


def _finding(finding: Finding) -> list[str]:
    lines = [f"### {finding.id}. {finding.title}", "", finding.text, ""]
    if finding.evidence:
        lines += [f"*Evidence:* {finding.evidence}", ""]
    return [*lines, f"*Confidence {finding.confidence:.0%}.*", ""]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
