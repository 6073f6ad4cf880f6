"""What goes into a model call and what comes out of it, as values."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any, Generic, Literal, TypeVar

from trilogue.board import Amount
from trilogue.errors import TrilogueError
from trilogue.governance.budgets import Price, Settlement, settled
from trilogue.money import USD

T = TypeVar("T")

MOST_USD = 1_000_000
"""What no single call costs; a server that says so is not believed."""
CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb for English and JSON; only used where a server does not count."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One structured question to a model.

    Attributes:
        fallback_models: asked in this order when `model` is not available (OpenRouter only).
        schema: JSON schema of the answer; it is also put into words after `system`, because many
            servers accept a schema and ignore it.
        schema_name: letters, digits, `_` and `-`.
        max_tokens: where the answer is cut.
        most_tokens, most_nanousd: what all calls for it may take together, retries and the repair turn included; no
            call is made that would begin beyond it.
        price: what they cost; None where nobody says.
    """

    model: str
    fallback_models: tuple[str, ...] = ()
    system: str
    prompt: str
    schema: Mapping[str, Any]
    schema_name: str
    max_tokens: int
    most_tokens: int | None = None
    most_nanousd: int | None = None
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one or more calls consumed.

    Attributes:
        cached_tokens: those of `input_tokens` that were read from the provider's cache.
        cost_nanousd: billionths of a dollar, rounded up; `None` when what any of the calls cost is not known.
        calls: HTTP calls made, failed ones too.
        model: who answered last; the one asked for while nobody has.
        estimated: part of the tokens is a guess from the length of the text, because a server did not
            count, or a call broke off after the request had been sent.
        told_nanousd: what those calls cost that said so.
        broken_calls: calls that broke off after the request had been sent, so that nobody knows what they took;
            `broken_tokens` are the guesses for them, no more than a lower bound.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_nanousd: int | None = 0
    calls: int = 0
    model: str
    estimated: bool = False
    told_nanousd: int = 0
    broken_calls: int = 0
    broken_tokens: int = 0

    @property
    def tokens(self) -> int:
        """In and out together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Both together; `other` is the later one."""
        known = self.cost_nanousd is not None and other.cost_nanousd is not None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_nanousd=(self.cost_nanousd or 0) + (other.cost_nanousd or 0) if known else None,
            calls=self.calls + other.calls,
            model=other.model,
            estimated=self.estimated or other.estimated,
            told_nanousd=self.told_nanousd + other.told_nanousd,
            broken_calls=self.broken_calls + other.broken_calls,
            broken_tokens=self.broken_tokens + other.broken_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Reply(Generic[T]):
    """What came of a question: exactly one of `value` and `error`, and in any case what was spent.

    Attributes:
        repaired: the first answer could not be used and the second one could.
    """

    value: T | None = None
    error: TrilogueError | None = None
    usage: Usage
    repaired: bool = False


@dataclass(frozen=True, kw_only=True)
class CallOutcome:
    """How one HTTP call ended, for a circuit breaker and for metrics.

    Attributes:
        result: `ok` answered; `fault` the endpoint failed; `refused` the endpoint works but would not do
            this (key, credit, request); `cancelled` nobody waited for the end, so it says nothing.
        code: the error's code when there is one.
        status: HTTP status, or the one that an error inside the answer named.
        seconds: from sending to the end of the answer.
    """

    result: Literal["ok", "fault", "refused", "cancelled"]
    model: str
    seconds: float
    code: str | None = None
    status: int | None = None


Observer = Callable[[CallOutcome], None]


def nanousd(cost: object) -> int | None:
    """OpenRouter's `usage.cost` (USD credits) in billionths of a dollar; `None` if it is no amount."""
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= MOST_USD:
        return None
    return int((Decimal(str(cost)) * USD).to_integral_value(ROUND_UP))


def charged(reserved: Amount, usage: Usage, price: Price | None) -> Settlement:
    """What calls that took `usage` are charged with; one of unknown outcome with what one call `reserved`."""
    return settled(
        reserved,
        tokens=usage.tokens,
        output_tokens=usage.output_tokens,
        nanousd=usage.cost_nanousd,
        told_nanousd=usage.told_nanousd,
        broken_calls=usage.broken_calls,
        broken_tokens=usage.broken_tokens,
        price=price,
    )


def tokens_in(text: str) -> int:
    """A guess at how many tokens `text` is."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
