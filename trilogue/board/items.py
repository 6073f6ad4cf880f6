"""What lies on the board: frozen values, one class per kind of thing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import AgentStatus, Role
from trilogue.clock import Micros
from trilogue.pipeline import Phase


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Tokens and money, in billionths of a dollar."""

    tokens: int = 0
    nanousd: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(tokens=self.tokens + other.tokens, nanousd=self.nanousd + other.nanousd)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(tokens=self.tokens - other.tokens, nanousd=self.nanousd - other.nanousd)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Amount":
        return cls(tokens=body["tokens"], nanousd=body["cost_nanousd"])

    def as_json(self) -> dict[str, int]:
        return {"tokens": self.tokens, "cost_nanousd": self.nanousd}


NOTHING = Amount()


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What somebody has spent, and what turns under way have reserved.

    Attributes:
        estimated: part of it was charged whole because nobody knows what became of a call.
    """

    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class Agent:
    """One participant as the board knows it.

    Attributes:
        turns: ended turns of the present round that count towards the turn limit.
        seen: the `seq` that its last acted turn saw; -1 when it has not acted in this round.
        faults: fingerprints of the errors that count against it, oldest first, of this round.
        violations: its procedure violations, which are among the faults.
        outages: times that its endpoint went away under it, whatever its last retry; an outage counts once.
        complaints: what it was told of its errors, oldest first.
        endpoint_fault: why its last call failed, where that was the endpoint's fault.
        refused: why the endpoint turned its call down for good (key, credit, unknown model).
        out_of_budget: why it may begin no other turn in this round.
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
    violations: int = 0
    outages: int = 0
    complaints: tuple[str, ...] = ()
    endpoint_fault: str | None = None
    refused: str | None = None
    out_of_budget: str | None = None

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
    models: tuple[str, ...]
    max_tokens: int
    reserved: Amount


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
