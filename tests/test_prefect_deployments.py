"""`prefect deploy --all`, a process worker, and runs as users of Prefect start them; all parts are found by blocks."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.fixtures.book import until
from tests.fixtures.prefect import PrefectServer
from tests.fixtures.vault import VaultServer
from trilogue.entry import Entry
from trilogue.ledger import Ledger, PipelineRow, sqlite_url
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal import rehearse
from trilogue.pipeline import Status, pipeline_id_for
from trilogue.secrets.vault import OPENROUTER_KEY
from trilogue.testing.openrouter import OpenRouterServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
KEY = "sk-or-v1-of-the-deployments-test"
ONE_ROUND = ["spawn", "run-alpha", "run-beta", "report", "orchestrate", "negotiate-alpha", "negotiate-beta", "complete"]
OURS = ("TRILOGUE_", "OPENROUTER_", "VAULT_", "GAMMA_", "PREFECT_", "REDIS_", "LOCAL_MODEL", "ORCHESTRATION_", "AUTO_")
PATIENCE = 90.0
LEASE = 4.0
STOPPED_WITHIN = 3.0
"""Seconds from the cancellation in Prefect until nothing acts any more (DESIGN section 6)."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A Prefect server with our deployments and a worker, and the places that only its blocks name."""

    api: httpx.Client
    environment: dict[str, str]
    home: Path
    ledger_url: str
    redis_url: str
    model_port: int

    def command(self, *words: str, **environment: str) -> str:
        """What a command says on stdout; it must succeed."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=CHECKOUT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def get(self, path: str) -> Any:
        return self._asked("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        return self._asked("POST", path, json=body)

    def _asked(self, method: str, path: str, **how: Any) -> Any:
        deadline = time.monotonic() + PATIENCE
        # On SQLite a busy server says 503; every client of Prefect asks again then.
        while (answer := self.api.request(method, path, **how)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json()

    async def ended(self, flow_run_id: str) -> dict[str, Any]:
        """The flow run at its end, with no task run of it left behind."""
        run: dict[str, Any] = {}

        def final() -> bool:
            nonlocal run
            run = self.get(f"/flow_runs/{flow_run_id}")
            return run["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

        await until(final, seconds=PATIENCE)
        await until(lambda: all(task["state_type"] not in _OPEN for task in self.tasks(flow_run_id)), seconds=20)
        return run

    def tasks(self, flow_run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("/task_runs/filter", flow_runs={"id": {"any_": [flow_run_id]}})
        return found

    async def entries(self, pipeline_id: str) -> list[Entry]:
        ledger = await Ledger.open(self.ledger_url, migrate=False)
        try:
            return await ledger.entries(TENANT, pipeline_id)
        finally:
            await ledger.close()

    async def pipeline(self, pipeline_id: str) -> PipelineRow:
        ledger = await Ledger.open(self.ledger_url, migrate=False)
        try:
            return await ledger.get_pipeline(TENANT, pipeline_id)
        finally:
            await ledger.close()

    async def pipelines(self) -> int:
        ledger = await Ledger.open(self.ledger_url, migrate=False)
        try:
            return len((await ledger.list_pipelines(TENANT)).items)
        finally:
            await ledger.close()


_OPEN = {"PENDING", "RUNNING", "CANCELLING", "SCHEDULED"}


@pytest.fixture(scope="module")
def installation(
    prefect_server: PrefectServer,
    vault_server: VaultServer,
    vault_root: Any,
    valkey_socket: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """What README tells an administrator to do; the worker's own environment names nothing but a home."""
    folder = tmp_path_factory.mktemp("deployed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        model_port = probe.getsockname()[1]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    places = {
        "TRILOGUE_DATABASE_URL": sqlite_url(folder / "named-by-the-block.db"),
        "REDIS_URL": f"unix://{valkey_socket}?db=15",
        "VAULT_ADDR": vault_server.address,
        "VAULT_TOKEN": vault_server.root_token,
        "OPENROUTER_BASE_URL": f"http://127.0.0.1:{model_port}/api/v1",  # nothing is there unless a test starts it
        "OPENROUTER_MODEL": "named/by-the-block",
    }
    vault_root.secrets.kv.v2.create_or_update_secret(OPENROUTER_KEY[0], {OPENROUTER_KEY[1]: KEY})
    with httpx.Client(base_url=prefect_server.api_url, timeout=30) as api:
        installed = Installation(
            api=api,
            environment=outside
            | prefect_server.environment
            | {
                "TRILOGUE_HOME": str(folder / "home"),
                "TRILOGUE_REHEARSAL_LATENCY": "0.2",
                "TRILOGUE_LEASE_SECONDS": str(LEASE),
                "PREFECT_CLI_PROMPTS": "false",
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            },
            home=folder / "home",
            ledger_url=places["TRILOGUE_DATABASE_URL"],
            redis_url=places["REDIS_URL"],
            model_port=model_port,
        )
        installed.command("trilogue", "db", "upgrade", **places)
        installed.command("trilogue", "blocks", "register", "--save", **places)
        installed.command("prefect", "work-pool", "create", "trilogue", "--type", "process", "--overwrite")
        installed.command("prefect", "--no-prompt", "deploy", "--all")
        try:
            with _worker(installed, folder / "worker.log"):
                yield installed
        finally:
            for block in installed.post("/block_documents/filter", block_documents={"name": {"any_": ["trilogue"]}}):
                api.delete(f"/block_documents/{block['id']}")


@contextmanager
def _worker(installed: Installation, log: Path) -> Iterator[None]:
    command = [str(BIN / "prefect"), "worker", "start", "--pool", "trilogue", "--name", "of-the-test"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=log.parent, env=installed.environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE
        while not any(worker["status"] == "ONLINE" for worker in installed.post("/work_pools/trilogue/workers/filter")):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def deployment(installed: Installation, name: str) -> dict[str, Any]:
    found: dict[str, Any] = installed.get(f"/deployments/name/{name}")
    return found


def created_by_cli(installed: Installation, name: str, **parameters: Any) -> str:
    """The id of a flow run that `prefect deployment run` made."""
    before = {run["id"] for run in installed.post("/flow_runs/filter")}
    by_hand = {"auto_scheduled": False, "deployment_id": deployment(installed, name)["id"]}
    given = [word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")]
    installed.command("prefect", "--no-prompt", "deployment", "run", name, *given)
    runs = [run for run in installed.post("/flow_runs/filter") if run.items() >= by_hand.items()]
    (new,) = [run["id"] for run in runs if run["id"] not in before]
    return str(new)


def created_by_api(installed: Installation, name: str, **parameters: Any) -> str:
    """The id of a flow run that was posted to Prefect's API."""
    deployed = deployment(installed, name)
    run = installed.post(f"/deployments/{deployed['id']}/create_flow_run", parameters=parameters)
    return str(run["id"])


def at_once(tasks: dict[str, dict[str, Any]], *names: str) -> bool:
    return bool(max(tasks[name]["start_time"] for name in names) < min(tasks[name]["end_time"] for name in names))


@pytest.mark.parametrize("created", [created_by_cli, created_by_api])
async def test_a_run_that_is_started_in_prefect_completes_with_everything_to_see(
    installation: Installation, created: Any
) -> None:
    run_id = created(installation, "pipeline/pipeline", objective="Choose a queue", mode="local", labels=["seen"])
    run = await installation.ended(run_id)
    pipeline_id = pipeline_id_for(run_id)
    assert (run["name"], run["state_name"]) == (pipeline_id, "Completed"), run["state"]
    await until(lambda: len(installation.tasks(run_id)) == len(ONE_ROUND), seconds=20)
    tasks = {task["name"]: task for task in installation.tasks(run_id)}
    assert sorted(tasks) == sorted(ONE_ROUND)
    assert {task["state_name"] for task in tasks.values()} == {"Completed"}
    assert at_once(tasks, "run-alpha", "run-beta")
    assert at_once(tasks, "negotiate-alpha", "negotiate-beta")

    entries = await installation.entries(pipeline_id)
    assert entries[-1].body["name"] == "completed"
    assert not installation.home.joinpath("ledger.db").exists()
    with Redis.from_url(installation.redis_url, decode_responses=True) as redis:
        assert list(redis.scan_iter(f"*{pipeline_id}*"))

    def artifacts() -> dict[str, Any]:
        found = installation.post("/artifacts/filter", flow_runs={"id": {"any_": [run_id]}})
        return {artifact["key"]: artifact for artifact in found}

    await until(lambda: artifacts().keys() >= {f"{pipeline_id}-{name}" for name in ("report", "result", "votes")}, 20)
    by_key = artifacts()
    assert "Choose a queue" in by_key[f"{pipeline_id}-report"]["data"]
    (consensus,) = [entry.body for entry in entries if entry.kind == "consensus"]
    assert consensus["title"] in by_key[f"{pipeline_id}-result"]["data"]
    assert json.loads(by_key[f"{pipeline_id}-votes"]["data"])[0]["author"] in {"alpha-1", "beta-1"}

    def events() -> list[str]:
        resource = {"id": [f"trilogue.pipeline.{pipeline_id}"]}
        return [
            found["event"] for found in installation.post("/events/filter", filter={"resource": resource})["events"]
        ]

    wanted = {f"trilogue.pipeline.{name}" for name in ("running", "report", "orchestrating", "completed")}
    await until(lambda: wanted <= set(events()), seconds=30)


async def test_a_held_pipeline_is_continued_by_its_deployment(installation: Installation) -> None:
    parameters = {"objective": "Choose a queue", "mode": "local", "auto_continue": False}
    held_run = await installation.ended(created_by_api(installation, "pipeline/pipeline", **parameters))
    assert held_run["state_name"] == "Held"
    pipeline_id = held_run["name"]
    run_id = created_by_cli(
        installation, "continuation/continue", pipeline_id=pipeline_id, guidance="Prefer what is boring"
    )
    run = await installation.ended(run_id)
    assert (run["name"], run["state_name"]) == (pipeline_id, "Completed"), run["state"]
    bodies = [entry.body for entry in await installation.entries(pipeline_id) if entry.kind == "guidance"]
    assert [body["text"] for body in bodies] == ["Prefer what is boring"]


async def test_without_any_variable_a_run_finds_key_model_ledger_and_redis_through_the_blocks(
    installation: Installation,
) -> None:
    listed = installation.command("prefect", "block", "ls")
    for slug in ("vault-secrets", "dragonfly", "openrouter", "ledger-database"):
        assert f"{slug}/" in listed
    async with serving(rehearse, port=installation.model_port, key=KEY) as openrouter:
        create = asyncio.to_thread(created_by_api, installation, "pipeline/pipeline", objective="Choose a queue")
        run = await _ended_meanwhile(installation, await create)
        assert run["state_name"] == "Completed", run["state"]
        assert {seen.model for seen in openrouter.chats} == {"named/by-the-block"}
        assert {seen.key for seen in openrouter.chats} == {openrouter.chats[0].key}
    spent = [entry.body for entry in await installation.entries(run["name"]) if entry.kind == "turn_ended"]
    assert len(spent) == len(openrouter.chats)
    assert all(body["cost_nanousd"] > 0 for body in spent)
    assert KEY not in json.dumps([run, installation.post("/logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}})])


@pytest.mark.parametrize("asked", ["CANCELLING", "CANCELLED"])
async def test_cancelling_a_run_in_prefect_stops_its_pipeline_within_three_seconds(
    installation: Installation, asked: str
) -> None:
    async with serving(rehearse, port=installation.model_port, key=KEY, latency=0.5) as openrouter:
        run_id = await _under_way(installation, openrouter)
        cancelled = time.monotonic()
        await asyncio.to_thread(installation.post, f"/flow_runs/{run_id}/set_state", state={"type": asked}, force=True)
        pipeline_id = pipeline_id_for(run_id)
        await until(lambda: _has_status(installation, pipeline_id, Status.STOPPED), seconds=STOPPED_WITHIN)
        stopped = time.monotonic()
        run = await _ended_meanwhile(installation, run_id)
        assert run["state_name"] == "Cancelled"
        await until(lambda: all(seen.ended is not None for seen in openrouter.chats))
        assert max(seen.began for seen in openrouter.chats) < cancelled + STOPPED_WITHIN
        assert max(seen.ended or 0.0 for seen in openrouter.chats) < stopped + 1.0
    entries = await installation.entries(pipeline_id)
    assert [entry.kind.value for entry in entries[-3:]] == ["status", "stopped", "checkpoint"]
    assert entries[-2].body["reason"] == "cancelled in Prefect"


async def test_a_plain_kill_of_a_runs_process_leaves_an_orphan_at_once_and_nothing_running(
    installation: Installation,
) -> None:
    async with serving(rehearse, port=installation.model_port, key=KEY, latency=0.5) as openrouter:
        run_id = await _under_way(installation, openrouter)
        pipeline_id = pipeline_id_for(run_id)
        os.kill(_process_of(run_id), signal.SIGTERM)
        await until(lambda: _is_orphan(installation, pipeline_id), seconds=STOPPED_WITHIN)
        run = await _ended_meanwhile(installation, run_id)
        assert run["state_name"] == "Crashed"
        await until(lambda: all(seen.ended is not None for seen in openrouter.chats))
    assert await _has_status(installation, pipeline_id, Status.RUNNING)


async def test_a_run_whose_process_is_killed_is_taken_up_by_maintenance_and_carried_on_by_the_pool(
    installation: Installation,
) -> None:
    async with serving(rehearse, port=installation.model_port, key=KEY, latency=0.3) as openrouter:
        run_id = await _under_way(installation, openrouter)
        pipeline_id = pipeline_id_for(run_id)
        os.kill(_process_of(run_id), signal.SIGKILL)
        await until(lambda: _is_orphan(installation, pipeline_id), seconds=LEASE + 5)
        kept = await asyncio.to_thread(created_by_api, installation, "maintenance/maintenance")
        said = (await _ended_meanwhile(installation, kept))["state"]["message"]
        assert re.search(r"[1-9]\d* orphans given to pipeline/pipeline", said), said
        await until(lambda: _has_status(installation, pipeline_id, Status.COMPLETED), seconds=PATIENCE)
    heir = (await installation.pipeline(pipeline_id)).flow_run_id
    assert heir
    assert heir != run_id
    assert (await installation.ended(heir))["state_name"] == "Completed"
    assert (await installation.ended(run_id))["state_name"] == "Crashed"


async def _under_way(installed: Installation, openrouter: OpenRouterServer) -> str:
    """The id of a new run whose agents have begun to call their models."""
    run_id = await asyncio.to_thread(
        created_by_api, installed, "pipeline/pipeline", objective="Choose a queue", agent_timeout=60
    )
    await until(lambda: len(openrouter.chats) >= 2, seconds=PATIENCE)
    return run_id


def _process_of(run_id: str) -> int:
    """The process in which a flow run is."""
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"PREFECT__FLOW_RUN_ID={run_id}".encode() in place.read_bytes():
                return int(place.parent.name)
    raise AssertionError("no process has it")


async def _has_status(installed: Installation, pipeline_id: str, status: Status) -> bool:
    return (await installed.pipeline(pipeline_id)).status is status


async def _is_orphan(installed: Installation, pipeline_id: str) -> bool:
    return (await installed.pipeline(pipeline_id)).orphaned


async def _ended_meanwhile(installed: Installation, run_id: str) -> dict[str, Any]:
    """`ended`, for a test whose own event loop serves the run."""
    return await asyncio.to_thread(lambda: asyncio.run(installed.ended(run_id)))


async def test_the_nightly_schedule_is_active_and_every_deployment_runs_on_the_pool(installation: Installation) -> None:
    for name in ("pipeline/pipeline", "pipeline/nightly", "continuation/continue", "maintenance/maintenance"):
        deployed = deployment(installation, name)
        assert deployed["work_pool_name"] == "trilogue"
        assert deployed["pull_steps"] in ([], None)
        assert str(CHECKOUT) not in json.dumps(deployed)
        assert deployed["enforce_parameter_schema"] is True
        assert deployed["description"]
    nightly = deployment(installation, "pipeline/nightly")
    (schedule,) = nightly["schedules"]
    assert schedule["active"] is True
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")
    assert nightly["parameters"]["objective"].strip()

    def planned() -> list[Any]:
        return list(installation.post("/flow_runs/filter", deployments={"id": {"any_": [nightly["id"]]}}))

    await until(lambda: any(run["auto_scheduled"] for run in planned()), seconds=PATIENCE)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"objective": "   "}, "objective"),
        ({"objective": "ok", "timeout": 0}, "timeout"),
        ({"objective": "ok", "mode": "telepathy"}, "mode"),
        ({}, "objective"),
    ],
)
async def test_prefect_refuses_bad_parameters_before_a_run_exists(
    installation: Installation, parameters: dict[str, Any], told: str
) -> None:
    deployed = deployment(installation, "pipeline/pipeline")
    answer = installation.api.post(f"/deployments/{deployed['id']}/create_flow_run", json={"parameters": parameters})
    assert answer.status_code == httpx.codes.CONFLICT
    assert told in answer.json()["detail"]


async def test_what_only_we_can_see_fails_the_run_with_the_reason_and_records_nothing(
    installation: Installation,
) -> None:
    before = await installation.pipelines()
    runs = {
        created_by_api(installation, "pipeline/pipeline", objective="a\u0007b", mode="local"): "control character",
        created_by_api(installation, "pipeline/pipeline", objective="ok", model="rehearsal/unheard"): "no rehearsal is",
        created_by_api(installation, "continuation/continue", pipeline_id="p-nowhere"): "p-nowhere",
    }
    for run_id, told in runs.items():
        run = await installation.ended(run_id)
        assert run["state_type"] == "FAILED"
        assert told in run["state"]["message"]
    assert await installation.pipelines() == before
