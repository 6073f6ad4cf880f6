"""From a committed entry to its event in a WebSocket client: 50 viewers, 200 events a second, real processes."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pydantic import SecretStr

from benchmarks.figures import Figure
from benchmarks.processes import cpu_seconds, started
from benchmarks.servers import api, temporary_home, valkey
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger.opening import TENANT
from trilogue.services import open_services
from trilogue.settings import load_settings

_VIEWERS = 50
_RATE = 200
_SECONDS = 15
_EVENTS = _RATE * _SECONDS
_PIPELINE = "p-000000000000"
_WARMING = _RATE
"""Events at the beginning that are not counted."""


def measure() -> Iterator[Figure]:
    """All viewers watch one pipeline, whose entries this process commits one by one."""
    with temporary_home() as home, valkey(home) as url, ExitStack() as stack:
        settings = load_settings(home=home, redis_url=SecretStr(url))
        asyncio.run(_spawned(settings))
        server = stack.enter_context(api(home, url))
        address = f"ws://127.0.0.1:{server.port}/ws?pipeline_id={_PIPELINE}"
        watch = [sys.executable, "-m", "benchmarks.watchers", address, str(_VIEWERS), str(_EVENTS + 1)]
        viewers = stack.enter_context(started(watch, stdout=subprocess.PIPE, log=home / "watchers.log"))
        assert viewers.stdout is not None
        assert viewers.stdout.readline().strip() == b"ready", (home / "watchers.log").read_text()
        cpu, began = cpu_seconds([server.pid]), time.monotonic()
        committed = asyncio.run(_written(settings))
        busy = (cpu_seconds([server.pid]) - cpu) / (time.monotonic() - began)
        came = {int(seq): times for seq, times in json.loads(viewers.stdout.readline()).items()}
        yield from _figures(committed, came, busy)


def _figures(committed: Mapping[int, int], came: Mapping[int, Sequence[int]], busy: float) -> Iterator[Figure]:
    counted = sorted(seq for seq in committed if seq > _WARMING)
    assert all(len(came[seq]) == _VIEWERS for seq in counted), "an event did not come to everybody exactly once"
    took = sorted((at - committed[seq]) / 1e6 for seq in counted for at in came[seq])
    span = (committed[counted[-1]] - committed[counted[0]]) / 1e9
    note = f"{_VIEWERS} viewers, {(len(counted) - 1) / span:.0f} events/s; CPU of the server {busy:.0%} of one"
    for percent, aim in ((50, 20), (99, 100)):
        yield Figure(
            what=f"entry committed to event in a client, p{percent}",
            on="ledger SQLite, Valkey",
            value=took[len(took) * percent // 100],
            unit="ms",
            aim=aim,
            note=note if percent == 50 else "",
        )


async def _spawned(settings: Any) -> None:
    async with open_services(settings) as services:
        body = {"objective": "measure", "mode": "local", "rehearsal": True, "agent_timeout": 60}
        first = [Draft(kind=Kind.PIPELINE_SPAWNED, body=body)]
        await services.ledger.spawn(TENANT, _PIPELINE, first, at=clock.now())


async def _written(settings: Any) -> dict[int, int]:
    """Commit and post the entries at the wanted rate; when each was committed."""
    committed = {}
    async with open_services(settings) as services:
        claim = await services.ledger.claim(TENANT, _PIPELINE, owner="bench", lease_seconds=600, flow_run_id=None)

        async def write(number: int) -> None:
            entries = await services.ledger.append(claim.fence, [_message(number)], at=clock.now())
            committed[entries[0].seq] = time.monotonic_ns()
            services.live.poster.post(entries)

        begin = time.monotonic()
        async with asyncio.TaskGroup() as writing:
            for number in range(_EVENTS):
                await asyncio.sleep(max(0.0, begin + number / _RATE - time.monotonic()))
                writing.create_task(write(number))
        await services.live.poster.flush(5)
    return committed


def _message(number: int) -> Draft:
    body = {"id": f"m{number}", "to": "ALL", "content": "A word of usual length. " * 12, "turn": 1}
    return Draft(kind=Kind.MESSAGE, actor="alpha-1", body=body)
