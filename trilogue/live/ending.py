"""Ends a task that talks to Redis.

redis-py sends through `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that
comes in the moment when the sending has just ended. One `cancel()` is therefore not enough.
"""

import asyncio
from typing import Any

PATIENCE = 0.1
"""Seconds that a task gets to end before it is cancelled again."""


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it has ended. Raises what it died of, if it was not the cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
    if not task.cancelled():
        task.result()
