"""What the agents and the pipeline may still spend, who was taken out, and whether the endpoint answers.

Sums are those of the board, by which governance decides. A cost that nobody told is unknown, never nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trilogue.agent import Mandate, Role, Tier
from trilogue.board import Agent, Board
from trilogue.dashboard.rendering import money, number
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Turn
from trilogue.governance.budgets import WARN_AT

MOST_EARLIER = 20
"""Agents that were replaced, or are gone, of which the page tells."""

_SPENT = 100
_TIERS = {Tier.OBSERVE: "observes", Tier.NEGOTIATE: "negotiates", Tier.RULE: "rules and decomposes"}


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """How much of a limit is taken.

    Attributes:
        value, reserved, limit: in the unit of what is measured; `value` None where nobody knows it.
        text: all of it in words; `note` is what has to be said besides.
        warning: such as `over 75 %`, `spent`; empty where there is none.
        tone: the status class that goes with it.
    """

    name: str
    value: int | None
    limit: int | None
    text: str
    reserved: int = 0
    note: str = ""
    warning: str = ""
    tone: Literal["fine", "held", "bad", "idle"] = "fine"

    @property
    def filled(self) -> float:
        """Percent of the limit that is spent."""
        return _percent(self.value or 0, self.limit)

    @property
    def held(self) -> float:
        """Percent of it that is reserved on top, as far as there is room."""
        return min(_percent(self.reserved, self.limit), _SPENT - self.filled)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What turns cost: the sum of those whose cost was told, and how many others there are."""

    told: int = 0
    turns: int = 0
    untold: int = 0

    @classmethod
    def of(cls, turns: Iterable[Turn]) -> "Costs":
        ended = [turn for turn in turns if turn.ended_at is not None and (turn.calls or turn.estimated)]
        known = [turn.cost_nanousd for turn in ended if turn.cost_nanousd is not None]
        return cls(told=sum(known), turns=len(ended), untold=len(ended) - len(known))

    @property
    def text(self) -> str:
        if not self.turns:
            return "nothing yet"
        if self.untold == self.turns:
            return "unknown"
        return f"{money(self.told)}, {_turns(self.untold)} unknown" if self.untold else money(self.told)


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one agent may do and spend; `left` is what it left when it was revoked."""

    agent: Agent
    mandate: Mandate | None
    tier: str
    gauges: tuple[Gauge, ...]
    cost: str
    trouble: str
    left: Mapping[str, Any] | None


def shown(scene: Scene) -> Mapping[str, Any]:
    """`money` of the pipeline, the present agents' `accounts`, and what `earlier` agents spent."""
    board, turns = scene.story.board, scene.story.turns.values()
    present = [agent for role in Role if (agent := board.agent_in(role))]
    by_agent: dict[str, list[Turn]] = {}
    for turn in turns:
        by_agent.setdefault(turn.agent_id, []).append(turn)
    names = {agent.agent_id for agent in present}
    earlier = [name for name in {**board.agents, **board.spending} if name not in names]
    return {
        "money": _money(board, Costs.of(turns)),
        "accounts": [_account(board, agent, Costs.of(by_agent.get(agent.agent_id, ()))) for agent in present],
        "earlier": [
            (name, board.spending_of(name), Costs.of(by_agent.get(name, ())).text, _left_by(board, name))
            for name in earlier[-MOST_EARLIER:]
        ],
        "more_earlier": max(0, len(earlier) - MOST_EARLIER),
        "rehearsal": bool(board.round.rehearsal if board.round else board.spec.get("rehearsal")),
    }


def _money(board: Board, costs: Costs) -> Gauge:
    charged, limit = board.spending_in_all(), board.max_nanousd
    spent, reserved = charged.spent.nanousd, charged.reserved.nanousd
    of = ", no limit" if limit is None else f" of {money(limit)}"
    notes = [f"{money(reserved)} reserved"] if reserved else []
    if costs.untold:
        notes.append(f"cost of {_turns(costs.untold)} unknown")
    if costs.untold and not spent:
        return Gauge(name="Money", value=None, limit=limit, text=f"unknown{of}", note=" · ".join(notes), tone="idle")
    text = f"{'≈ ' if charged.estimated or costs.untold else ''}{money(spent)}{of}"
    return _gauge("Money", spent, limit, text, reserved, notes)


def _account(board: Board, agent: Agent, costs: Costs) -> Account:
    mandate = board.mandates.get(agent.agent_id)
    return Account(
        agent=agent,
        mandate=mandate,
        tier=_TIERS.get(Tier(agent.tier), ""),
        gauges=(_tokens(board, agent, mandate), *([_errors(agent, mandate)] if mandate else [])),
        cost=costs.text,
        trouble=agent.out_of_budget or agent.refused or "",
        left=_left_by(board, agent.agent_id) if agent.revoked else None,
    )


def _tokens(board: Board, agent: Agent, mandate: Mandate | None) -> Gauge:
    charged, limit = board.spending_of(agent.agent_id), mandate.tokens if mandate else None
    spent, reserved = charged.spent.tokens, charged.reserved.tokens
    of = ", no limit" if limit is None else f" of {number(limit)}"
    text = f"{'≈ ' if charged.estimated else ''}{number(spent)}{of}"
    notes = [f"{number(reserved)} reserved"] if reserved else []
    return _gauge("Tokens", spent, limit, text, reserved, notes, out=agent.out_of_budget is not None)


def _errors(agent: Agent, mandate: Mandate) -> Gauge:
    """Of this round. What is nearest to its limit warns, whichever it is."""
    budget = mandate.errors
    alike = max(Counter(agent.faults).values(), default=0)
    errors = len(agent.faults) + agent.outages
    shares = {
        "": _percent(errors, budget.in_all),
        "alike": _percent(alike, budget.alike),
        "violations": _percent(agent.violations, budget.violations),
    }
    nearest = max(shares, key=shares.__getitem__)
    warning, tone = _warning(shares[nearest])
    return Gauge(
        name="Errors",
        value=errors,
        limit=budget.in_all,
        text=f"{errors} of {budget.in_all}",
        note=f"alike {alike} of {budget.alike} · violations {agent.violations} of {budget.violations}",
        warning=f"{nearest} {warning}".strip() if warning else "",
        tone=tone,
    )


def _gauge(
    name: str, value: int, limit: int | None, text: str, reserved: int, notes: list[str], *, out: bool = False
) -> Gauge:
    warning, tone = _warning(_SPENT if limit == 0 else _percent(value, limit))
    if out and not warning.startswith("spent"):
        warning, tone = "no room for a turn", "bad"
    return Gauge(
        name=name,
        value=value,
        limit=limit,
        text=text,
        reserved=reserved,
        note=" · ".join(notes),
        warning=warning,
        tone=tone,
    )


def _warning(percent: float) -> tuple[str, Literal["fine", "held", "bad"]]:
    low, high = WARN_AT
    if percent >= _SPENT:
        return "spent", "bad"
    if percent >= high:
        return f"over {high} %", "bad"
    return (f"over {low} %", "held") if percent >= low else ("", "fine")


def _left_by(board: Board, agent_id: str) -> Mapping[str, Any] | None:
    """The handoff of an agent that was taken out: why, to whom, and what is open."""
    return next((left for left in reversed(board.handoffs) if left["agent_id"] == agent_id), None)


def _percent(part: int, whole: int | None) -> float:
    return min(_SPENT, part * _SPENT / whole) if whole else 0.0


def _turns(count: int) -> str:
    return f"{number(count)} {'turn' if count == 1 else 'turns'}"
