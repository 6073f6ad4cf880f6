"""What an entry changes in the other tables: a pure mapping from kinds to row changes.

Applied in the transaction that appends the entries, so that no table ever tells
another story than the ledger.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trilogue.agent import AgentStatus
from trilogue.entry import Entry, Kind
from trilogue.errors import IllegalTransition, Invalid
from trilogue.ledger.chain import canonical
from trilogue.pipeline import Phase, Status, check_transition

Row = dict[str, Any]


@dataclass(kw_only=True)
class Changes:
    """The row changes that some entries of one pipeline add up to.

    Attributes:
        status: the pipeline's status before them, then after them.
        pipeline: columns of its row in `pipelines`.
        agents: rows to set; an agent spawned again takes the place of its former self.
        agent_statuses: agent id to new status, for agents that were there before.
        agents_gone: ids of agents that a rewinding undid.
        usage, checkpoints: rows to insert.
        limits: agent id (empty for the pipeline) to the columns of its budget that change.
        reserved: agent id, amount; settled: agent id, what is given back, what is charged; `settle_whole`: charge
            whatever the pipeline has reserved.
        ends: the entries by which it ended; consensus: the body of what it then agreed on.
    """

    status: Status
    pipeline: Row = field(default_factory=dict)
    agents: dict[str, Row] = field(default_factory=dict)
    agent_statuses: dict[str, AgentStatus] = field(default_factory=dict)
    agents_gone: list[str] = field(default_factory=list)
    usage: list[Row] = field(default_factory=list)
    checkpoints: list[Row] = field(default_factory=list)
    limits: dict[str, Row] = field(default_factory=dict)
    reserved: list[tuple[Entry, str, Row]] = field(default_factory=list)
    settled: list[tuple[Entry, str, Row, Row]] = field(default_factory=list)
    settle_whole: bool = False
    ends: list[Entry] = field(default_factory=list)
    consensus: Mapping[str, Any] | None = None


def project(entries: Sequence[Entry], status: Status) -> Changes:
    """The changes that `entries` make to a pipeline that was in `status`.

    Raises:
        IllegalTransition: an entry claims a status that may not follow.
        Invalid: an entry's body lacks what its kind must have.
    """
    changes = Changes(status=status)
    for entry in entries:
        rule = _RULES.get(entry.kind)
        if rule is None:
            continue
        try:
            rule(entry, entry.body, changes)
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise Invalid(f"the body of {entry.kind.value!r} cannot be recorded: {what}", code="bad_entry") from error
    return changes


def _pipeline_spawned(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    if entry.seq != 1:
        raise ValueError(f"it must be the first entry, not number {entry.seq!r}")
    if not isinstance(body["objective"], str):
        raise TypeError(f"the objective must be text, not {body['objective']!r}")
    changes.pipeline |= {
        "project": body.get("project"),
        "external_id": body.get("external_id"),
        "spec": canonical(dict(body), what="the spec"),
        "status": changes.status.value,
        "phase": Phase.SPAWN.value,
        "round": 0,
        "created_at": entry.at,
    }
    changes.limits[""] = {"nanousd_limit": body.get("max_cost_nanousd")}


def _phase_started(_: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    changes.pipeline["phase"] = Phase(body["phase"]).value


def _status(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    wanted = Status(body["status"])
    if body.get("resumed"):
        _check_resumption(changes.status, wanted)
    else:
        check_transition(changes.status, wanted)
    _set_status(entry, wanted, body, changes)
    if wanted.ended:
        changes.ends.append(entry)


def _rewound(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    if changes.status is Status.COMPLETED:
        raise IllegalTransition("a pipeline that is COMPLETED cannot be rewound")
    _set_status(entry, Status(body["status"]), body, changes)
    changes.pipeline |= {"phase": Phase(body["phase"]).value, "round": body["round"], "deadline_at": body["deadline"]}
    changes.agent_statuses |= {agent_id: AgentStatus(status) for agent_id, status in body["agents"].items()}
    changes.agents_gone += body["gone"]


def _set_status(entry: Entry, wanted: Status, body: Mapping[str, Any], changes: Changes) -> None:
    error = body.get("error")
    changes.status = wanted
    changes.pipeline |= {
        "status": wanted.value,
        "stop_requested_at": entry.at if wanted is Status.STOPPED else None,
        "error_code": error["code"] if error else None,
        "error_message": error["message"] if error else None,
        "error_at": entry.at if error else None,
        "ended_at": entry.at if wanted.ended else None,
    }


def _check_resumption(present: Status, wanted: Status) -> None:
    if wanted.ended or (present.ended and present not in {Status.FAILED, Status.STOPPED}):
        raise IllegalTransition(f"a pipeline that is {present} cannot be resumed as {wanted}")


def _round_started(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    changes.pipeline |= {
        "round": body["round"],
        "deadline_at": body["deadline"],
        "orchestration_started_at": entry.at,
    }
    _raise_limit(body, changes)


def _resumed(_: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    if body["deadline"] is not None:
        changes.pipeline["deadline_at"] = body["deadline"]
    _raise_limit(body, changes)


def _raise_limit(body: Mapping[str, Any], changes: Changes) -> None:
    if "max_cost_nanousd" in body:
        changes.limits[""] = {"nanousd_limit": body["max_cost_nanousd"]}


def _agent_spawned(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    agent_id = body["agent_id"]
    changes.agent_statuses.pop(agent_id, None)
    changes.agents[agent_id] = {
        "tenant": entry.tenant,
        "pipeline_id": entry.pipeline_id,
        "agent_id": agent_id,
        "role": body["role"],
        "tier": body["tier"],
        "runtime": body["runtime"],
        "model": body["model"],
        "status": AgentStatus.SPAWNED.value,
        "spawned_at": entry.at,
    }


def _agent_status(_: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    agent_id, status = body["agent_id"], AgentStatus(body["status"])
    if agent_id in changes.agents:
        changes.agents[agent_id]["status"] = status.value
    else:
        changes.agent_statuses[agent_id] = status


def _mandate(_: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    changes.limits[body["agent_id"]] = {"tokens_limit": body["tokens"]}


def _turn_begun(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    changes.reserved.append((entry, body["agent_id"], body["reserved"]))


def _stopped(_: Entry, __: Mapping[str, Any], changes: Changes) -> None:
    changes.settle_whole = True


def _turn_ended(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    settled = {name: body["settled"][name] for name in ("tokens", "cost_nanousd")}
    changes.settled.append((entry, body["agent_id"], body["reserved"], settled))
    usage = body["usage"]
    if usage is None and not body["calls"]:
        return
    tokens = usage or {"input_tokens": None, "output_tokens": None, "cached_tokens": None}
    changes.usage.append(
        {
            "tenant": entry.tenant,
            "pipeline_id": entry.pipeline_id,
            "seq": entry.seq,
            "agent_id": body["agent_id"],
            "phase": body["phase"],
            "round": body["round"],
            "turn": body["turn"],
            "model": body["model"],
            "input_tokens": tokens["input_tokens"],
            "output_tokens": tokens["output_tokens"],
            "cached_tokens": tokens["cached_tokens"],
            "cost_nanousd": body["cost_nanousd"],
            "calls": body["calls"],
            "at": entry.at,
        }
    )


def _consensus(_: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    changes.consensus = body


def _checkpoint(entry: Entry, body: Mapping[str, Any], changes: Changes) -> None:
    details = body.get("details")
    changes.checkpoints.append(
        {
            "tenant": entry.tenant,
            "pipeline_id": entry.pipeline_id,
            "seq": entry.seq,
            "name": body["name"],
            "to_seq": body["to_seq"],
            "status": Status(body["status"]).value,
            "phase": Phase(body["phase"]).value,
            "round": body["round"],
            "details": None if details is None else canonical(details, what="the details"),
            "at": entry.at,
        }
    )


_RULES: Mapping[Kind, Callable[[Entry, Mapping[str, Any], Changes], None]] = {
    Kind.PIPELINE_SPAWNED: _pipeline_spawned,
    Kind.PHASE_STARTED: _phase_started,
    Kind.STATUS: _status,
    Kind.ROUND_STARTED: _round_started,
    Kind.AGENT_SPAWNED: _agent_spawned,
    Kind.AGENT_STATUS: _agent_status,
    Kind.RESUMED: _resumed,
    Kind.REWOUND: _rewound,
    Kind.MANDATE: _mandate,
    Kind.TURN_BEGUN: _turn_begun,
    Kind.STOPPED: _stopped,
    Kind.TURN_ENDED: _turn_ended,
    Kind.CONSENSUS: _consensus,
    Kind.CHECKPOINT: _checkpoint,
}
