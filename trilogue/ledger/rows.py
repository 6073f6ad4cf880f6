"""What the ledger's queries return: frozen values, one class a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from trilogue.agent import AgentStatus, Role, Tier
from trilogue.clock import Micros
from trilogue.errors import NotFound
from trilogue.money import USD
from trilogue.pipeline import Phase, Status

TENANT = "default"
"""The one tenant until tenants come."""

PipelineKey = tuple[str, str]
"""Tenant and pipeline id."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """The right to append: good until the pipeline's attempt is raised or the pipeline is stopped."""

    tenant: str
    pipeline_id: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class StoredError:
    """Why a pipeline ended as it did."""

    code: str
    message: str
    at: Micros


@dataclass(frozen=True, kw_only=True)
class PipelineRow:
    """A pipeline as the ledger knew it at `read_at`.

    Attributes:
        spec: the body of its `pipeline_spawned`.
        flow_run_id: the Prefect flow run of the present attempt, or of the last one.
        queued_at: since when it waits for any worker to draw it; None while nobody is to. In the future once one
            has drawn it: by then it is leased, or waits again.
        lease_owner: who has the lease, or had it when a stop took it away and has not let go yet.
        released_at: when the last lease was given back. In the future where a stop took it away: until then at
            most its owner acts.
        read_at: database time of the reading; leases are compared with nothing else.
    """

    tenant: str
    pipeline_id: str
    project: str | None
    external_id: str | None
    spec: Mapping[str, Any]
    status: Status
    phase: Phase
    round: int
    attempt: int
    head_seq: int
    head_hash: str
    flow_run_id: str | None
    lease_owner: str | None
    lease_until: Micros | None
    stop_requested_at: Micros | None
    orchestration_started_at: Micros | None
    deadline_at: Micros | None
    error: StoredError | None
    ended_at: Micros | None
    created_at: Micros
    updated_at: Micros
    queued_at: Micros | None
    released_at: Micros | None
    read_at: Micros

    @property
    def objective(self) -> str:
        """What the user asked for."""
        return str(self.spec["objective"])

    @property
    def fence(self) -> Fence:
        """The right to append under the present attempt."""
        return Fence(tenant=self.tenant, pipeline_id=self.pipeline_id, attempt=self.attempt)

    @property
    def leased(self) -> bool:
        """Whether some worker may act for the pipeline."""
        return self.lease_until is not None and self.lease_until > self.read_at

    @property
    def still_since(self) -> Micros | None:
        """Since when nobody acts for the pipeline, by database time; None while somebody may."""
        given_back = self.released_at if self.lease_until is None else self.lease_until
        if given_back is None:
            return self.created_at
        return given_back if given_back <= self.read_at else None

    @property
    def orphaned(self) -> bool:
        """Whether a worker should act for the pipeline but none may: not ended, no live lease.

        SPAWNED and REPORT may wait without a worker; there only a lease that ran out
        without having been released tells of one that died. What waits for any worker is none.
        """
        if self.status.ended or self.leased or self.queued_at is not None:
            return False
        return self.status in {Status.RUNNING, Status.ORCHESTRATING} or self.lease_until is not None


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some pipelines, newest first; `next` is the cursor of the page after, `None` on the last."""

    items: list[PipelineRow]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A won lease; `pipeline` is the row after it.

    Attributes:
        previous_flow_run_id: that of the attempt before.
        abandoned: whether that attempt's lease ran out without having been given back.
    """

    fence: Fence
    pipeline: PipelineRow
    previous_flow_run_id: str | None
    abandoned: bool


class Head(NamedTuple):
    """What a worker must know of a pipeline that it runs: how far it is, and whether it may still write."""

    head_seq: int
    attempt: int
    stopped: bool


@dataclass(frozen=True, kw_only=True)
class AgentRow:
    """One agent of a pipeline."""

    agent_id: str
    role: Role
    tier: Tier
    runtime: str
    model: str
    status: AgentStatus
    spawned_at: Micros


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """What one agent used in all.

    Attributes:
        turns: ended turns that called a model.
        input_tokens, output_tokens, cached_tokens: of the turns whose server told them.
        cost_nanousd: billionths of a dollar; `None` when any turn's cost is unknown.
        calls: model calls, those that failed included.
    """

    agent_id: str
    turns: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_nanousd: int | None
    calls: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a pipeline used in all.

    Attributes:
        nanousd: billionths of a dollar, of the turns whose cost is known.
        unknown: whether there are turns whose cost is not.
        input_tokens, output_tokens: of the turns whose server told them.
    """

    nanousd: int = 0
    unknown: bool = False
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def usd(self) -> float | None:
        """Dollars; None where they are not known whole."""
        return None if self.unknown else self.nanousd / USD


@dataclass(frozen=True, kw_only=True)
class BudgetRow:
    """What an agent, a pipeline (`agent_id` empty) or a tenant (`pipeline_id` empty too) may spend and has spent.

    Attributes:
        tokens_limit, nanousd_limit: None is no limit; money is in billionths of a dollar.
    """

    pipeline_id: str
    agent_id: str
    tokens_limit: int | None
    nanousd_limit: int | None
    tokens_spent: int
    nanousd_spent: int
    tokens_reserved: int
    nanousd_reserved: int


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """A named state from which the pipeline can go on: the fold of its entries up to `to_seq`."""

    seq: int
    name: str
    to_seq: int
    status: Status
    phase: Phase
    round: int
    details: Any
    at: Micros


def named_checkpoint(rows: Sequence[CheckpointRow], name: str) -> CheckpointRow:
    """The latest checkpoint of a name, or the one that stands at a `seq`. Raises `NotFound`."""
    found = [row for row in rows if name in {row.name, str(row.to_seq)}]
    if not found:
        known = ", ".join(dict.fromkeys(row.name for row in rows)) or "none yet"
        raise NotFound(f"no checkpoint {name!r}; there are: {known}", code="no_checkpoint")
    return found[-1]


class DeliveryStatus(StrEnum):
    """Where a webhook is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """A webhook.

    Attributes:
        seq: of the entry by which the pipeline ended.
        body: the JSON that is signed and sent, as it is.
        tries: begun so far.
        due_at: when it is tried next, or again where its sender dies; None once it ended.
        error: what kept the last try from being delivered.
    """

    tenant: str
    delivery_id: str
    pipeline_id: str
    seq: int
    url: str
    body: str
    status: DeliveryStatus
    tries: int
    due_at: Micros | None
    error: str | None
    created_at: Micros
    ended_at: Micros | None


@dataclass(frozen=True, kw_only=True)
class DeliveryPage:
    """Some webhooks, newest first; `next` is the cursor of the page after, `None` on the last."""

    items: list[DeliveryRow]
    next: str | None
