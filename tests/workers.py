"""Workers as processes of their own, that a test may kill or stop: they carry a pipeline, or take orphans up.

They are forked from one process that has loaded everything, so that a worker is there in a fraction of a second.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from typing import Any

from prefect.context import refresh_global_settings_context

from flows.pipeline import pipeline
from tasks.taking_up import take_up
from trilogue.desk import local
from trilogue.errors import TrilogueError
from trilogue.launch import carry, serving, work
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec

FENCED_OFF = 3
"""The exit code of a worker whose pipeline was taken from it."""

_LOOK_EVERY = 0.1


def start(work: Callable[..., None], environment: Mapping[str, str], *given: str) -> ForkServerProcess:
    """A running worker, which does `work` (one of the functions below) and ends."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    worker = context.Process(target=work, args=(dict(environment), *given), daemon=True)
    worker.start()
    return worker


@contextmanager
def taking_up_elsewhere(environment: Mapping[str, str]) -> Iterator[None]:
    """A worker that takes up whatever is orphaned, for as long as the block lasts."""
    worker = start(taker, environment)
    try:
        yield
        assert worker.is_alive(), "the worker that takes up has died"
    finally:
        worker.kill()
        worker.join(10)


def carrier(environment: dict[str, str], pipeline_id: str) -> None:
    """Carry one pipeline to its end, as `trilogue resume` does."""

    async def work() -> None:
        async with serving(load_settings()) as services:
            row = await local(services).board(pipeline_id)
            await carry(pipeline_id, PipelineSpec(objective=row.spec["objective"]))

    _run(work, environment)


def taker(environment: dict[str, str]) -> None:
    """Take up orphans for ever, as the upkeep loop of a worker does."""

    async def work() -> None:
        async with serving(load_settings()) as services, asyncio.TaskGroup() as group:
            while True:
                group.create_task(take_up(services, _flow, deployment=None))
                await asyncio.sleep(_LOOK_EVERY)

    _run(work, environment)


def warm(environment: dict[str, str], concurrency: str, grace: str) -> None:
    """Be a warm worker, as `trilogue worker` is."""
    _run(lambda: work(load_settings(), concurrency=int(concurrency), grace=float(grace)), environment)


_flow: Any = pipeline


def _run(work: Callable[[], Any], environment: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the test run's
    os.environ.update(environment)
    refresh_global_settings_context()
    try:
        asyncio.run(work())
    except TrilogueError:
        sys.exit(FENCED_OFF)
