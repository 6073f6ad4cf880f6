"""What each phase puts on record: pure builders of entries, idempotent on the board they are given."""

from collections.abc import Mapping
from typing import Any

from trilogue.agent import NEGOTIATORS, AgentStatus, Role
from trilogue.board import Board
from trilogue.clock import Micros, seconds
from trilogue.deliberation.rounds import RoundEnd
from trilogue.entry import Draft, Kind
from trilogue.errors import BudgetSpent, Denied, EndpointFault, Exhausted, TrilogueError
from trilogue.governance.handoff import next_agent_id
from trilogue.governance.handoff import spawned as agent_spawned
from trilogue.governance.mandates import issued
from trilogue.limits import DEFAULT_LIMITS, Limits
from trilogue.pipeline import Phase, Status, check_transition
from trilogue.report import report_body
from trilogue.spec import PipelineSpec, digest


def spawned(
    spec: PipelineSpec,
    *,
    mode: str,
    rehearsal: bool,
    model: str,
    timeout: float,
    agent_timeout: float,
    limits: Limits = DEFAULT_LIMITS,
    webhook: str | None = None,
) -> list[Draft]:
    """A pipeline's first entries: the objective with its settled options, and its context documents."""
    settled = limits.over(spec)
    body: dict[str, Any] = {
        "objective": spec.objective,
        "project": spec.project,
        "mode": mode,
        "rehearsal": rehearsal,
        "model": model,
        "models": {role.value: name for role, name in (spec.models or {}).items()},
        "timeout": timeout,
        "agent_timeout": agent_timeout,
        "max_tokens": settled.max_tokens,
        "max_cost_nanousd": settled.max_nanousd,
        "errors": settled.errors.as_json(),
        "replacements": settled.replacements,
        "auto_continue": spec.auto_continue,
        "labels": list(spec.labels),
        "external_id": spec.external_id,
        "webhook": webhook,
    }
    return [
        Draft(kind=Kind.PIPELINE_SPAWNED, body=body),
        *(
            Draft(
                kind=Kind.CONTEXT, body={"name": document.name, "text": document.text, "sha256": digest(document.text)}
            )
            for document in spec.context
        ),
    ]


def enlisted(board: Board, models: Mapping[Role, str], now: Micros) -> list[Draft]:
    """SPAWN: ALPHA and BETA with their mandates, which for RUN begin `now`, and the checkpoint `spawned`."""
    until = now + seconds(board.spec["agent_timeout"])
    drafts = []
    for role in NEGOTIATORS:
        agent = board.agent_in(role)  # there already where the pipeline was rewound to this point
        agent_id = agent.agent_id if agent else next_agent_id(board, role)
        drafts += [] if agent else [agent_spawned(agent_id, role, models[role])]
        drafts.append(issued(board, agent_id, role, until=until))
    return drafts + checkpoint(board, "spawned", len(drafts), Status.SPAWNED, Phase.SPAWN)


def running(board: Board) -> list[Draft]:
    """The beginning of RUN."""
    if board.status is not Status.SPAWNED:
        return []
    return [
        Draft(kind=Kind.STATUS, body={"status": Status.RUNNING.value, "error": None}),
        Draft(kind=Kind.PHASE_STARTED, body={"phase": Phase.RUN.value}),
    ]


def check_run(board: Board) -> None:
    """Raise what makes a pipeline FAILED at the end of RUN; return where its findings can be reported."""
    for agent in board.agents.values():
        if agent.refused:
            raise Denied(f"{agent.agent_id}: {agent.refused}", code="model_refused")
    if not board.voters():
        raise Exhausted("every agent was revoked before it brought findings", code="no_agent_left")
    if board.findings:
        return
    if spent := next((agent.out_of_budget for agent in board.voters() if agent.out_of_budget), None):
        raise BudgetSpent(f"no agent brought findings: {spent}; raise max_tokens or max_cost")
    if fault := next((agent.endpoint_fault for agent in board.voters() if agent.endpoint_fault), None):
        raise EndpointFault(f"no agent could reach its model until RUN ended: {fault}")
    raise Exhausted(
        "no agent brought findings within its time; raise agent_timeout, or use a faster model", code="no_findings"
    )


def reported(board: Board, *, auto_orchestrate: bool) -> list[Draft]:
    """REPORT: the joined findings with the continuation verdict, and the checkpoint `report`."""
    if board.status is not Status.RUNNING:
        return []
    drafts = [
        Draft(kind=Kind.STATUS, body={"status": Status.REPORT.value, "error": None}),
        Draft(kind=Kind.PHASE_STARTED, body={"phase": Phase.REPORT.value}),
        Draft(kind=Kind.REPORT, body=report_body(board, auto_orchestrate=auto_orchestrate)),
    ]
    return drafts + checkpoint(board, "report", len(drafts), Status.REPORT, Phase.REPORT)


def model_of(board: Board, role: Role) -> str:
    """The model that agents of a role call: the round's, else that of the role's agent, else ALPHA's."""
    if board.round and role.value in board.round.models:
        return board.round.models[role.value]
    named = board.spec["models"].get(role.value)
    agent = board.agent_in(role) or board.agent_in(Role.ALPHA)
    return str(named or (agent.model if agent else board.spec["model"]))


def concluded(board: Board, end: RoundEnd) -> list[Draft]:
    """The end of a round: consensus if there is one, COMPLETE, the status and the checkpoint of the end."""
    if board.status is not Status.ORCHESTRATING:
        return []
    agents = AgentStatus.TIMED_OUT if end.status is Status.TIMEOUT else AgentStatus.COMPLETED
    drafts = [agent_status(agent.agent_id, agents) for agent in board.voters()]
    if end.consensus:
        drafts.append(Draft(kind=Kind.CONSENSUS, body=end.consensus))
    if end.status is Status.COMPLETED:
        drafts.append(Draft(kind=Kind.PHASE_STARTED, body={"phase": Phase.COMPLETE.value}))
    return drafts + _ended(board, end.status, end.error, len(drafts))


def failed(board: Board, error: TrilogueError) -> list[Draft]:
    """The end of a pipeline that cannot be carried out, with the details of its failure."""
    if board.status.ended:
        return []
    detail = {"code": error.code, "message": error.message}
    status = Status.ORCHESTRATION_ERROR if board.status is Status.ORCHESTRATING else Status.FAILED
    drafts = [Draft(kind=Kind.FAILURE, body={"agent_id": None, **detail})]
    return drafts + _ended(board, status, detail, 1)


def _ended(board: Board, status: Status, error: Mapping[str, Any] | None, before: int) -> list[Draft]:
    check_transition(board.status, status)
    drafts = [Draft(kind=Kind.STATUS, body={"status": status.value, "error": error})]
    phase = Phase.COMPLETE if status is Status.COMPLETED else board.phase
    name = status.value.lower()
    return drafts + checkpoint(board, name, before + 1, status, phase, _details(board, error) if error else None)


def _details(board: Board, error: Mapping[str, Any]) -> dict[str, Any]:
    """What a person needs to see of a failure: the error, each agent's faults, and what is left to go on from."""
    return {
        "error": dict(error),
        "agents": [
            {
                "agent_id": agent.agent_id,
                "status": agent.status.value,
                "faults": list(agent.faults),
                "endpoint_fault": agent.endpoint_fault,
                "refused": agent.refused,
            }
            for agent in board.agents.values()
        ],
        "failures": [dict(failure) for failure in board.failures],
    }


def checkpoint(
    board: Board, name: str, before: int, status: Status, phase: Phase, details: Mapping[str, Any] | None = None
) -> list[Draft]:
    body = {
        "name": name,
        "to_seq": board.seq + before,
        "status": status.value,
        "phase": phase.value,
        "round": board.round.number if board.round else 0,
        "details": details,
    }
    return [Draft(kind=Kind.CHECKPOINT, body=body)]


def agent_status(agent_id: str, status: AgentStatus) -> Draft:
    return Draft(kind=Kind.AGENT_STATUS, body={"agent_id": agent_id, "status": status.value, "reason": ""})
