"""Reads the board's hashes and the text of running turns back from Redis."""

import json
from typing import Any

from redis.asyncio import Redis

from trilogue.live import keys
from trilogue.live.connection import FAULTS
from trilogue.live.notice import Delta
from trilogue.live.projection import HASHES


async def read_board(client: Redis, tenant: str, pipeline_id: str) -> dict[str, dict[str, Any]] | None:
    """The board's hashes by name, as of one moment; None where Redis has none or is away.

    None says nothing about the pipeline: fold its entries instead.
    """
    place = keys.of_pipeline(tenant, pipeline_id)
    try:
        async with client.pipeline(transaction=True) as pipe:
            for key in place.board:
                pipe.hgetall(key)
            hashes = await pipe.execute()
        board = {
            name: {field: json.loads(value) for field, value in fields.items()}
            for name, fields in zip(HASHES, hashes, strict=True)
        }
    except (*FAULTS, ValueError):
        return None
    return board if board["state"] else None


async def read_turns(client: Redis, tenant: str, pipeline_id: str) -> list[Delta]:
    """What the running turns have produced so far, for whoever joins in their middle; [] without Redis."""
    try:
        fields = await client.hgetall(keys.of_pipeline(tenant, pipeline_id).turns)
        return [_delta(str(field), str(value)) for field, value in fields.items()]
    except (*FAULTS, ValueError):
        return []


def _delta(field: str, value: str) -> Delta:
    turn, _, agent_id = field.partition("/")
    _, _, text = value.partition(":")
    return Delta(turn=int(turn), agent_id=agent_id, offset=0, text=json.loads(f'"{text}"'))
