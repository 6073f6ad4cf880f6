"""How circuit breakers stand, for whoever looks on: read without changing them (`trilogue.live.breaker`)."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from trilogue.live import keys
from trilogue.live.breaker import ANSWER_WITHIN, LEFT_ALONE
from trilogue.live.connection import FAULTS
from trilogue.live.ending import end

_FIELDS = ("failures", "opened_at", "trial_until")


@dataclass(frozen=True, kw_only=True)
class BreakerState:
    """One endpoint's breaker.

    Attributes:
        state: `closed`: calls go; `open`: none goes; `trial`: one is under way, the others wait for how it ends.
        retry_in: seconds until a call may go again; 0 where the next one may.
        failures: in a row.
    """

    state: Literal["closed", "open", "trial"]
    retry_in: float
    failures: int


class BreakerStates:
    """The reader of one process, which leaves a Redis that is away alone for a while."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._away_until = 0.0

    async def read(
        self, endpoints: Collection[str], *, threshold: int, open_seconds: float
    ) -> dict[str, BreakerState | None]:
        """How the breakers of `endpoints` stand, in one round trip; None while Redis is away, or slow."""
        wanted = list(dict.fromkeys(endpoints))
        answers = await self._answers(wanted) if wanted else None
        if answers is None:
            return dict.fromkeys(wanted)
        (seconds, micros), *hashes = answers
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return {
            endpoint: _state(values, now_ms, threshold, round(open_seconds * 1000))
            for endpoint, values in zip(wanted, hashes, strict=True)
        }

    async def _answers(self, endpoints: Sequence[str]) -> list[Any] | None:
        """The server's time, then each breaker's fields."""
        if time.monotonic() < self._away_until:
            return None
        # A task of its own, as in `breaker`: redis-py may swallow a cancellation (`ending`).
        asking = asyncio.create_task(self._ask(endpoints), name="breaker states")
        try:
            await asyncio.wait({asking}, timeout=ANSWER_WITHIN)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        if not asking.done():
            await end(asking)
        answers = None if asking.cancelled() else asking.result()
        if answers is None:
            self._away_until = time.monotonic() + LEFT_ALONE
        return answers

    async def _ask(self, endpoints: Sequence[str]) -> list[Any] | None:
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for endpoint in endpoints:
            pipe.hmget(keys.of_breaker(endpoint), _FIELDS)
        try:
            answers: list[Any] = await pipe.execute()
        except FAULTS:
            return None
        return answers


def _state(values: Sequence[str | None], now_ms: int, threshold: int, open_ms: int) -> BreakerState:
    """What `breaker.lua` would answer to the next call."""
    failures, opened_at, trial_until = (int(value or 0) for value in values)
    if failures < threshold:
        return BreakerState(state="closed", retry_in=0.0, failures=failures)
    if now_ms < opened_at + open_ms:
        return BreakerState(state="open", retry_in=(opened_at + open_ms - now_ms) / 1000, failures=failures)
    if now_ms < trial_until:
        return BreakerState(state="trial", retry_in=(trial_until - now_ms) / 1000, failures=failures)
    return BreakerState(state="open", retry_in=0.0, failures=failures)
