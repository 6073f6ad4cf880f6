"""Time as integers: microseconds since the epoch, UTC.

Integers hash the same on every database and never meet a naive datetime.
"""

import time
from datetime import UTC, datetime

Micros = int

SECOND: Micros = 1_000_000


def now() -> Micros:
    """The present, in microseconds UTC."""
    return time.time_ns() // 1_000


def seconds(duration: float) -> Micros:
    """A duration in seconds as microseconds."""
    return round(duration * SECOND)


def iso(at: Micros) -> str:
    """`at` as ISO 8601 with milliseconds: `2026-11-22T09:00:00.000Z`."""
    moment = datetime.fromtimestamp(at / SECOND, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
