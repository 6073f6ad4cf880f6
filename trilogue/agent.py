"""Who takes part: roles, tiers and what became of an agent."""

from enum import IntEnum, StrEnum


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
