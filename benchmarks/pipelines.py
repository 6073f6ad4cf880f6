"""Whole pipelines against a model of fixed latency: overhead, throughput, CPU and memory.

A process of its own carries them (`worker`), once for each pair of a ledger and a Prefect
server, beside the bare loop that makes the same calls in the same process.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.processes import started
from benchmarks.servers import (
    Prefect,
    debian_postgres,
    embedded_prefect,
    model_server,
    postgres,
    prefect_on_postgres,
    temporary_home,
)
from benchmarks.worker import AT_ONCE, SINGLES
from trilogue.ledger import schema

LATENCY = 0.5
PATH = 4
"""Calls on the critical path of the default rehearsal: research, propose, revise, approve."""


def measure() -> Iterator[Figure]:
    """Ledger on SQLite, then on PostgreSQL, both with Prefect's own server; then Prefect on PostgreSQL too."""
    with temporary_home() as home, model_server(LATENCY) as model, postgres() as ledger:
        schema.upgrade(ledger)
        settings = {"TRILOGUE_HOME": str(home), "LOCAL_MODEL_URL": model}
        on_postgres = settings | {"TRILOGUE_DATABASE_URL": ledger}
        with embedded_prefect(home) as prefect:
            yield from _figures("SQLite", prefect, _carried(settings, prefect, home), aims=True)
            yield from _figures("PostgreSQL", prefect, _carried(on_postgres, prefect, home), aims=True)
        if programs := debian_postgres():
            with prefect_on_postgres(programs, home) as prefect:
                yield from _figures("PostgreSQL", prefect, _carried(on_postgres, prefect, home), aims=False)
        else:
            note = "needs Debian's postgresql, which is not installed here"
            yield Figure(what="pipelines", on="Prefect PostgreSQL", value=None, unit="/s", note=note)


def _carried(settings: Mapping[str, str], prefect: Prefect, home: Path) -> dict[str, Any]:
    """What a worker with these settings measured."""
    command = [sys.executable, "-m", "benchmarks.worker", *map(str, prefect.pids)]
    log = home / "worker.log"
    with started(command, own={**settings, **prefect.environment}, stdout=subprocess.PIPE, log=log) as process:
        said, _ = process.communicate(timeout=180)
        if process.returncode:
            raise RuntimeError(f"the worker failed:\n{log.read_text()[-3000:]}")
        measured: dict[str, Any] = json.loads(said.splitlines()[-1])
        return measured


def _figures(ledger: str, prefect: Prefect, carried: Mapping[str, Any], *, aims: bool) -> Iterator[Figure]:
    on = f"ledger {ledger}, Prefect {prefect.database}"
    over = [wall - path * LATENCY for wall, path in zip(carried["singles"], carried["paths"], strict=True)]
    calls = PATH if set(carried["paths"]) == {PATH} else carried["paths"]
    bare_over = statistics.median(carried["bare_singles"]) - PATH * LATENCY
    yield Figure(
        what=f"overhead of 1 pipeline over {calls} calls of {LATENCY} s",
        on=on,
        value=statistics.median(over),
        unit="s",
        aim=0.6 if aims else None,
        note=f"median of {SINGLES}, from {min(over):.2f} to {max(over):.2f} s; bare loop {bare_over:.2f} s",
    )
    yield Figure(
        what=f"pipelines, {AT_ONCE} at once",
        on=on,
        value=AT_ONCE / carried["together"],
        unit="/s",
        note=f"{carried['together']:.1f} s for all; bare loop {AT_ONCE / carried['bare_together']:.1f} /s",
    )
    client, server, bare = (carried[name] / AT_ONCE for name in ("client_cpu", "server_cpu", "bare_cpu"))
    for whose, seconds, note in (
        ("worker", client, f"bare loop {bare:.2f} s"),
        ("Prefect server", server, "with its database"),
    ):
        yield Figure(what=f"CPU per pipeline, {whose}", on=on, value=seconds, unit="s", note=note)
    yield Figure(
        what=f"worker's memory, {AT_ONCE} at once",
        on=on,
        value=max(carried["rss"], carried["peak"]),
        unit="MiB",
        aim=300,
        note=f"resident, at its peak; {carried['rss']:.0f} MiB at the end",
    )
