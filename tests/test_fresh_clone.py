"""What the README promises a newcomer: a fresh clone runs by `make run`; every command of "Use" works as written."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FIRST_RUN = 180.0
SECOND_RUN = 25.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody who has python3, pip and make, and no setting of ours."""
    home = tmp_path_factory.mktemp("newcomer")
    ours = re.compile(r"^(TRILOGUE_|OPENROUTER_|VAULT_|GAMMA_|PREFECT_|REDIS_URL|LOCAL_MODEL_URL|VIRTUAL_ENV|MAKE)")
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | {
        "TRILOGUE_HOME": str(home / "trilogue")
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, in an empty folder."""
    folder = tmp_path_factory.mktemp("clone") / "trilogue"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def _call(
    command: list[str], folder: Path, environment: dict[str, str], *, exit_code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == exit_code, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done


def test_make_run_installs_and_reaches_a_consensus(clone: Path, newcomer: dict[str, str]) -> None:
    began = time.monotonic()
    first = _call(["make", "run"], clone, newcomer)
    assert time.monotonic() - began < FIRST_RUN
    assert "COMPLETED" in first.stdout
    assert "no language model" in first.stdout

    began = time.monotonic()
    second = _call(["make", "run", "OBJECTIVE=Plan the migration of our billing database"], clone, newcomer)
    assert time.monotonic() - began < SECOND_RUN
    assert "billing database" in second.stdout


def test_every_command_of_the_readmes_use_section_works(clone: Path, newcomer: dict[str, str]) -> None:
    (clone / "design.md").write_text("# Design\nA cache in front of a database.\n", encoding="utf-8")
    (clone / "limits.txt").write_text("At most 2 GB of memory.\n", encoding="utf-8")
    path = f"{clone / '.venv/bin'}:{newcomer['PATH']}"
    environment = newcomer | {"PATH": path, "TRILOGUE_REHEARSAL_LATENCY": "0.05"}
    known = "p-7k3m"
    for line in _use_section():
        command = [word.replace("p-7k3m", known) for word in shlex.split(line, comments=True)]
        # The pipeline that is shown was carried to its end by then: there is nothing left to stop or to go on from.
        too_late = command[1] in {"stop", "resume"} or command[1:3] == ["checkpoints", "resume"]
        _call(command, clone, environment, exit_code=1 if too_late else 0)
        if command[1] == "run":
            listed = _call(["trilogue", "list", "--limit", "1", "--json"], clone, environment)
            known = json.loads(listed.stdout)["items"][0]["pipeline_id"]
    assert "Votes" in (clone / "decision.md").read_text(encoding="utf-8")


def test_the_readmes_curl_walk_through_works_against_up(clone: Path, newcomer: dict[str, str]) -> None:
    environment = newcomer | {"PATH": f"{clone / '.venv/bin'}:{newcomer['PATH']}", "TRILOGUE_REHEARSAL_LATENCY": "0.05"}
    up = subprocess.Popen(
        [f"{clone}/.venv/bin/trilogue", "up", "--json", "--port", str(_free_port())],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        said = json.loads(up.stdout.readline())
        api = said["api_url"]
        spawn, report, go_on, search, events, result = (line.replace("http://127.0.0.1:3000", api) for line in _curls())

        def asked(command: str, pipeline_id: str = "") -> str:
            shell = ["sh", "-c", command.replace("p-7k3m9q2xw4bd", pipeline_id)]
            return _call(shell, clone, environment).stdout

        spawned = json.loads(asked(spawn))
        pipeline_id = spawned["pipeline_id"]
        assert spawned == json.loads(asked(spawn)), "the same idempotency key, the same answer"
        deadline = time.monotonic() + 60
        while json.loads(asked(report, pipeline_id))["status"] != "REPORT":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert json.loads(asked(report, pipeline_id))["report"]["findings"] == 4
        assert json.loads(asked(go_on, pipeline_id)) == {"pipeline_id": pipeline_id, "status": "ORCHESTRATING"}
        told = [line.removeprefix("event: ") for line in asked(events, pipeline_id).splitlines() if "event: " in line]
        assert told[-1] == "orchestration_complete"
        order = ["agent_spawned", "finding", "report", "orchestration_started", "proposal", "vote", "consensus_reached"]
        assert sorted(order, key=told.index) == order
        assert "**Votes**" in asked(result, pipeline_id)
        assert json.loads(asked(search)) == {"items": [], "next": None}, "nothing has timed out or failed"
    finally:
        up.send_signal(signal.SIGINT)
        code = up.wait(30)
        assert up.stdout is not None
        up.stdout.close()
    assert code == 130


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _curls() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("### Over HTTP\n", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    return [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")]


def _use_section() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("## Use\n", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    return [line for line in block.splitlines() if line.startswith("trilogue ")]


def test_a_built_wheel_works_without_the_checkout(clone: Path, newcomer: dict[str, str], tmp_path: Path) -> None:
    binaries, built, venv = str(clone / ".venv/bin"), tmp_path / "dist", str(tmp_path / "venv")
    _call([f"{binaries}/python", "-m", "build", "--wheel", "-o", str(built), str(clone)], tmp_path, newcomer)
    (wheel,) = built.glob("*.whl")
    _call([f"{binaries}/uv", "venv", "--quiet", venv], tmp_path, newcomer)
    install = [f"{binaries}/uv", "pip", "install", "--quiet", "--python", f"{venv}/bin/python"]
    _call([*install, "--constraint", str(clone / "constraints.txt"), str(wheel)], tmp_path, newcomer)
    done = _call([f"{venv}/bin/trilogue", "run", "--json", "Choose a message queue"], tmp_path, newcomer)
    assert json.loads(done.stdout)["status"] == "COMPLETED"
