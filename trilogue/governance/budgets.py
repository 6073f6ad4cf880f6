"""Token and money budgets: what a turn may reserve, what it settles at, and when to warn.

Pure rules over the board. The ledger holds the same sums in rows of agent, pipeline and tenant
and refuses a reservation that does not fit them, whoever asks and however many at once.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from trilogue.board import NOTHING, Agent, Amount, Board
from trilogue.entry import Draft, Kind
from trilogue.money import dollars

WARN_AT = (75, 90)
"""Percent of a budget."""
LEAST_ANSWER = 256
"""Tokens: with less room than that for its answer a turn is not worth its prompt."""


class Verdict(StrEnum):
    """What a budget says to a turn.

    `wait`: only the reservations of turns under way stand in the way. `degrade`: a cheaper model or a
    shorter answer. `stop`: nothing is left that would be of use.
    """

    ALLOW = "allow"
    WAIT = "wait"
    DEGRADE = "degrade"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model costs, in billionths of a dollar: a token in, a token out, a request."""

    input: float
    output: float
    request: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """The cost of one call, rounded up."""
        return math.ceil(self.request + self.input * input_tokens + self.output * output_tokens)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a turn would take if `models[0]` answered, or one of its fallbacks behind it.

    Attributes:
        input_tokens: estimated length of what is asked.
        answer_tokens: where the answer is cut.
        price: the highest of the models'; None where nobody says what they cost.
    """

    models: tuple[str, ...]
    input_tokens: int
    answer_tokens: int
    price: Price | None = None

    def reserved(self, answer_tokens: int) -> Amount:
        """What has to be reserved for an answer of that length."""
        return Amount(
            tokens=self.input_tokens + answer_tokens,
            nanousd=self.price.of(self.input_tokens, answer_tokens) if self.price else 0,
        )


def cheaper(than: Need, needs: Sequence[Need]) -> list[Need]:
    """Those of `needs` that cost less, the cheapest first; none where prices are not known."""

    def cost(need: Need) -> int | None:
        return need.price.of(need.input_tokens, need.answer_tokens) if need.price else None

    most = cost(than)
    known = [(price, need) for need in needs if (price := cost(need)) is not None and most is not None and price < most]
    return [need for _, need in sorted(known, key=lambda found: found[0])]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The verdict on a turn. `models`, `max_tokens` and `reserved` hold where it may begin, `told` where it stops."""

    verdict: Verdict
    models: tuple[str, ...] = ()
    max_tokens: int = 0
    reserved: Amount = NOTHING
    told: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Left:
    """What may still be spent; None is no limit."""

    tokens: int | None
    nanousd: int | None

    def answer(self, need: Need) -> int:
        """How long an answer there is room for, in tokens; at most as long as needed."""
        longest = need.answer_tokens
        if self.tokens is not None:
            longest = min(longest, self.tokens - need.input_tokens)
        if self.nanousd is not None:
            longest = min(longest, self._affordable(need))
        return max(0, longest)

    def _affordable(self, need: Need) -> int:
        assert self.nanousd is not None
        if self.nanousd <= 0:
            return 0
        if need.price is None:
            return need.answer_tokens
        left = self.nanousd - need.price.of(need.input_tokens, 0)
        if left < 0:
            return 0
        if need.price.output * need.answer_tokens <= left:
            return need.answer_tokens  # also where a token costs so little that a division would overflow
        return math.floor(left / need.price.output)


def longest_answer(need: Need, *, tokens: int | None, nanousd: int | None) -> int:
    """How long an answer so much has room for, in tokens; at most as long as needed. None is no limit."""
    return _Left(tokens=tokens, nanousd=nanousd).answer(need)


def decide(board: Board, agent: Agent, needs: Sequence[Need]) -> Decision:
    """Whether the agent's next turn may begin, and as what.

    Args:
        needs: the agent's own model first, then the cheaper ones that may stand in for it.
    """
    now, later = _left(board, agent, reserved=True), _left(board, agent, reserved=False)
    own = needs[0]
    if now.answer(own) >= own.answer_tokens:
        return _begin(Verdict.ALLOW, own, own.answer_tokens)
    if later.answer(own) >= own.answer_tokens:
        return Decision(verdict=Verdict.WAIT)
    for need in needs[1:]:
        if now.answer(need) >= need.answer_tokens:
            return _begin(Verdict.DEGRADE, need, need.answer_tokens)
    for need in needs:
        if (length := now.answer(need)) >= min(LEAST_ANSWER, need.answer_tokens):
            return _begin(Verdict.DEGRADE, need, length)
    if any(later.answer(need) >= min(LEAST_ANSWER, need.answer_tokens) for need in needs):
        return Decision(verdict=Verdict.WAIT)
    return Decision(verdict=Verdict.STOP, told=_spent(board, agent, later, own))


def _begin(verdict: Verdict, need: Need, answer_tokens: int) -> Decision:
    return Decision(
        verdict=verdict, models=need.models, max_tokens=answer_tokens, reserved=need.reserved(answer_tokens)
    )


def _left(board: Board, agent: Agent, *, reserved: bool) -> _Left:
    mandate, own, total = board.mandates[agent.agent_id], board.spending_of(agent.agent_id), board.spending_in_all()
    taken, taken_in_all = own.spent, total.spent
    if reserved:
        taken, taken_in_all = taken + own.reserved, taken_in_all + total.reserved
    return _Left(
        tokens=None if mandate.tokens is None else mandate.tokens - taken.tokens,
        nanousd=None if board.max_nanousd is None else board.max_nanousd - taken_in_all.nanousd,
    )


def _spent(board: Board, agent: Agent, left: _Left, need: Need) -> dict[str, Any]:
    mandate = board.mandates[agent.agent_id]
    if replace(left, nanousd=None).answer(need) < min(LEAST_ANSWER, need.answer_tokens):
        spent = board.spending_of(agent.agent_id).spent.tokens
        said = f"{agent.agent_id} has used {spent:,} of its {mandate.tokens:,} tokens, too many for another turn"
        return _told("agent", agent.agent_id, "tokens", mandate.tokens or 0, spent, Verdict.STOP, said)
    spent, limit = board.spending_in_all().spent.nanousd, board.max_nanousd or 0
    said = f"the pipeline has spent {dollars(spent)} of its {dollars(limit)}, too much for another turn"
    return _told("pipeline", agent.agent_id, "cost", limit, spent, Verdict.STOP, said)


def degraded(board: Board, agent: Agent, need: Need, decision: Decision) -> dict[str, Any]:
    """The body of the `budget` entry about a turn that begins with a cheaper model or a shorter answer."""
    mandate, left = board.mandates[agent.agent_id], _left(board, agent, reserved=False)
    model = decision.models[0]
    what = f"may answer in {decision.max_tokens:,} tokens at most"
    if decision.models != need.models and decision.max_tokens == need.answer_tokens:
        what = f"asks {model}" if model != need.models[0] else f"asks {model} alone, without its fallback models"
    by_tokens = mandate.tokens is not None and replace(left, nanousd=None).answer(need) < need.answer_tokens
    said = f"{agent.agent_id} {what}: its budget has no room for more"
    if by_tokens:
        spent = board.spending_of(agent.agent_id).spent.tokens
        return _told("agent", agent.agent_id, "tokens", mandate.tokens or 0, spent, Verdict.DEGRADE, said)
    spent = board.spending_in_all().spent.nanousd
    return _told("pipeline", agent.agent_id, "cost", board.max_nanousd or 0, spent, Verdict.DEGRADE, said)


def out_of_tenant_budget(agent: Agent, message: str) -> dict[str, Any]:
    """The body of the `budget` entry about a turn that the tenant's budget has no room for."""
    return _told("tenant", agent.agent_id, "tokens", 0, 0, Verdict.STOP, message)


def _told(scope: str, agent_id: str, of: str, limit: int, spent: int, verdict: Verdict, message: str) -> dict[str, Any]:
    return {
        "scope": scope,
        "agent_id": agent_id,
        "of": of,
        "limit": limit,
        "spent": spent,
        "percent": spent * 100 // limit if limit else 100,
        "verdict": verdict.value,
        "message": message,
    }


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What a turn's call is charged with; `estimated` where nobody knows what became of it."""

    amount: Amount = NOTHING
    estimated: bool = False


def settled(
    reserved: Amount,
    *,
    tokens: int,
    nanousd: int | None,
    told_nanousd: int = 0,
    broken_calls: int = 0,
    broken_tokens: int = 0,
    price: Price | None = None,
    output_tokens: int = 0,
) -> Settlement:
    """What calls are charged with that were sent: as counted; those of unknown outcome at their whole reservation.

    Args:
        tokens: counted or guessed for all calls, of which `broken_tokens` for those that broke off.
        nanousd: what the calls cost; None where any of them did not say, with `told_nanousd` for the others.
    """
    whole = Amount(tokens=reserved.tokens * broken_calls, nanousd=reserved.nanousd * broken_calls)
    if nanousd is None:
        sure = tokens - broken_tokens
        guessed = price.of(max(0, sure - output_tokens), min(sure, output_tokens)) if price else 0
        nanousd = max(told_nanousd, guessed) + whole.nanousd
    return Settlement(
        amount=Amount(tokens=tokens - broken_tokens + whole.tokens, nanousd=nanousd), estimated=broken_calls > 0
    )


def warnings(board: Board, agent: Agent, settlement: Settlement) -> Iterator[Draft]:
    """The `budget` entries for what a settlement makes pass 75 % and 90 %."""
    mandate, before = board.mandates[agent.agent_id], board.spending_of(agent.agent_id).spent
    in_all = board.spending_in_all().spent
    if mandate.tokens:
        after = before.tokens + settlement.amount.tokens
        for level in _passed(before.tokens, after, mandate.tokens):
            said = f"{agent.agent_id} has used {level} % of its {mandate.tokens:,} tokens"
            body = _told("agent", agent.agent_id, "tokens", mandate.tokens, after, Verdict.ALLOW, said)
            yield Draft(kind=Kind.BUDGET, body={**body, "percent": level})
    if board.max_nanousd:
        after = in_all.nanousd + settlement.amount.nanousd
        for level in _passed(in_all.nanousd, after, board.max_nanousd):
            said = f"the pipeline has spent {level} % of its {dollars(board.max_nanousd)}"
            body = _told("pipeline", agent.agent_id, "cost", board.max_nanousd, after, Verdict.ALLOW, said)
            yield Draft(kind=Kind.BUDGET, body={**body, "percent": level})


def _passed(before: int, after: int, limit: int) -> list[int]:
    return [level for level in WARN_AT if before * 100 < level * limit <= after * 100]
