"""The `data` of each type of event, as documents: what OpenAPI and the README show.

Agents are named by `agent_id` and `role`; money is in dollars, times are ISO 8601, texts are
untrusted: a model wrote them.
"""

from collections.abc import Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11


class EventFault(TypedDict):
    """Why something failed."""

    code: str
    message: str


class _Data(TypedDict):
    pipeline_id: str


class _ByAgent(_Data):
    agent_id: str
    role: str


class _InTurn(_ByAgent):
    turn: int


class PipelineStatusEvent(_Data):
    """Where the pipeline is now; the first one also says what was asked for.

    With `checkpoint`, a person took it back to there.
    """

    status: str
    phase: str
    round: int
    error: EventFault | None
    objective: NotRequired[str]
    project: NotRequired[str | None]
    mode: NotRequired[str]
    rehearsal: NotRequired[bool]
    checkpoint: NotRequired[str]


class PhaseStartedEvent(_Data):
    """A phase begins: SPAWN, RUN, REPORT, ORCHESTRATE or COMPLETE."""

    phase: str


class ContextEvent(_Data):
    """A document was given along with the objective; its text is in the entries."""

    name: str
    characters: int
    sha256: str


class Participant(TypedDict):
    """One agent that takes part in a round, and the model that it asks."""

    agent_id: str
    role: str
    model: str


class OrchestrationStartedEvent(_Data):
    """A round begins, with those who take part from before; replacements follow as `agent_spawned`."""

    model: str
    agents: list[Participant]
    round: int
    mode: str
    rehearsal: bool
    timeout: float
    deadline: str
    reason: str


class EventResults(TypedDict):
    """What the pipeline brought."""

    consensus: Mapping[str, Any] | None
    solutions: list[Mapping[str, Any]]
    proposals: list[Mapping[str, Any]]
    rehearsal: bool


class OrchestrationCompleteEvent(_Data):
    """The pipeline has ended, with or without agreement: the last event until somebody takes it up again.

    `round` is 0 where it ended before its first one.
    """

    status: str
    results: EventResults
    round: int
    error: EventFault | None


class AgentSpawnedEvent(_ByAgent):
    """ALPHA or BETA joins; `reason` is `replacement` where one comes for another that was taken out."""

    runtime: str
    tier: int
    model: str
    reason: str | None


class GammaSpawnedEvent(AgentSpawnedEvent):
    """GAMMA joins; `reason` is its trigger: STUCK, CONFLICT or COMPLEXITY."""


class AgentStatusEvent(_ByAgent):
    """An agent is now `RUNNING`, `COMPLETED`, `TIMED_OUT`, `HANDED_OFF`, …"""

    status: str
    reason: str


class MandateEvent(_ByAgent):
    """What an agent may spend, and until when."""

    tier: int
    tokens: int | None
    expires_at: str


class TurnBegunEvent(_InTurn):
    """An agent asks its model; `turn_delta` events bear what it says meanwhile."""

    phase: str
    round: int
    model: str


class TurnDeltaEvent(_InTurn):
    """The readable text of a running turn from character `offset` on; offset 0 begins anew.

    An offset beyond what has come so far means that text was lost on its way. Never recorded: `seq` is null.
    """

    offset: int
    text: str


class TurnEndedEvent(_InTurn):
    """A turn has ended; what it brought came just before."""

    outcome: str
    actions: list[str]
    notes: list[str]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: EventFault | None


# `from` is a keyword: these two cannot be written as classes.
AgentMessageEvent = TypedDict(
    "AgentMessageEvent",
    {
        "pipeline_id": str,
        "from": str,
        "to": str,
        "content": str,
        "agent_id": str,
        "role": str,
        "message_id": str,
        "turn": int,
    },
)
AgentMessageEvent.__doc__ = "A word from one agent to another, or to ALL; `from` and `to` are roles."

ResumedEvent = TypedDict("ResumedEvent", {"pipeline_id": str, "reason": str, "from": str, "deadline": str | None})
ResumedEvent.__doc__ = "A person took the pipeline up again from the status `from`."


class FindingEvent(_InTurn):
    """Something learned about the objective; `confidence` and `complexity` from 0 to 1."""

    finding_id: str
    title: str
    text: str
    evidence: str
    confidence: float
    complexity: float


class ProposalEvent(_InTurn):
    """A text that its author wants agreed, or a new revision of it."""

    proposal_id: str
    revision: int
    title: str
    text: str


class CritiqueEvent(_InTurn):
    """What is wrong or missing in a proposal."""

    critique_id: str
    proposal_id: str
    revision: int
    text: str


class VoteEvent(_InTurn):
    """`approve` or `reject` of one revision of a proposal."""

    proposal_id: str
    revision: int
    verdict: str
    reason: str


class SolutionEvent(_InTurn):
    """An answer to a subtask, or (`subtask_id` null) to the objective itself."""

    solution_id: str
    subtask_id: str | None
    title: str
    text: str


class RulingEvent(_InTurn):
    """GAMMA's ruling after a CONFLICT: the proposal that holds, as it stood or merged."""

    mediation: int
    trigger: str
    proposal_id: str
    revision: int
    outcome: str
    title: str
    text: str
    reason: str


class SubtaskEvent(_InTurn):
    """A part into which GAMMA has decomposed the objective, and whose it is."""

    subtask_id: str
    title: str
    text: str
    assignee: str


class MediationStartedEvent(_Data):
    """A trigger has struck."""

    mediation: int
    trigger: str
    evidence: Mapping[str, Any]


class MediationEndedEvent(_Data):
    """GAMMA's part is done."""

    mediation: int
    trigger: str
    outcome: str


class ConsensusReachedEvent(_Data):
    """The agreed text; `proposal_id` is null where it joins solutions."""

    proposal_id: str | None
    votes: list[Mapping[str, Any]]
    revision: int | None
    title: str
    text: str
    decided_by: str
    dissent: list[Mapping[str, Any]]
    uncontested: bool


class BudgetEvent(_ByAgent):
    """Tokens or money run short: `verdict` is `allow` for a warning, `degrade` or `stop`."""

    scope: str
    of: str
    limit: int
    spent: int
    percent: int
    verdict: str
    message: str


class ViolationEvent(_InTurn):
    """An agent tried what its mandate does not allow."""

    reason: str


class HandoffEvent(_ByAgent):
    """An agent was taken out; what it leaves, and to whom."""

    to: str | None
    reason: str
    done: Mapping[str, Any]
    open_proposals: list[str]
    unanswered: list[str]
    errors: list[str]
    next: str


class FailureEvent(_Data):
    """An agent, or (`agent_id` null) the pipeline, failed."""

    agent_id: str | None
    code: str
    message: str


class ReportEvent(_Data):
    """The joined findings, and whether the pipeline goes on by itself."""

    markdown: str
    findings: int
    complexity: float
    continuation: Mapping[str, Any]


class GuidanceEvent(_Data):
    """What a person says to the agents."""

    text: str


class StoppedEvent(_Data):
    """A person stopped the pipeline."""

    reason: str


class CheckpointEvent(_Data):
    """A state from which the pipeline can go on. The one at its end is told as `orchestration_complete`."""

    name: str
    to_seq: int
    status: str
    phase: str
    round: int


class SnapshotEvent(TypedDict):
    """The first message to whoever watches all: the pipelines that have not ended, or did so recently.

    `items` are those of `GET /api/pipelines`, each with the `seq` after which its events follow.
    """

    items: list[Mapping[str, Any]]


class HeartbeatEvent(TypedDict):
    """A sign of life; empty."""


class ErrorEvent(TypedDict):
    """Why the connection is about to be closed."""

    error: str
    detail: str


DATA: Mapping[str, type] = {
    "pipeline_status": PipelineStatusEvent,
    "phase_started": PhaseStartedEvent,
    "context": ContextEvent,
    "orchestration_started": OrchestrationStartedEvent,
    "orchestration_complete": OrchestrationCompleteEvent,
    "agent_spawned": AgentSpawnedEvent,
    "gamma_spawned": GammaSpawnedEvent,
    "agent_status": AgentStatusEvent,
    "agent_message": AgentMessageEvent,
    "mandate": MandateEvent,
    "turn_begun": TurnBegunEvent,
    "turn_delta": TurnDeltaEvent,
    "turn_ended": TurnEndedEvent,
    "finding": FindingEvent,
    "proposal": ProposalEvent,
    "critique": CritiqueEvent,
    "vote": VoteEvent,
    "solution": SolutionEvent,
    "ruling": RulingEvent,
    "subtask": SubtaskEvent,
    "mediation_started": MediationStartedEvent,
    "mediation_ended": MediationEndedEvent,
    "consensus_reached": ConsensusReachedEvent,
    "budget": BudgetEvent,
    "violation": ViolationEvent,
    "handoff": HandoffEvent,
    "failure": FailureEvent,
    "report": ReportEvent,
    "guidance": GuidanceEvent,
    "stopped": StoppedEvent,
    "resumed": ResumedEvent,
    "checkpoint": CheckpointEvent,
    "snapshot": SnapshotEvent,
    "heartbeat": HeartbeatEvent,
    "error": ErrorEvent,
}
"""Every type of event, with the shape of its data."""
