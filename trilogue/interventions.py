"""What carries a pipeline from outside its own course: a round begun, a stop, a resumption, a rewinding.

Pure builders of entries, which check whether the pipeline is where that may happen.
"""

from collections.abc import Mapping

from trilogue.agent import NEGOTIATORS, AgentStatus, Role
from trilogue.board import Board
from trilogue.clock import Micros, seconds
from trilogue.deliberation.turns import lost_turns
from trilogue.entry import PERSON, Draft, Kind
from trilogue.errors import Conflict, NotFound
from trilogue.governance.handoff import next_agent_id
from trilogue.governance.handoff import spawned as agent_spawned
from trilogue.governance.mandates import issued
from trilogue.limits import nanousd_of
from trilogue.phases import agent_status, model_of
from trilogue.pipeline import Phase, Status, check_transition, status_in
from trilogue.spec import RoundSpec


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
        agent_status(agent_id, AgentStatus.RUNNING),
    ]


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
    ended_at = board.error["at"] if board.error else board.at  # of the end itself, also where it was rewound to later
    left = max(0, board.round.deadline - ended_at) if board.round else 0
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

    Raises as `check_rewindable`, and `Conflict` where no reason is given for a stopped one.
    """
    check_rewindable(board, to_seq)
    if board.status is Status.STOPPED:
        check_resumable(board, reason)
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
