"""The process that carries pipelines for `pipelines`: `python -m benchmarks.worker PID…`, one JSON line on stdout.

It is configured by its environment as any process of Trilogue is. The given processes are those
of the Prefect server, whose CPU time is taken at the same moments as its own.
"""

import asyncio
import json
import logging
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

import psutil  # type: ignore[import-untyped]  # it has no types

from benchmarks import bare
from benchmarks.model_server import MODEL
from benchmarks.processes import cpu_seconds
from trilogue.desk import local
from trilogue.entry import Entry
from trilogue.launch import carry, prefect_server, serving
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import checked_spec

AT_ONCE = 16
SINGLES = 5
_AFTERGLOW = 1.0
"""Seconds in which the Prefect server deals with events and log lines that flow runs left behind."""

_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What was measured, in seconds and MiB; CPU is of all `AT_ONCE` together."""

    singles: list[float]
    paths: list[int]
    bare_singles: list[float]
    together: float
    client_cpu: float
    server_cpu: float
    bare_together: float
    bare_cpu: float
    rss: float
    peak: float


async def _measured(services: Services, server: Sequence[int]) -> Carried:
    recorded = await _carried(services, "the warm-up")
    waves = bare.waves_of(recorded, answer_tokens=services.settings.answer_tokens)
    gateway = services.gateways.shared("local", False)

    paths, singles, bare_singles = [], [], []
    for number in range(SINGLES):
        began = time.perf_counter()
        entries = await _carried(services, f"caching, number {number}")
        singles.append(time.perf_counter() - began)
        paths.append(bare.critical_path(entries))
        bare_singles.append(await _timed(lambda: bare.run(gateway, waves)))

    await asyncio.sleep(_AFTERGLOW)
    served, used = cpu_seconds(server), time.process_time()
    together = await _timed(lambda: asyncio.gather(*(_carried(services, f"number {n}") for n in range(AT_ONCE))))
    await asyncio.sleep(_AFTERGLOW)
    client_cpu, server_cpu = time.process_time() - used, cpu_seconds(server) - served
    rss = psutil.Process().memory_info().rss / _MIB

    used = time.process_time()
    bare_together = await _timed(lambda: asyncio.gather(*(bare.run(gateway, waves) for _ in range(AT_ONCE))))
    return Carried(
        singles=singles,
        paths=paths,
        bare_singles=bare_singles,
        together=together,
        client_cpu=client_cpu,
        server_cpu=server_cpu,
        bare_together=bare_together,
        bare_cpu=time.process_time() - used,
        rss=rss,
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / _MIB,
    )


async def _carried(services: Services, about: str) -> list[Entry]:
    """One pipeline from SPAWN to COMPLETE, and its entries."""
    spec = checked_spec(objective=f"Design a caching strategy for {about}", mode="local", model=MODEL)
    pipeline_id = await local(services).spawn(spec, may_rehearse=False)
    await carry(pipeline_id, spec)
    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    assert row.status is Status.COMPLETED, f"a pipeline ended {row.status}"
    return await services.ledger.entries(TENANT, pipeline_id)


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def _main(server: Sequence[int]) -> Carried:
    async with serving(load_settings()) as services:
        return await _measured(services, server)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with prefect_server(load_settings(), lambda _: None):
        carried = asyncio.run(_main([int(pid) for pid in sys.argv[1:]]))
    print(json.dumps(asdict(carried)))
