"""What the README promises a newcomer: a fresh clone runs by `make run`, and every command of "Use" works as written."""

import json
import os
import re
import shlex
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


def test_make_run_installs_and_reaches_a_consensus(clone: Path, newcomer: dict[str, str]) -> None:
    began = time.monotonic()
    first = subprocess.run(["make", "run"], cwd=clone, env=newcomer, text=True, capture_output=True, check=False)
    assert first.returncode == 0, first.stderr[-2000:]
    assert time.monotonic() - began < FIRST_RUN
    assert "COMPLETED" in first.stdout
    assert "no language model" in first.stdout

    began = time.monotonic()
    other = ["make", "run", "OBJECTIVE=Plan the migration of our billing database"]
    second = subprocess.run(other, cwd=clone, env=newcomer, text=True, capture_output=True, check=False)
    assert second.returncode == 0, second.stderr[-2000:]
    assert time.monotonic() - began < SECOND_RUN
    assert "billing database" in second.stdout


def test_every_command_of_the_readmes_use_section_works(clone: Path, newcomer: dict[str, str]) -> None:
    (clone / "design.md").write_text("# Design\nA cache in front of a database.\n", encoding="utf-8")
    (clone / "limits.txt").write_text("At most 2 GB of memory.\n", encoding="utf-8")
    environment = newcomer | {
        "PATH": f"{clone / '.venv/bin'}:{newcomer['PATH']}",
        "TRILOGUE_REHEARSAL_LATENCY": "0.05",
    }
    known = "p-7k3m"
    for line in _use_section():
        command = [word.replace("p-7k3m", known) for word in shlex.split(line, comments=True)]
        done = subprocess.run(command, cwd=clone, env=environment, text=True, capture_output=True, check=False)
        # The one that is shown was carried to its end by then: there is nothing left to resume.
        expected = 1 if command[1] == "resume" else 0
        assert done.returncode == expected, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}"
        if command[1] == "run":
            listed = subprocess.run(
                ["trilogue", "list", "--limit", "1", "--json"],
                cwd=clone,
                env=environment,
                capture_output=True,
                check=True,
            )
            known = json.loads(listed.stdout)["items"][0]["pipeline_id"]
    assert "Votes" in (clone / "decision.md").read_text(encoding="utf-8")


def _use_section() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split("## Use\n", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    return [line for line in block.splitlines() if line.startswith("trilogue ")]


def test_a_built_wheel_works_without_the_checkout(clone: Path, newcomer: dict[str, str], tmp_path: Path) -> None:
    binaries = clone / ".venv/bin"
    run = {"cwd": tmp_path, "env": newcomer, "check": True, "capture_output": True}
    subprocess.run([binaries / "python", "-m", "build", "--wheel", "-o", tmp_path / "dist", clone], **run)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([binaries / "uv", "venv", "--quiet", tmp_path / "venv"], **run)
    install = [binaries / "uv", "pip", "install", "--quiet", "--python", tmp_path / "venv/bin/python"]
    subprocess.run([*install, "--constraint", clone / "constraints.txt", wheel], **run)
    done = subprocess.run([tmp_path / "venv/bin/trilogue", "run", "--json", "Choose a message queue"], **run)
    assert json.loads(done.stdout)["status"] == "COMPLETED"
