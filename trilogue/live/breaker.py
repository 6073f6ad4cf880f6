"""The circuit breaker of one model endpoint, shared by all workers through Redis.

Closed, it lets every call go. After `threshold` failures in a row it is open: nobody calls.
After `open_seconds` it lets one trial call go; an answer closes it, a failure opens it anew.
With Redis away, or slow, each process goes by what it has seen itself.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from importlib.resources import files

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from trilogue.live import keys
from trilogue.live.connection import FAULTS
from trilogue.live.ending import end

ANSWER_WITHIN = 0.25
"""Seconds. Two questions go with every model call, so they wait for less than others do."""
LEFT_ALONE = 2.0
"""Seconds until a Redis that failed or did not answer in time is asked again."""

_TTL_MS = 600_000

_SOURCE = files("trilogue.live").joinpath("breaker.lua").read_text(encoding="utf-8")
_SHA = hashlib.sha1(_SOURCE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whether a call may go now. `wait` is seconds until asking again; `trial` marks the one call while open."""

    wait: float = 0.0
    trial: bool = False


class Breaker:
    """One endpoint's breaker. `endpoint` is its address; durations are seconds.

    Args:
        trial_seconds: how long one trial may take before another is let go; longer than a model call may.
    """

    def __init__(
        self,
        client: Redis,
        *,
        endpoint: str,
        threshold: int,
        open_seconds: float,
        trial_seconds: float,
    ) -> None:
        self._client = client
        self._key = keys.of_breaker(endpoint)
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._trial_seconds = trial_seconds
        self._failures = 0
        self._opened_at = 0.0
        self._trial_until = 0.0
        self._away_until = 0.0

    async def admit(self) -> Admission:
        """Ask for one call."""
        answer = await self._call("admit")
        if answer is None:
            return self._admit_alone()
        if answer < 0:
            return Admission(trial=True)
        return Admission(wait=answer / 1000)

    async def note(self, *, ok: bool) -> None:
        """Tell how a call ended: the endpoint answered, or failed."""
        now = time.monotonic()
        self._failures = 0 if ok else self._failures + 1
        if self._failures >= self._threshold:
            self._opened_at, self._trial_until = now, 0.0
        await self._call("ok" if ok else "fault")

    def _admit_alone(self) -> Admission:
        now = time.monotonic()
        if self._failures < self._threshold:
            return Admission()
        until = max(self._opened_at + self._open_seconds, self._trial_until)
        if now < until:
            return Admission(wait=until - now)
        self._trial_until = now + self._trial_seconds
        return Admission(trial=True)

    async def _call(self, what: str) -> int | None:
        """The script's answer; None with Redis away."""
        if time.monotonic() < self._away_until:
            return None
        # A task of its own: redis-py may swallow a cancellation (`ending`), and a stop must not be lost here.
        asking = asyncio.create_task(self._ask(what), name="breaker")
        try:
            await asyncio.wait({asking}, timeout=ANSWER_WITHIN)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        if not asking.done():
            await end(asking)
        answer = None if asking.cancelled() else asking.result()
        if answer is None:
            self._away_until = time.monotonic() + LEFT_ALONE
        return answer

    async def _ask(self, what: str) -> int | None:
        arguments = (
            what,
            self._threshold,
            round(self._open_seconds * 1000),
            round(self._trial_seconds * 1000),
            max(_TTL_MS, round(2000 * (self._open_seconds + self._trial_seconds))),
        )
        try:
            try:
                answer = await self._client.execute_command("EVALSHA", _SHA, 1, self._key, *arguments)  # type: ignore[no-untyped-call]  # redis-py
            except NoScriptError:
                answer = await self._client.execute_command("EVAL", _SOURCE, 1, self._key, *arguments)  # type: ignore[no-untyped-call]  # redis-py
        except FAULTS:
            return None
        return int(answer)
