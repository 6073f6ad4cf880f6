"""The HTTP API as a client meets it: how soon `trilogue up` is ready, and how long a POST takes to its 202."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.figures import Figure
from benchmarks.servers import temporary_home

_POSTS, _PAUSE = 60, 0.25
"""Requests, and seconds between two: a busy day, not a flood."""
_READY_LIMIT, _END_LIMIT = 120.0, 30.0


def measure() -> Iterator[Figure]:
    """Seconds from `trilogue up` to ready with databases that exist, and milliseconds from a POST to its 202."""
    with temporary_home() as home:
        for first in (True, False):
            began = time.perf_counter()
            up, api = _up(home)
            ready = time.perf_counter() - began
            try:
                took = [] if first else sorted(_posted(api))
            finally:
                up.send_signal(signal.SIGTERM)
                up.wait(_END_LIMIT)
    yield Figure(what="`trilogue up`, start to ready", on="existing databases", value=ready, unit="s", aim=15.0)
    yield Figure(
        what="POST /api/spawn to 202, p50",
        on="`trilogue up`",
        value=took[len(took) // 2] * 1e3,
        unit="ms",
        aim=50.0,
        note=f"{1 / _PAUSE:g} a second, which a worker carries; p99 {took[len(took) * 99 // 100] * 1e3:.0f} ms",
    )


def _up(home: Path) -> tuple[subprocess.Popen[str], str]:
    ours = ("TRILOGUE_", "PREFECT_", "OPENROUTER_", "VAULT_", "REDIS_URL", "LOCAL_MODEL_URL")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "trilogue", "up", "--json", "--port", str(_free_port())]
    up = subprocess.Popen(
        command, env=plain | {"TRILOGUE_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert up.stdout is not None
    return up, str(json.loads(up.stdout.readline())["api_url"])


def _posted(api: str) -> Iterator[float]:
    """Seconds of each POST; held at the report, so that few of them are under way."""
    with httpx.Client(base_url=api, trust_env=False, timeout=_READY_LIMIT) as client:
        for _ in range(_POSTS):
            began = time.perf_counter()
            answer = client.post("/api/spawn", json={"objective": "measure", "auto_continue": False})
            yield time.perf_counter() - began
            assert answer.is_success, answer.text
            time.sleep(_PAUSE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
