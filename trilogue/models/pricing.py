"""What models cost, as OpenRouter lists it: `GET /models` → `data[].pricing` in dollars a token, written as text."""

import math
from collections.abc import Mapping
from typing import Any

from trilogue.governance.budgets import Price
from trilogue.money import USD

_MOST_USD = 1.0
"""A token that costs more is a mistake of the list."""


def prices_in(answer: object) -> dict[str, Price]:
    """The prices by model id; models whose price is missing, unreadable or varies (`-1`) are left out."""
    listed = answer.get("data") if isinstance(answer, Mapping) else None
    found = {}
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping) and isinstance(name := item.get("id"), str) and (price := _price(item)):
            found[name] = price
    return found


def _price(item: Mapping[str, Any]) -> Price | None:
    pricing = item.get("pricing")
    if not isinstance(pricing, Mapping):
        return None
    given, made = _nanousd(pricing.get("prompt")), _nanousd(pricing.get("completion"))
    if given is None or made is None:
        return None
    return Price(input=given, output=made, request=_nanousd(pricing.get("request", 0)) or 0.0)


def _nanousd(value: object) -> float | None:
    try:
        amount = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # JSON knows integers that fit no float
        return None
    return amount * USD if 0 <= amount <= _MOST_USD else None
