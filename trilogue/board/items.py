"""What lies on the board: frozen values, one class per kind of thing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import AgentStatus, Role
from trilogue.clock import Micros
from trilogue.pipeline import Phase


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One participant as the board knows it.

    Attributes:
        turns: ended turns of the present round that count towards the turn limit.
        seen: the `seq` that its last acted turn saw; -1 when it has not acted in this round.
        faults: fingerprints of the errors that count against it, oldest first, of this round.
        endpoint_fault: why its last call failed, where that was the endpoint's fault.
        refused: why the endpoint turned its call down for good (key, credit, unknown model).
    """

    agent_id: str
    role: Role
    tier: int
    model: str
    runtime: str
    status: AgentStatus = AgentStatus.SPAWNED
    turns: int = 0
    seen: int = -1
    faults: tuple[str, ...] = ()
    violated: bool = False
    endpoint_fault: str | None = None
    refused: str | None = None

    @property
    def revoked(self) -> bool:
        return self.status is AgentStatus.REVOKED


@dataclass(frozen=True, kw_only=True)
class Finding:
    id: str
    author: str
    title: str
    text: str
    evidence: str
    confidence: float
    complexity: float


@dataclass(frozen=True, kw_only=True)
class Revision:
    number: int
    title: str
    text: str
    seq: int


@dataclass(frozen=True, kw_only=True)
class Proposal:
    id: str
    author: str
    round: int
    revisions: tuple[Revision, ...]

    @property
    def latest(self) -> Revision:
        return self.revisions[-1]


@dataclass(frozen=True, kw_only=True)
class Vote:
    voter: str
    proposal: str
    revision: int
    verdict: str
    reason: str
    seq: int

    @property
    def approves(self) -> bool:
        return self.verdict == "approve"


@dataclass(frozen=True, kw_only=True)
class Critique:
    id: str
    author: str
    proposal: str
    revision: int
    text: str
    seq: int


@dataclass(frozen=True, kw_only=True)
class Message:
    id: str
    sender: str
    to: str
    content: str
    seq: int


@dataclass(frozen=True, kw_only=True)
class Solution:
    id: str
    author: str
    round: int
    title: str
    text: str
    subtask: str | None


@dataclass(frozen=True, kw_only=True)
class Subtask:
    id: str
    title: str
    text: str
    assignee: Role
    author: str


@dataclass(frozen=True, kw_only=True)
class Ruling:
    mediation: int
    trigger: str
    author: str
    proposal: str
    revision: int
    outcome: str
    title: str
    text: str
    reason: str
    round: int
    seq: int


@dataclass(frozen=True, kw_only=True)
class Mediation:
    number: int
    trigger: str
    evidence: Mapping[str, Any]
    round: int
    outcome: str | None = None


@dataclass(frozen=True, kw_only=True)
class OpenTurn:
    turn: int
    agent_id: str
    phase: Phase
    round: int
    begun_seq: int
    seen: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """One ORCHESTRATE. `deadline` is microseconds UTC and holds across attempts."""

    number: int
    mode: str
    rehearsal: bool
    models: Mapping[str, str]
    started_at: Micros
    deadline: Micros
    timeout: float


@dataclass(frozen=True, kw_only=True)
class PhaseSpan:
    phase: Phase
    started_at: Micros
    ended_at: Micros | None = None
