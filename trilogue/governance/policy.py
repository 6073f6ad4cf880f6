"""Which kinds of action an agent may take: by tier, phase and, for the mediator, by trigger."""

from trilogue.actions import ActionKind
from trilogue.agent import Role, Tier
from trilogue.board import Agent
from trilogue.mediation import Trigger
from trilogue.pipeline import Phase

_BY_TIER = {
    Tier.OBSERVE: frozenset({ActionKind.PASS}),
    Tier.NEGOTIATE: frozenset(ActionKind) - {ActionKind.RULE, ActionKind.DECOMPOSE},
    Tier.RULE: frozenset(ActionKind),
}
_BY_PHASE = {
    Phase.RUN: frozenset({ActionKind.FIND, ActionKind.PASS}),
    Phase.ORCHESTRATE: frozenset(ActionKind),
}
_BY_TRIGGER = {
    Trigger.STUCK: frozenset({ActionKind.PROPOSE, ActionKind.MESSAGE}),
    Trigger.CONFLICT: frozenset({ActionKind.RULE}),
    Trigger.COMPLEXITY: frozenset({ActionKind.DECOMPOSE}),
}


def permitted(agent: Agent, phase: Phase, trigger: Trigger | None = None) -> frozenset[ActionKind]:
    """The kinds of action within the agent's mandate; every other one is a procedure violation.

    GAMMA acts only for a `trigger`, and never votes.
    """
    allowed = _BY_TIER[Tier(agent.tier)] & _BY_PHASE.get(phase, frozenset())
    if agent.role is Role.GAMMA:
        return allowed & (_BY_TRIGGER[trigger] if trigger else frozenset())
    return allowed
