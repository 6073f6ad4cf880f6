"""The process that does for `warm` what the API does: `python -m benchmarks.poster SINGLES AT_ONCE`.

It records pipelines for any worker, sends a ticket for each, and looks in the ledger when they went on.
One JSON line on stdout.
"""

import asyncio
import json
import logging
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks.model_server import MODEL
from trilogue.clock import SECOND, now
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.launch import prefect_server, send_ticket, serving
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import checked_spec

_LOOK_EVERY = 0.1
_PATIENCE = 300.0


@dataclass(frozen=True, kw_only=True)
class Posted:
    """Seconds: of single pipelines, one after the other, to lease and to first model call; of many at once, in all."""

    leased: list[float]
    called: list[float]
    together: float


async def _measured(services: Services, singles: int, at_once: int) -> Posted:
    await _wait(services, [await _post(services, "the warm-up")])
    leased, called = [], []
    for number in range(singles):
        began = now()
        pipeline_id = await _post(services, f"caching, number {number}")
        await _wait(services, [pipeline_id])
        entries = await services.ledger.entries(TENANT, pipeline_id)
        leased.append(next(entry.at for entry in entries if entry.attempt) - began)
        called.append(next(entry.at for entry in entries if entry.kind is Kind.TURN_BEGUN) - began)
    began_all = time.perf_counter()
    await _wait(services, await asyncio.gather(*(_post(services, f"number {n}") for n in range(at_once))))
    return Posted(
        leased=[each / SECOND for each in leased],
        called=[each / SECOND for each in called],
        together=time.perf_counter() - began_all,
    )


async def _post(services: Services, about: str) -> str:
    spec = checked_spec(objective=f"Design a caching strategy for {about}", mode="local", model=MODEL)
    pipeline_id = await local(services).spawn(spec, may_rehearse=False, queued=True)
    await send_ticket()
    return pipeline_id


async def _wait(services: Services, pipeline_ids: list[str]) -> None:
    """Until all have ended; one that ended otherwise than COMPLETED is an error."""
    async with asyncio.timeout(_PATIENCE):
        while left := [each for each in pipeline_ids if not await _completed(services, each)]:
            pipeline_ids = left
            await asyncio.sleep(_LOOK_EVERY)


async def _completed(services: Services, pipeline_id: str) -> bool:
    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    assert not row.status.ended or row.status is Status.COMPLETED, f"a pipeline ended {row.status}"
    return row.status.ended


async def _main() -> Posted:
    async with serving(load_settings()) as services:
        return await _measured(services, int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with prefect_server(load_settings(), lambda _: None):
        posted = asyncio.run(_main())
    print(json.dumps(asdict(posted)))
