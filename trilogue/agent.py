"""Who takes part: roles, tiers, mandates, and what became of an agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Self

from trilogue.clock import Micros


class Role(StrEnum):
    """ALPHA researches, BETA synthesises, GAMMA mediates."""

    ALPHA = "ALPHA"
    BETA = "BETA"
    GAMMA = "GAMMA"


NEGOTIATORS = (Role.ALPHA, Role.BETA)


class Tier(IntEnum):
    """How far an agent's word goes (DESIGN section 6)."""

    OBSERVE = 0
    NEGOTIATE = 1
    RULE = 2


class AgentStatus(StrEnum):
    """Where an agent is now."""

    SPAWNED = "SPAWNED"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    TIMED_OUT = "TIMED_OUT"
    REVOKED = "REVOKED"

    @property
    def settled(self) -> bool:
        """Whether nothing more is expected from the agent in this phase."""
        return self in {AgentStatus.COMPLETED, AgentStatus.TIMED_OUT, AgentStatus.REVOKED}


TIER_OF = {Role.ALPHA: Tier.NEGOTIATE, Role.BETA: Tier.NEGOTIATE, Role.GAMMA: Tier.RULE}


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """How many errors revoke an agent: so many in all, of one fingerprint, or procedure violations."""

    in_all: int = 8
    alike: int = 2
    violations: int = 1

    def as_json(self) -> dict[str, int]:
        return {"in_all": self.in_all, "alike": self.alike, "violations": self.violations}


@dataclass(frozen=True, kw_only=True)
class Mandate:
    """What an agent may do and spend, and until when (DESIGN section 6).

    Attributes:
        actions: kinds of action by phase; every other one is a procedure violation.
        tokens: how many it may spend; None is no limit.
        expires_at: microseconds UTC; what a turn brings after it is refused.
    """

    agent_id: str
    role: Role
    tier: Tier
    actions: Mapping[str, tuple[str, ...]]
    tokens: int | None
    errors: ErrorBudget = field(default_factory=ErrorBudget)
    expires_at: Micros

    def as_json(self) -> dict[str, Any]:
        """The body of its `mandate` entry."""
        return {
            "agent_id": self.agent_id,
            "role": self.role.value,
            "tier": int(self.tier),
            "actions": {phase: list(kinds) for phase, kinds in self.actions.items()},
            "tokens": self.tokens,
            "errors": self.errors.as_json(),
            "expires_at": self.expires_at,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The mandate that a `mandate` entry records."""
        return cls(
            agent_id=body["agent_id"],
            role=Role(body["role"]),
            tier=Tier(body["tier"]),
            actions={phase: tuple(kinds) for phase, kinds in body["actions"].items()},
            tokens=body["tokens"],
            errors=ErrorBudget(**body["errors"]),
            expires_at=body["expires_at"],
        )
