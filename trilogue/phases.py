"""What each phase puts on record: pure builders of entries, idempotent on the board they are given."""

from collections.abc import Mapping
from typing import Any

from trilogue.agent import NEGOTIATORS, AgentStatus, Role
from trilogue.board import Board
from trilogue.clock import Micros, seconds
from trilogue.deliberation.rounds import RoundEnd
from trilogue.deliberation.turns import lost_turns
from trilogue.entry import PERSON, Draft, Kind
from trilogue.errors import BudgetSpent, Conflict, Denied, EndpointFault, Exhausted, NotFound, TrilogueError
from trilogue.governance.handoff import next_agent_id
from trilogue.governance.handoff import spawned as agent_spawned
from trilogue.governance.mandates import issued
from trilogue.limits import DEFAULT_LIMITS, Limits, nanousd_of
from trilogue.pipeline import Phase, Status, check_transition, status_in
from trilogue.report import report_body
from trilogue.spec import PipelineSpec, RoundSpec, digest


def spawned(
    spec: PipelineSpec,
    *,
    mode: str,
    rehearsal: bool,
    model: str,
    timeout: float,
    agent_timeout: float,
    limits: Limits = DEFAULT_LIMITS,
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
    return drafts + _checkpoint(board, "spawned", len(drafts), Status.SPAWNED, Phase.SPAWN)


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
    return drafts + _checkpoint(board, "report", len(drafts), Status.REPORT, Phase.REPORT)


def model_of(board: Board, role: Role) -> str:
    """The model that agents of a role call: the round's, else that of the role's agent, else ALPHA's."""
    if board.round and role.value in board.round.models:
        return board.round.models[role.value]
    named = board.spec["models"].get(role.value)
    agent = board.agent_in(role) or board.agent_in(Role.ALPHA)
    return str(named or (agent.model if agent else board.spec["model"]))


def check_continuable(board: Board) -> None:
    """Raise unless a round may begin: by the pipeline's status, and because there is something to negotiate.

    Raises:
        IllegalTransition, Conflict: it may not.
    """
    check_transition(board.status, Status.ORCHESTRATING)
    if not board.findings:
        raise Conflict("no agent has findings, so there is nothing to negotiate; start a new pipeline")


def first_round(board: Board, now: Micros) -> list[Draft]:
    """The round that follows REPORT by itself: with the pipeline's own mode, models and timeout."""
    return round_begun(
        board,
        now,
        {role: model_of(board, role) for role in Role},
        asked=RoundSpec(),
        revive=False,
        mode=board.spec["mode"],
        rehearsal=board.spec["rehearsal"],
        timeout=board.spec["timeout"],
    )


def round_begun(
    board: Board,
    now: Micros,
    models: Mapping[Role, str],
    *,
    asked: RoundSpec,
    mode: str,
    rehearsal: bool,
    timeout: float,
    revive: bool = True,
) -> list[Draft]:
    """The beginning of a round: from REPORT, or from an ended one by `continue`. Raises as `check_continuable`.

    Args:
        revive: whether revoked agents come back as replacements; where not, their partner goes on alone.
    """
    check_continuable(board)
    number = board.round.number + 1 if board.round else 1
    taking_part = NEGOTIATORS if revive else [agent.role for agent in board.voters()]
    deadline = now + seconds(timeout)
    at_work = [_at_work(board, role, models, deadline, asked.max_tokens) for role in taking_part]
    return [
        Draft(kind=Kind.STATUS, body={"status": Status.ORCHESTRATING.value, "error": None}),
        Draft(kind=Kind.PHASE_STARTED, body={"phase": Phase.ORCHESTRATE.value}),
        Draft(
            kind=Kind.ROUND_STARTED,
            body={
                "round": number,
                "mode": mode,
                "rehearsal": rehearsal,
                "model": models[Role.ALPHA],
                "models": {role.value: name for role, name in models.items()},
                "timeout": timeout,
                "deadline": deadline,
                "reason": asked.reason,
                **_raised(asked),
            },
        ),
        *([Draft(kind=Kind.GUIDANCE, actor=PERSON, body={"text": asked.guidance})] if asked.guidance.strip() else []),
        *(draft for drafts in at_work for draft in drafts),
    ]


def _raised(asked: RoundSpec) -> dict[str, int]:
    """The limits that a person sets anew, as entries record them."""
    raised = {}
    if asked.max_tokens is not None:
        raised["max_tokens"] = asked.max_tokens
    if asked.max_cost is not None:
        raised["max_cost_nanousd"] = nanousd_of(asked.max_cost)
    return raised


def _at_work(
    board: Board, role: Role, models: Mapping[Role, str], until: Micros, max_tokens: int | None = None
) -> list[Draft]:
    """A role's agent at work under a new mandate; one that was taken out comes back as its replacement."""
    agent = board.agent_in(role)
    anew = agent is None or agent.revoked
    agent_id = next_agent_id(board, role) if agent is None or agent.revoked else agent.agent_id
    return [
        *([agent_spawned(agent_id, role, models[role])] if anew else []),
        issued(board, agent_id, role, until=until, max_tokens=max_tokens),
        _agent_status(agent_id, AgentStatus.RUNNING),
    ]


def concluded(board: Board, end: RoundEnd) -> list[Draft]:
    """The end of a round: consensus if there is one, COMPLETE, the status and the checkpoint of the end."""
    if board.status is not Status.ORCHESTRATING:
        return []
    agents = AgentStatus.TIMED_OUT if end.status is Status.TIMEOUT else AgentStatus.COMPLETED
    drafts = [_agent_status(agent.agent_id, agents) for agent in board.voters()]
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


def stopped(*, status: Status, phase: Phase, round_: int, head_seq: int, reason: str) -> list[Draft]:
    """The emergency stop, in one commit: the status, which closes the ledger to agents, and the final checkpoint.

    Raises:
        IllegalTransition: the pipeline has ended already.
    """
    check_transition(status, Status.STOPPED)
    why = f"by a person: {reason}" if reason else "by a person"
    body = {"status": Status.STOPPED.value, "error": {"code": "stopped", "message": why}}
    checkpoint = {"name": "stopped", "to_seq": head_seq + 2, "status": Status.STOPPED.value, "phase": phase.value}
    return [
        Draft(kind=Kind.STATUS, actor=PERSON, body=body),
        Draft(kind=Kind.STOPPED, actor=PERSON, body={"reason": reason}),
        Draft(kind=Kind.CHECKPOINT, body={**checkpoint, "round": round_, "details": None}),
    ]


def check_resumable(board: Board, reason: str) -> None:
    """Raise `Conflict` unless the pipeline FAILED, or was STOPPED and a reason is given."""
    if board.status not in {Status.FAILED, Status.STOPPED}:
        advice = "; `continue` begins another round" if board.status.continuable else ""
        raise Conflict(f"a pipeline that is {board.status} cannot be resumed{advice}", code="not_resumable")
    if board.status is Status.STOPPED and not reason.strip():
        raise Conflict("a stopped pipeline is resumed only with a reason; give one with --reason", code="reason_needed")


def resumed(board: Board, now: Micros, models: Mapping[Role, str], asked: RoundSpec) -> list[Draft]:
    """Back from FAILED or STOPPED into the phase it was in, with the time that was left then.

    Agents that were taken out come back as replacements; errors count anew. Raises as `check_resumable`.

    Args:
        asked: the reason, and limits to raise.
    """
    check_resumable(board, asked.reason)
    phase = board.phase
    left = max(0, board.round.deadline - board.at) if board.round else 0
    deadline = now + left if board.round else None
    told = {"reason": asked.reason, "from": board.status.value, "deadline": deadline, **_raised(asked)}
    until = now + (left if board.round else seconds(board.spec["agent_timeout"]))
    roles = [role for role in NEGOTIATORS if board.agent_in(role)]
    at_work = [draft for role in roles for draft in _at_work(board, role, models, until, asked.max_tokens)]
    return [
        Draft(
            kind=Kind.STATUS,
            actor=PERSON,
            body={"status": status_in(phase).value, "error": None, "resumed": True},
        ),
        Draft(kind=Kind.RESUMED, actor=PERSON, body=told),
        Draft(kind=Kind.PHASE_STARTED, body={"phase": phase.value}),
        *(at_work if phase is not Phase.SPAWN else []),
    ]


def check_rewindable(board: Board, to_seq: int) -> None:
    """Raise `Conflict` where the pipeline has completed, `NotFound` where no checkpoint stands at `to_seq`."""
    if board.status is Status.COMPLETED:
        raise Conflict("a pipeline that is COMPLETED goes on from no checkpoint; start a new one", code="completed")
    if to_seq not in board.snapshots:
        known = ", ".join(map(str, board.snapshots)) or "none yet"
        raise NotFound(f"no checkpoint at seq {to_seq}; there are: {known}", code="no_checkpoint")


def rewound(board: Board, to_seq: int, checkpoint: str, reason: str) -> list[Draft]:
    """Back to a checkpoint: the board as it stood then, while what was spent and given out stays.

    Raises as `check_rewindable`.
    """
    check_rewindable(board, to_seq)
    former = board.snapshots[to_seq]
    error = {"code": former.error["code"], "message": former.error["message"]} if former.error else None
    body = {
        "to_seq": to_seq,
        "checkpoint": checkpoint,
        "reason": reason,
        "status": former.status.value,
        "phase": former.phase.value,
        "round": former.round.number if former.round else 0,
        "deadline": former.round.deadline if former.round else None,
        "error": error,
        "agents": {agent.agent_id: agent.status.value for agent in former.agents.values()},
        "gone": [agent_id for agent_id in board.agents if agent_id not in former.agents],
    }
    return [*lost_turns(board), Draft(kind=Kind.REWOUND, actor=PERSON, body=body)]


def _ended(board: Board, status: Status, error: Mapping[str, Any] | None, before: int) -> list[Draft]:
    check_transition(board.status, status)
    drafts = [Draft(kind=Kind.STATUS, body={"status": status.value, "error": error})]
    phase = Phase.COMPLETE if status is Status.COMPLETED else board.phase
    name = status.value.lower()
    return drafts + _checkpoint(board, name, before + 1, status, phase, _details(board, error) if error else None)


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


def _checkpoint(
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


def _agent_status(agent_id: str, status: AgentStatus) -> Draft:
    return Draft(kind=Kind.AGENT_STATUS, body={"agent_id": agent_id, "status": status.value, "reason": ""})
