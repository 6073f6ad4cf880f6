"""The other documents that the API gives, and how they are made from what the ledger has."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from trilogue.api.outcomes import (
    Agent,
    Consensus,
    Continuation,
    JoinedReport,
    ListItem,
    Mediation,
    Moment,
    Outcome,
    Pipeline,
    PipelineFault,
    PipelineId,
)
from trilogue.board import Board
from trilogue.clock import SECOND, Micros, iso
from trilogue.entry import Entry, Kind
from trilogue.ledger import CheckpointRow, PipelineRow, UsageRow
from trilogue.outcome import cost_in_all, list_item, outcome_json
from trilogue.pipeline import Phase, Status

Next = Annotated[int | None, Field(description="What to ask for as `after` to get what follows; null at the end.")]


class Accepted(BaseModel):
    """What was asked for is on record, and a worker will carry it on."""

    pipeline_id: PipelineId
    status: Status


class StopDone(BaseModel):
    """From `seq` on the ledger takes nothing from the pipeline's agents."""

    pipeline_id: PipelineId
    status: Status
    reason: str
    seq: int
    stopped_at: Annotated[Moment, Field(description="The pipeline's `still_since` tells when its last call had ended.")]


class PipelinePage(BaseModel):
    """Pipelines, newest first; those with a `prefix` by id."""

    items: list[ListItem]
    next: Annotated[str | None, Field(description="The `cursor` of the page after; null on the last.")]


class EntryItem(BaseModel):
    """One immutable line of the ledger; `hash` covers it and `prev_hash`."""

    seq: int
    attempt: int
    kind: Kind
    actor: Annotated[str, Field(description="An agent's id, `person`, or `system`.")]
    at: Annotated[str, Field(description="ISO 8601, UTC, with microseconds.", examples=["2026-11-22T09:00:00.000000Z"])]
    body: Annotated[dict[str, Any], Field(description="As `kind` says; what models wrote is untrusted text.")]
    prev_hash: str
    hash: str


class EntryPage(BaseModel):
    """Entries in order."""

    items: list[EntryItem]
    next: Next


class CheckpointItem(BaseModel):
    """A named state from which the pipeline can go on: its entries up to `to_seq`."""

    name: Annotated[str, Field(examples=["report"])]
    seq: int
    to_seq: int
    status: Status
    phase: Phase
    round: int
    at: Moment
    details: Annotated[dict[str, Any] | None, Field(description="Of a failure: the error, and each agent's faults.")]


class CheckpointPage(BaseModel):
    """All checkpoints, oldest first."""

    items: list[CheckpointItem]
    next: None = None


class Mandated(BaseModel):
    """An agent as the board shows it."""

    agent_id: str
    role: str
    tier: int
    runtime: str
    model: str
    status: str
    turns: int
    errors: int
    running: Annotated[bool, Field(description="Whether a turn of its is under way.")]


class BoardDocument(BaseModel):
    """Everything on the board, as it stands or as it stood at `until`. Times are microseconds UTC."""

    seq: int
    at: int
    status: Status
    phase: Phase
    round: int
    agents: list[Mandated]
    findings: list[dict[str, Any]]
    proposals: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    solutions: list[dict[str, Any]]
    subtasks: list[dict[str, Any]]
    rulings: list[dict[str, Any]]
    mediations: list[dict[str, Any]]
    guidance: list[str]
    handoffs: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    consensus: dict[str, Any] | None
    error: dict[str, Any] | None
    checkpoints: list[str]


class Going(Continuation):
    """Whether the pipeline may go on, and what it waits for."""

    state: Annotated[
        Literal["pending", "held", "going_on", "ended"],
        Field(
            description="`pending`: there is no report yet. `held`: at REPORT, until `continue`. `going_on`: a worker "
            "takes it on, or has. `ended`: it has come to an end."
        ),
    ]
    continuable: Annotated[bool, Field(description="Whether `continue` may begin a round now.")]


class ReportDocument(BaseModel):
    """The report, null until there is one, and whether the pipeline goes on from it."""

    pipeline_id: PipelineId
    status: Status
    report: JoinedReport | None
    continuation: Going


class Counts(BaseModel):
    """How much is on the board."""

    findings: int
    proposals: int
    critiques: int
    votes: int
    messages: int
    solutions: int
    subtasks: int
    agreed: Annotated[int, Field(description="Proposals that every voter approves.")]
    unresolved: Annotated[int, Field(description="Proposals that were seen by every voter and are not agreed.")]


class Timing(BaseModel):
    """When the present or last round began, when it must end, and how long it took so far."""

    started_at: Moment | None
    deadline_at: Moment | None
    timeout: float | None
    seconds: float | None


class Orchestration(BaseModel):
    """How the negotiation stands."""

    pipeline_id: PipelineId
    status: Status
    phase: Phase
    round: int
    agents: list[Agent]
    board: Counts
    mediation: list[Mediation]
    consensus: Consensus | None
    timing: Timing
    error: PipelineFault | None


def pipeline_document(row: PipelineRow, board: Board, usage: list[UsageRow]) -> Pipeline:
    outcome = outcome_json(row, board, usage)
    return Pipeline(
        **{**list_item(row, cost_in_all(usage)), **outcome},
        external_id=row.external_id,
        labels=list(row.spec.get("labels", ())),
        auto_continue=bool(row.spec.get("auto_continue", True)),
        round=row.round,
        attempt=row.attempt,
        updated_at=iso(row.updated_at),
        leased=row.leased,
        queued_at=None if row.queued_at is None else iso(row.queued_at),
        still_since=None if row.still_since is None else iso(row.still_since),
    )


def result_document(row: PipelineRow, board: Board, usage: list[UsageRow]) -> Outcome:
    return Outcome(**outcome_json(row, board, usage))


def report_document(row: PipelineRow, board: Board) -> ReportDocument:
    found = JoinedReport.model_validate(board.report) if board.report else None
    if board.status.ended:
        state: Literal["pending", "held", "going_on", "ended"] = "ended"
    elif found is None:
        state = "pending"
    else:
        at_work = row.leased or row.queued_at is not None or board.status is not Status.REPORT
        state = "going_on" if at_work else "held"
    verdict = found.continuation if found else Continuation(eligible=False, auto=False, reasons=[])
    going = Going(
        **verdict.model_dump(),
        state=state,
        continuable=board.status.continuable and bool(board.findings) and not row.leased,
    )
    return ReportDocument(pipeline_id=row.pipeline_id, status=board.status, report=found, continuation=going)


def orchestration_document(row: PipelineRow, board: Board, usage: list[UsageRow]) -> Orchestration:
    outcome = Outcome(**outcome_json(row, board, usage))
    round_ = board.round
    until = row.read_at if board.status is Status.ORCHESTRATING else board.at
    return Orchestration(
        pipeline_id=row.pipeline_id,
        status=board.status,
        phase=board.phase,
        round=round_.number if round_ else 0,
        agents=outcome.agents,
        board=Counts(
            findings=len(board.findings),
            proposals=len(board.proposals),
            critiques=len(board.critiques),
            votes=len(board.votes),
            messages=len(board.messages),
            solutions=len(board.solutions),
            subtasks=len(board.subtasks),
            agreed=len(board.agreed()),
            unresolved=len(board.unresolved()),
        ),
        mediation=outcome.mediation,
        consensus=outcome.consensus,
        timing=Timing(
            started_at=iso(round_.started_at) if round_ else None,
            deadline_at=iso(round_.deadline) if round_ else None,
            timeout=round_.timeout if round_ else None,
            seconds=round(max(0, until - round_.started_at) / SECOND, 3) if round_ else None,
        ),
        error=outcome.error,
    )


def entry_item(entry: Entry) -> EntryItem:
    return EntryItem(
        seq=entry.seq,
        attempt=entry.attempt,
        kind=entry.kind,
        actor=entry.actor,
        at=_to_the_microsecond(entry.at),
        body=dict(entry.body),
        prev_hash=entry.prev_hash,
        hash=entry.hash,
    )


def checkpoint_item(row: CheckpointRow) -> CheckpointItem:
    details: Mapping[str, Any] | None = row.details
    return CheckpointItem(
        name=row.name,
        seq=row.seq,
        to_seq=row.to_seq,
        status=row.status,
        phase=row.phase,
        round=row.round,
        at=iso(row.at),
        details=dict(details) if details is not None else None,
    )


def _to_the_microsecond(at: Micros) -> str:
    """Exact, unlike `clock.iso`: hashes cover the very number."""
    whole, rest = divmod(at, SECOND)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"
