"""Boards that nobody needs for long any more: their keys get a shorter time to live."""

from collections.abc import Sequence

from redis.asyncio import Redis

from trilogue.live import keys
from trilogue.live.connection import FAULTS, unavailable

_AT_ONCE = 100
"""Pipelines a round trip, of eight keys each."""


async def shorten(client: Redis, pipelines: Sequence[tuple[str, str]], *, ttl: float) -> int:
    """Let the keys of `pipelines` (tenant and id) live for at most `ttl` seconds more.

    Returns:
        How many of them had keys that would have lived longer.

    Raises:
        Unavailable: Redis is away.
    """
    shortened = 0
    try:
        for start in range(0, len(pipelines), _AT_ONCE):
            shortened += await _shorten(client, pipelines[start : start + _AT_ONCE], ttl_ms=int(ttl * 1000))
    except FAULTS as error:
        raise unavailable(client, error) from error
    return shortened


async def _shorten(client: Redis, pipelines: Sequence[tuple[str, str]], *, ttl_ms: int) -> int:
    # Not `PEXPIRE … LT`, which Redis knows only since 7.0.
    declared = {key: place for place in pipelines for key in keys.of_pipeline(*place).declared}
    async with client.pipeline(transaction=False) as pipe:
        for key in declared:
            pipe.pttl(key)
        left = await pipe.execute()
    longer = {key: place for (key, place), ms in zip(declared.items(), left, strict=True) if ms > ttl_ms}
    if longer:
        async with client.pipeline(transaction=False) as pipe:
            for key in longer:
                pipe.pexpire(key, ttl_ms)
            await pipe.execute()
    return len(set(longer.values()))
