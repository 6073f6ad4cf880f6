"""Tickets: background tasks of Prefect's that say "one more pipeline is waiting", and nothing else.

Without parameters and without a result a ticket needs no storage that its two ends share, and a lost
one costs nothing: every worker also looks for itself (`tasks.worker`). So sending one never fails.
"""

import asyncio
import contextlib
import logging
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.client.subscriptions import Subscription
from prefect.settings import get_current_settings
from prefect.states import Completed
from prefect.task_worker import TaskWorker

from tasks.drawing import Drawing

logger = logging.getLogger(__name__)

_KEY = "trilogue-draw"
"""What a ticket and its drawers know each other by. Prefect's own key is a hash of the function with its path, and
so another one on each machine."""

_SENT_WITHIN = 5.0
"""Seconds for Prefect to take a ticket; after that, workers find the pipeline by themselves."""

_AGAIN_AFTER = 2.0
"""Seconds until a worker subscribes to tickets again."""

_drawing: ContextVar[Drawing] = ContextVar("drawing")


@task(
    name="draw",
    task_run_name="draw",
    persist_result=False,
    cache_policy=NO_CACHE,
    result_storage=Path(tempfile.gettempdir()),  # as for flows (`options`); nothing is ever written there
)
async def draw() -> State[Any]:
    """Begin to carry the next pipeline that waits, where there is one and room for it."""
    drawn = await _drawing.get().draw()
    return Completed(message=f"{drawn} is carried on" if drawn else "nothing to be drawn here")


draw.task_key = _KEY


async def send_ticket() -> None:
    """Tell one warm worker that a pipeline is waiting. Never raises; Prefect away is a line in the log."""
    try:
        async with asyncio.timeout(_SENT_WITHIN), get_client() as client:
            if await _drawn_anywhere(client):
                await draw.create_run(client=client, deferred=True)
    except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; a ticket may be lost)
        logger.warning("no ticket was sent, workers will look for themselves: %s", type(error).__name__)


async def _drawn_anywhere(client: PrefectClient) -> bool:
    """Whether any worker draws tickets.

    Prefect's server keeps a thousand tickets that nobody draws, and then holds its database for whoever
    sends another. A worker that comes later needs none of them: it begins by looking.
    """
    asked = {"task_worker_filter": {"task_keys": [_KEY]}}
    answer = await client.request("POST", "/task_workers/filter", json=asked)
    return bool(answer.json())


async def draw_for_tickets(drawing: Drawing) -> None:
    """Draw for every ticket that comes, for ever, through all outages of Prefect."""
    _drawing.set(drawing)
    while True:
        try:
            await _drawn_one_by_one()
        except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; the worker looks for itself)
            logger.warning("no tickets for now: %s: %s", type(error).__name__, error)
        await asyncio.sleep(_AGAIN_AFTER)


async def _drawn_one_by_one() -> None:
    async with TaskWorker(draw) as worker:
        worker.tasks = [draw]  # as it is: a worker makes its tasks store their results
        tickets = Subscription(
            model=TaskRun,
            path="/task_runs/subscriptions/scheduled",
            keys=[_KEY],
            client_id=worker.client_id,
            base_url=get_current_settings().api.url,
        )
        try:
            async for ticket in tickets:
                await worker.execute_task_run(ticket)
        finally:
            with contextlib.suppress(Exception):  # it was not connected, or is no longer
                await tickets.websocket.close()
