"""The outcome document (`trilogue.outcome`), described for OpenAPI: how a pipeline went, or stands."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from trilogue.agent import AgentStatus, Role
from trilogue.mediation import Trigger
from trilogue.pipeline import Phase, Status

Moment = Annotated[str, Field(description="ISO 8601, UTC.", examples=["2026-11-22T09:00:00.000Z"])]
PipelineId = Annotated[str, Field(examples=["p-7k3m9q2xw4bd"])]
CostInAll = Annotated[
    float | None, Field(description="US dollars of all its turns so far; null where that of any is unknown.")
]


class PhaseSpan(BaseModel):
    """When a phase began, and how long it took so far."""

    phase: Phase
    started_at: Moment
    seconds: float


class Tokens(BaseModel):
    """As the model's server told them."""

    input: int
    output: int


class AgentBudget(BaseModel):
    """What an agent may use of its tokens and was charged with; null is no limit."""

    tokens: int | None
    spent: int
    reserved: int
    estimated: Annotated[bool, Field(description="Whether a call's end is unknown, so that it was charged whole.")]


class Agent(BaseModel):
    """One participant."""

    agent_id: Annotated[str, Field(examples=["alpha-1"])]
    role: Role
    runtime: str
    model: str
    status: AgentStatus
    turns: int
    tokens: Tokens
    cost_usd: Annotated[float | None, Field(description="Null where the server tells no costs: unknown, not nothing.")]
    errors: int
    budget: AgentBudget


class PipelineBudget(BaseModel):
    """What the pipeline may spend in US dollars and was charged with so far."""

    cost_usd: float | None
    spent_usd: float
    reserved_usd: float
    estimated: bool


class Continuation(BaseModel):
    """Whether ORCHESTRATE may follow the report, and whether it does by itself."""

    eligible: bool
    auto: bool
    reasons: Annotated[list[str], Field(description="Why not, where either is false.")]


class JoinedReport(BaseModel):
    """The joined findings."""

    markdown: str
    findings: int
    complexity: Annotated[float, Field(description="0 to 1; above a threshold GAMMA joins.")]
    continuation: Continuation


class Mediation(BaseModel):
    """What GAMMA was called for; the outcome is null while it is under way."""

    trigger: Trigger
    evidence: dict[str, Any]
    outcome: str | None


class SubtaskItem(BaseModel):
    """Part of an objective that GAMMA decomposed."""

    id: str
    title: str
    assignee: Role
    solved: bool


class VoteItem(BaseModel):
    """One voter's last word."""

    voter: str
    verdict: str
    reason: str


class Dissent(BaseModel):
    """Who disagreed with a ruling, and why."""

    voter: str
    reason: str


class Consensus(BaseModel):
    """The agreed text, who decided it, and who did not agree."""

    proposal_id: Annotated[str | None, Field(description="Of a proposal, or of a solution that nobody contested.")]
    revision: int | None
    title: str
    text: str
    votes: list[VoteItem]
    decided_by: str
    dissent: list[Dissent]
    uncontested: Annotated[bool, Field(description="Whether only one agent was left to decide.")]


class PipelineFault(BaseModel):
    """Why a pipeline ended as it did."""

    code: str
    message: str
    at: Moment


class LedgerHead(BaseModel):
    """How far the ledger is."""

    entries: int
    head: Annotated[str, Field(description="Hash of the last entry.")]


class Outcome(BaseModel):
    """How a pipeline went, or stands."""

    pipeline_id: PipelineId
    status: Status
    orphaned: Annotated[bool, Field(description="Whether a worker should act for it and none may.")]
    mode: str
    rehearsal: Annotated[bool, Field(description="Whether the built-in stand-in answered: no language model was used.")]
    model: str
    objective: str
    phases: list[PhaseSpan]
    budget: PipelineBudget
    agents: list[Agent]
    report: JoinedReport | None
    mediation: list[Mediation]
    subtasks: list[SubtaskItem]
    consensus: Consensus | None
    error: PipelineFault | None
    ledger: LedgerHead


class ListItem(BaseModel):
    """A pipeline in a list."""

    pipeline_id: PipelineId
    tenant: str
    project: str | None
    status: Status
    phase: Phase
    objective: str
    created_at: Moment
    ended_at: Moment | None
    orphaned: bool
    cost_usd: CostInAll
    tokens: Tokens


class Pipeline(Outcome):
    """A pipeline with everything about it but its entries."""

    tenant: str
    project: str | None
    external_id: str | None
    labels: list[str]
    auto_continue: bool
    phase: Phase
    round: Annotated[int, Field(description="0 before the first ORCHESTRATE.")]
    attempt: Annotated[int, Field(description="How often a worker has taken it up, or a person intervened.")]
    created_at: Moment
    updated_at: Moment
    ended_at: Moment | None
    cost_usd: CostInAll
    tokens: Tokens
    leased: Annotated[bool, Field(description="Whether a worker is at work for it.")]
    queued_at: Annotated[Moment | None, Field(description="Since when it waits for a worker.")]
    still_since: Annotated[
        Moment | None,
        Field(description="Since when nobody acts for it; null while a worker may, or has not let go after a stop."),
    ]
