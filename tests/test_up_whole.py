"""`trilogue up` as a user meets it: one command, everything ready, and nothing of it left, however it ends."""

import http.client
import json
import os
import signal
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.prefect import PrefectServer
from tests.terminals import Installation, Terminal, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OBJECTIVE = "Design a caching strategy"
DEPLOYMENTS = {"pipeline", "nightly", "maintenance", "continue"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def asked(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON document that a GET, or with a body a POST, answers."""
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    try:
        asked(url)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError):
        return False
    return True


def ready(up: Terminal) -> dict[str, Any]:
    """The line of JSON on stdout, which comes when everything is ready."""
    up.shows("\n")
    document: dict[str, Any] = json.loads(up.seen)
    return document


def part(installation: Installation, name: str) -> int:
    """The process of one part."""
    (pid,) = (
        pid
        for pid in installation.pids()
        if [b"trilogue", name.encode()] == Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[3:5]
    )
    return pid


def is_completed(api: str, pipeline_id: str) -> Callable[[], bool]:
    return lambda: asked(f"{api}/api/pipelines/{pipeline_id}")["status"] == "COMPLETED"


def test_one_command_serves_heals_and_leaves_nothing_when_it_is_killed(installation: Installation) -> None:
    prefect_port = free_port()
    up = installation.start("up", "--json", "--port", str(free_port()), "--prefect-port", str(prefect_port))
    state = ready(up)
    api, prefect = state["api_url"], f"{state['prefect_url']}/api"
    assert state["prefect_url"] == f"http://127.0.0.1:{prefect_port}"
    assert state["dashboard_url"] == api
    file = installation.home / "run/up.json"
    assert json.loads(file.read_text()) == state | {"pid": up.pid}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    deployed = {deployment["name"]: deployment for deployment in asked(f"{prefect}/deployments/filter", {})}
    assert deployed.keys() == DEPLOYMENTS
    active = {name for name, one in deployed.items() if any(schedule["active"] for schedule in one["schedules"])}
    assert active == {"maintenance"}, "nobody has asked for a pipeline every night"
    (worker,) = asked(f"{prefect}/work_pools/trilogue/workers/filter", {})
    assert worker["status"] == "ONLINE"

    spawned = asked(f"{api}/api/spawn", {"objective": OBJECTIVE})
    until(is_completed(api, spawned["pipeline_id"]), within=30)
    page = f"{api}/pipelines/{spawned['pipeline_id']}"
    until(lambda: any(page in str(artifact["data"]) for artifact in asked(f"{prefect}/artifacts/filter", {})))

    second = installation.run("up", "--port", str(free_port()))
    assert (second.code, api in second.err) == (1, True)

    os.kill(part(installation, "api"), signal.SIGKILL)
    until(lambda: answers(f"{api}/readyz"), within=30)

    guardian = json.loads((installation.home / "run/prefect/state.json").read_text())["guardian_pid"]
    os.kill(guardian, signal.SIGKILL)
    until(lambda: not answers(f"{prefect}/health"), within=10)
    until(lambda: answers(f"{prefect}/health"), within=60)

    up.send(signal.SIGKILL).ended()
    until(lambda: not installation.pids(), within=5)


def test_ctrl_c_ends_all_parts_and_flow_runs_but_not_what_was_configured(
    installation: Installation, prefect_server: PrefectServer, valkey_socket: Path
) -> None:
    configured = prefect_server.environment | {
        "REDIS_URL": f"unix://{valkey_socket}?db=14",
        "TRILOGUE_REHEARSAL_LATENCY": "20",
    }
    configured |= {"TRILOGUE_DASHBOARD_URL": "https://trilogue.example"}
    up = installation.start("up", "--port", str(free_port()), columns=100, env=configured)
    up.shows("Trilogue is up").shows("Rehearsal: no language model is used")
    assert "https://trilogue.example" in up.seen
    assert not (installation.home / "run/prefect").exists()
    assert not (installation.home / "run/valkey").exists()

    deployed = asked(f"{prefect_server.api_url}/deployments/name/pipeline/pipeline")
    run = asked(
        f"{prefect_server.api_url}/deployments/{deployed['id']}/create_flow_run",
        {"parameters": {"objective": OBJECTIVE, "mode": "local"}},
    )
    until(
        lambda: asked(f"{prefect_server.api_url}/flow_runs/{run['id']}")["state_type"] == "RUNNING",
        within=40,
    )
    assert up.press_ctrl_c().ended(within=20).code == 130
    assert not installation.pids()
    assert answers(f"{prefect_server.api_url}/health")
