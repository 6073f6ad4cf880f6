"""A warm worker: from a pipeline's being recorded to its first model call, and many pipelines at once.

What the API does for a POST is done by a process of its own (`poster`), the pipelines are carried by
another (`warm_worker`), the model is a third; the Prefect server and the databases are real.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types

from benchmarks.figures import Figure
from benchmarks.processes import cpu_seconds, started
from benchmarks.servers import (
    Prefect,
    debian_postgres,
    embedded_prefect,
    model_server,
    postgres,
    prefect_on_postgres,
    temporary_home,
)
from trilogue.ledger import schema

LATENCY = 0.5
SINGLES = 20
AT_ONCE = 64
_PATIENCE = 600
_MIB = 1024 * 1024


def measure() -> Iterator[Figure]:
    """The ledger on PostgreSQL, with the embedded Prefect server and with one on PostgreSQL too."""
    with temporary_home() as home, model_server(LATENCY) as model, postgres() as ledger:
        schema.upgrade(ledger)
        settings = {"TRILOGUE_HOME": str(home), "LOCAL_MODEL_URL": model, "TRILOGUE_DATABASE_URL": ledger}
        with embedded_prefect(home) as prefect:
            yield from _figures(prefect, settings, home)
        if programs := debian_postgres():
            with prefect_on_postgres(programs, home) as prefect:
                yield from _figures(prefect, settings, home)


def _figures(prefect: Prefect, settings: Mapping[str, str], home: Path) -> Iterator[Figure]:
    own, log = {**settings, **prefect.environment}, home / "warm.log"
    with ExitStack() as stack:
        carrying = [sys.executable, "-m", "benchmarks.warm_worker", str(AT_ONCE)]
        worker = stack.enter_context(started(carrying, own=own, log=log))
        pids = [worker.pid], prefect.pids
        before = [cpu_seconds(each) for each in pids]
        posting = [sys.executable, "-m", "benchmarks.poster", str(SINGLES), str(AT_ONCE)]
        poster = stack.enter_context(started(posting, own=own, stdout=subprocess.PIPE, log=log))
        said, _ = poster.communicate(timeout=_PATIENCE)
        if poster.returncode:
            raise RuntimeError(f"posting failed:\n{log.read_text()[-3000:]}")
        posted: dict[str, Any] = json.loads(said.splitlines()[-1])
        used = [cpu_seconds(each) - then for each, then in zip(pids, before, strict=True)]
        resident = psutil.Process(worker.pid).memory_info().rss / _MIB
    on = f"ledger PostgreSQL, Prefect {prefect.database}"
    called, leased = posted["called"], posted["leased"]
    yield Figure(
        what="recorded to first model call, warm worker",
        on=on,
        value=statistics.median(called),
        unit="s",
        aim=0.6,
        note=f"median of {SINGLES}, at most {max(called):.2f} s; leased after {statistics.median(leased):.2f} s",
    )
    each = SINGLES + AT_ONCE + 1
    yield Figure(
        what=f"pipelines, {AT_ONCE} at once, one warm worker",
        on=on,
        value=AT_ONCE / posted["together"],
        unit="/s",
        note=f"{posted['together']:.1f} s for all; CPU a pipeline: worker {used[0] / each:.2f} s, "
        f"Prefect server {used[1] / each:.2f} s",
    )
    yield Figure(what="memory of a warm worker", on=on, value=resident, unit="MiB", note=f"after {AT_ONCE} at once")
