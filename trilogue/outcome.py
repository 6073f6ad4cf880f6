"""How a pipeline went, as one JSON document and as Markdown (DESIGN section 10)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trilogue.board import Board
from trilogue.clock import SECOND, iso
from trilogue.ledger import Cost, PipelineRow, UsageRow
from trilogue.money import USD


def result_markdown(pipeline_id: str, board: Board) -> str:
    """The agreed text with who decided it and who dissented; without one, why, and what there is."""
    lines = []
    if board.spec.get("rehearsal") or (board.round and board.round.rehearsal):
        lines += ["> Rehearsal: no language model was used.", ""]
    if consensus := board.consensus:
        lines += [f"# {consensus['title']}", "", str(consensus["text"]), "", "---", ""]
        lines += [
            f"Decided by {consensus['decided_by'].rstrip('.')}{' (uncontested)' if consensus['uncontested'] else ''}."
        ]
        lines += _list("Votes", [_vote(vote) for vote in consensus["votes"]])
        lines += _list("Dissent", [f"{item['voter']}: {item['reason']}" for item in consensus["dissent"]])
    else:
        error = board.error or {"message": "nothing was decided yet"}
        lines += [f"# Pipeline {pipeline_id}: {board.status}", "", f"No agreed text: {error['message']}."]
        lines += _list("On the board", [f"{p.id} ({p.author}): {p.latest.title}" for p in board.proposals.values()])
    lines += _list("Subtasks", [f"{task.id} ({task.assignee}): {task.title}" for task in board.subtasks.values()])
    lines += _list("Solutions", [f"{s.id} ({s.author}): {s.title}\n\n  {s.text}" for s in board.solutions.values()])
    return "\n".join(lines).rstrip() + "\n"


def _vote(vote: dict[str, str]) -> str:
    return f"{vote['voter']}: {vote['verdict']}" + (f" ({vote['reason']})" if vote["reason"] else "")


def _list(heading: str, items: list[str]) -> list[str]:
    return ["", f"**{heading}**", "", *(f"- {item}" for item in items)] if items else []


def outcome_json(row: PipelineRow, board: Board, usage: list[UsageRow]) -> dict[str, Any]:
    """The document that `--json` gives. Times are ISO 8601, durations seconds, unknown cost is null."""
    spent = {agent.agent_id: agent for agent in usage}
    return {
        "pipeline_id": row.pipeline_id,
        "status": board.status.value,
        "orphaned": row.orphaned,
        "mode": board.round.mode if board.round else board.spec["mode"],
        "rehearsal": bool(board.round.rehearsal if board.round else board.spec["rehearsal"]),
        "model": _model(board),
        "objective": board.spec["objective"],
        "phases": [
            {
                "phase": span.phase.value,
                "started_at": iso(span.started_at),
                "seconds": round(((span.ended_at or board.at) - span.started_at) / SECOND, 3),
            }
            for span in board.phases
        ],
        "budget": _budget(board),
        "agents": [_agent(board, agent_id, spent.get(agent_id)) for agent_id in board.agents],
        "report": dict(board.report) if board.report else None,
        "mediation": [
            {"trigger": m.trigger, "evidence": dict(m.evidence), "outcome": m.outcome} for m in board.mediations
        ],
        "subtasks": [
            {"id": task.id, "title": task.title, "assignee": task.assignee.value, "solved": task not in open_tasks}
            for open_tasks in [board.open_subtasks()]
            for task in board.subtasks.values()
        ],
        "consensus": dict(board.consensus) if board.consensus else None,
        "error": {**board.error, "at": iso(board.error["at"])} if board.error else None,
        "ledger": {"entries": row.head_seq, "head": row.head_hash},
    }


def _model(board: Board) -> str:
    agents = list(board.agents.values())
    return str(board.spec["model"] or (agents[0].model if agents else ""))


def _agent(board: Board, agent_id: str, spent: UsageRow | None) -> dict[str, Any]:
    agent = board.agents[agent_id]
    cost = spent.cost_nanousd if spent else 0
    mandate, charged = board.mandates.get(agent_id), board.spending_of(agent_id)
    return {
        "agent_id": agent_id,
        "role": agent.role.value,
        "runtime": agent.runtime,
        "model": agent.model,
        "status": agent.status.value,
        "turns": board.turns_of.get(agent_id, 0),
        "tokens": {
            "input": spent.input_tokens if spent else 0,
            "output": spent.output_tokens if spent else 0,
        },
        "cost_usd": None if cost is None else cost / USD,
        "errors": board.errors_of.get(agent_id, 0),
        "budget": {
            "tokens": mandate.tokens if mandate else None,
            "spent": charged.spent.tokens,
            "reserved": charged.reserved.tokens,
            "estimated": charged.estimated,
        },
    }


def _budget(board: Board) -> dict[str, Any]:
    """What the pipeline may spend in dollars and was charged with so far; `estimated` where a call's end is unknown."""
    charged = board.spending_in_all()
    return {
        "cost_usd": None if board.max_nanousd is None else board.max_nanousd / USD,
        "spent_usd": charged.spent.nanousd / USD,
        "reserved_usd": charged.reserved.nanousd / USD,
        "estimated": charged.estimated,
    }


def list_item(row: PipelineRow, cost: Cost) -> dict[str, Any]:
    """A pipeline in a list; an unknown cost is null."""
    return {
        "pipeline_id": row.pipeline_id,
        "tenant": row.tenant,
        "project": row.project,
        "status": row.status.value,
        "phase": row.phase.value,
        "objective": row.objective,
        "created_at": iso(row.created_at),
        "ended_at": iso(row.ended_at) if row.ended_at else None,
        "orphaned": row.orphaned,
        "cost_usd": cost.usd,
        "tokens": {"input": cost.input_tokens, "output": cost.output_tokens},
    }


def list_items(rows: Sequence[PipelineRow], costs: Mapping[str, Cost]) -> list[dict[str, Any]]:
    """Pipelines in a list, with the cost of each by its id."""
    return [list_item(row, costs[row.pipeline_id]) for row in rows]


def cost_in_all(usage: Iterable[UsageRow]) -> Cost:
    """What a pipeline's agents used together."""
    cost = Cost()
    for agent in usage:
        cost = Cost(
            nanousd=cost.nanousd + (agent.cost_nanousd or 0),
            unknown=cost.unknown or agent.cost_nanousd is None,
            input_tokens=cost.input_tokens + agent.input_tokens,
            output_tokens=cost.output_tokens + agent.output_tokens,
        )
    return cost
