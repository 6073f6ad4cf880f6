"""Issuing mandates: what an agent is given at its bootstrap, and anew with each round."""

from trilogue.agent import TIER_OF, ErrorBudget, Mandate, Role
from trilogue.board import Board
from trilogue.clock import Micros, seconds
from trilogue.entry import Draft, Kind
from trilogue.governance.policy import granted
from trilogue.mediation import Trigger


def issued(
    board: Board,
    agent_id: str,
    role: Role,
    *,
    until: Micros,
    trigger: Trigger | None = None,
    max_tokens: int | None = None,
) -> Draft:
    """The `mandate` entry of an agent, good until `until`.

    Tokens belong to the role: a replacement gets what its predecessors left.

    Args:
        trigger: what GAMMA is called for.
        max_tokens: the role's tokens, where they are not to be as they were.
    """
    tier = TIER_OF[role]
    mandate = Mandate(
        agent_id=agent_id,
        role=role,
        tier=tier,
        actions=granted(role, tier, trigger),
        tokens=_left(board, agent_id, role, board.max_tokens if max_tokens is None else max_tokens),
        errors=ErrorBudget(**board.spec.get("errors", {})),
        expires_at=until,
    )
    return Draft(kind=Kind.MANDATE, body=mandate.as_json())


def missing(board: Board, now: Micros) -> list[Draft]:
    """Mandates for agents at work without one: their pipeline began before there were any."""
    until = board.round.deadline if board.round else now + seconds(board.spec["agent_timeout"])
    given: list[tuple[str, Role, Trigger | None]] = [(agent.agent_id, agent.role, None) for agent in board.voters()]
    if under_way := board.mediation():
        given.append((f"gamma-{under_way.number}", Role.GAMMA, Trigger(under_way.trigger)))
    return [
        issued(board, agent_id, role, until=until, trigger=trigger)
        for agent_id, role, trigger in given
        if agent_id not in board.mandates
    ]


def _left(board: Board, agent_id: str, role: Role, max_tokens: int | None) -> int | None:
    if max_tokens is None:
        return None
    # By their ids: what agents spent that a rewinding undid counts as well.
    former = (name for name in board.spending if name != agent_id and name.startswith(f"{role.lower()}-"))
    return max(0, max_tokens - sum(board.spending_of(name).spent.tokens for name in former))
