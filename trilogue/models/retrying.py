"""When a failed model call is made again: the only place in Trilogue where calls are retried."""

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from trilogue.models.faults import CallFailed

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds. A server that asks for more is asked again earlier; the tries are few anyway."""


async def retrying(call: Callable[[], Awaitable[T]], *, tries: int, retry_wait: float, longest_wait: float) -> T:
    """The result of `call`, made up to `tries` times as long as it fails in a way that may pass.

    Waits `retry_wait` seconds, doubled with every try and spread by chance so that agents which
    failed together do not come back together; or as long as the server asked for.

    Raises:
        CallFailed: as the last try raised it.
    """

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.wait if isinstance(failure, CallFailed) else None
        grown = retry_wait * 2 ** (state.attempt_number - 1)
        spread = random.random()  # noqa: S311 - spreads load, guards nothing
        if asked is not None:
            return float(min(asked, longest_wait) + spread * retry_wait)
        return float(min(grown * (0.5 + spread), longest_wait))

    policy = AsyncRetrying(
        stop=stop_after_attempt(tries),
        wait=wait,
        retry=retry_if_exception(lambda error: isinstance(error, CallFailed) and error.again),
        reraise=True,
    )

    async def attempt() -> T:
        return await call()

    return await policy(attempt)
