"""Which kinds of action an agent may take: by tier, phase and, for the mediator, by trigger.

Decided once, when the mandate is issued; from then on the mandate is asked.
"""

from collections.abc import Mapping

from trilogue.actions import ActionKind
from trilogue.agent import Mandate, Role, Tier
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


def granted(role: Role, tier: Tier, trigger: Trigger | None = None) -> Mapping[str, tuple[str, ...]]:
    """The kinds of action that a mandate holds, by phase. GAMMA acts only for a `trigger`, and never votes."""
    grants = {phase: _BY_TIER[tier] & kinds for phase, kinds in _BY_PHASE.items()}
    if role is Role.GAMMA:
        mine = _BY_TRIGGER[trigger] if trigger else frozenset()
        grants = {Phase.ORCHESTRATE: grants[Phase.ORCHESTRATE] & mine}
    return {phase.value: tuple(sorted(kinds)) for phase, kinds in grants.items()}


def permitted(mandate: Mandate, phase: Phase) -> frozenset[ActionKind]:
    """The kinds of action within the mandate; every other one is a procedure violation."""
    return frozenset(ActionKind(kind) for kind in mandate.actions.get(phase.value, ()))
