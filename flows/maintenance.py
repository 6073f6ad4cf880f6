"""Behind the workers' own upkeep: no pipeline gets lost, and nothing is kept for longer than it is needed."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

import tasks
from flows.pipeline import pipeline


@flow(name="maintenance", **tasks.FLOW_OPTIONS)
async def maintenance() -> State[Any]:
    """End rounds that are out of time, take up orphans, remove old checkpoints, expire boards, anchor the record."""
    async with tasks.maintaining(pipeline):
        overdue = await tasks.outcome_of(tasks.end_overdue)
        pruned = await tasks.outcome_of(tasks.prune_checkpoints)
        expiring = await tasks.outcome_of(tasks.expire_boards)
        taken_up = await tasks.outcome_of(tasks.take_up)
        anchored = await tasks.outcome_of(tasks.anchor)
    return await tasks.kept_up(overdue=overdue, taken_up=taken_up, pruned=pruned, expiring=expiring, anchored=anchored)
