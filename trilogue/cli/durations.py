"""Durations and moments as people write them: `90d`, `12h`, `2026-11-22T09:00Z`."""

import re
from datetime import UTC, datetime

from trilogue import clock
from trilogue.clock import SECOND, Micros
from trilogue.errors import Invalid

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw])", re.ASCII)
_LONGEST: Micros = 36_500 * 86_400 * SECOND


def read_duration(option: str, text: str) -> Micros:
    """A whole number with a unit (s, m, h, d, w), at most a hundred years; `Invalid` names the option otherwise."""
    if (duration := _duration(text)) is None:
        raise Invalid(f"{option} takes a duration such as 12h or 90d, not {text!r}", code="invalid_duration")
    return duration


def read_moment(option: str, text: str, *, ahead: bool) -> Micros:
    """So long from now, into the future where `ahead`, else into the past; or the very moment, UTC unless it says."""
    if (duration := _duration(text)) is not None:
        return clock.now() + (duration if ahead else -duration)
    try:
        moment = datetime.fromisoformat(text.strip())
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * SECOND)
    except (ValueError, OverflowError):
        raise Invalid(
            f"{option} takes a duration such as 90d, or a moment such as 2026-11-22T09:00Z, not {text!r}",
            code="invalid_moment",
        ) from None


def _duration(text: str) -> Micros | None:
    found = _DURATION.fullmatch(text.strip())
    duration = int(found[1]) * _UNITS[found[2]] * SECOND if found else None
    return duration if duration is None or duration <= _LONGEST else None
