"""Whole runs by the real command on a new installation: every scenario, and servers that go away in the middle."""

import asyncio
import json
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fixtures.valkey import OwnServer
from tests.terminals import COMMAND, Finished, Installation, Terminal, until
from tests.test_cli_reading import Outcome
from trilogue.models.rehearsal.script import rehearse
from trilogue.testing.openrouter import OpenRouterServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OBJECTIVE = "Design a caching strategy"
SLOW = {"TRILOGUE_REHEARSAL_LATENCY": "1"}


def outcome(ended: Finished, code: int = 0) -> Outcome:
    assert ended.code == code, f"{ended.code}\n{ended.out}\n{ended.err}"
    assert "Traceback" not in ended.err
    return Outcome.model_validate_json(ended.out)


def pipeline_id(terminal: Terminal) -> str:
    """The id that a run on a pipe or a terminal says first."""
    seen = terminal.shows("pipeline p-").seen
    until(lambda: ":" in terminal.seen.partition("pipeline p-")[2])
    return "p-" + seen.partition("pipeline p-")[2][:12]


@contextmanager
def model_server() -> Iterator[tuple[OpenRouterServer, Callable[[], None]]]:
    """A model server in a thread, behind which the rehearsal answers; and what takes it away for good."""
    loop = asyncio.new_event_loop()
    ready, away = threading.Event(), asyncio.Event()
    made: list[OpenRouterServer] = []

    async def serve() -> None:
        async with serving(rehearse, latency=0.5, models=["test/one"]) as server:
            made.append(server)
            ready.set()
            await away.wait()

    def go_away() -> None:
        loop.call_soon_threadsafe(away.set)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield made[0], go_away
    finally:
        go_away()
        thread.join()
        loop.close()


def test_the_four_scenarios_and_the_faulty_one_side_by_side_on_a_new_home(installation: Installation) -> None:
    scenarios: dict[str, dict[str, str]] = {
        "rehearsal": {},
        "rehearsal/conflict": {},
        "rehearsal/stuck": {"GAMMA_STUCK_THRESHOLD": "1"},
        "rehearsal/complex": {},
        "rehearsal/faulty": {},
    }

    def run(scenario: str) -> Outcome:
        arguments = ("--mode", "local", "--model", scenario, "--json")
        return outcome(installation.run("run", OBJECTIVE, *arguments, within=200, env=scenarios[scenario]))

    with ThreadPoolExecutor() as terminals:
        went = dict(zip(scenarios, terminals.map(run, scenarios), strict=True))
    for scenario, shown in went.items():
        assert (shown.status, shown.mode, shown.rehearsal, shown.model) == ("COMPLETED", "local", True, scenario)
        assert shown.consensus
        assert shown.report
        assert shown.report.findings == 4

    def triggers(scenario: str) -> list[str]:
        return [mediation.trigger for mediation in went[scenario].mediation]

    def roles(scenario: str) -> list[str]:
        return [agent.role for agent in went[scenario].agents]

    assert triggers("rehearsal") == triggers("rehearsal/faulty") == []
    assert roles("rehearsal") == roles("rehearsal/faulty") == ["ALPHA", "BETA"]

    assert triggers("rehearsal/conflict") == ["CONFLICT"]
    ruled = went["rehearsal/conflict"].consensus
    assert ruled
    assert ruled.decided_by.startswith("ruling of gamma-1")
    assert ruled.dissent

    assert triggers("rehearsal/stuck") == ["STUCK"]
    assert triggers("rehearsal/complex") == ["COMPLEXITY"]
    subtasks = went["rehearsal/complex"].subtasks
    assert {task.assignee for task in subtasks} == {"ALPHA", "BETA"}
    assert all(task.solved for task in subtasks)

    listed = json.loads(installation.run("list", "--json").out)["items"]
    assert {item["pipeline_id"] for item in listed} == {shown.pipeline_id for shown in went.values()}


def test_hold_report_continue_with_guidance_to_the_end(installation: Installation) -> None:
    held = outcome(installation.run("run", OBJECTIVE, "--hold", "--json"))
    assert held.status == "REPORT"
    assert held.report
    assert not held.report.continuation.auto
    assert "## ALPHA" in installation.run("report", held.pipeline_id).out

    arguments = ("--guidance", "Keep it small.", "--reason", "looks good", "--json")
    went = outcome(installation.run("continue", held.pipeline_id[:9], *arguments))
    assert (went.pipeline_id, went.status) == (held.pipeline_id, "COMPLETED")
    again = installation.run("continue", held.pipeline_id, "--json")
    assert (again.code, again.document["error"]) == (1, "illegal_transition")


def test_redis_gone_in_the_middle_is_survived(installation: Installation, valkey_server: OwnServer) -> None:
    terminal = installation.start("run", OBJECTIVE, env=SLOW | {"REDIS_URL": valkey_server.url})
    terminal.shows("RUN")
    valkey_server.kill()
    ended = terminal.ended()
    assert ended.code == 0, ended
    assert "COMPLETED" in ended.out
    assert ended.out.count("proposes p1") == 1


def test_a_model_server_gone_in_the_middle_ends_the_pipeline_legally(installation: Installation) -> None:
    with model_server() as (server, go_away):
        short = {"ORCHESTRATION_TIMEOUT": "6", "TRILOGUE_AGENT_TIMEOUT": "6", "TRILOGUE_CALL_TRIES": "2"}
        terminal = installation.start("run", OBJECTIVE, env=short | {"LOCAL_MODEL_URL": server.url})
        terminal.shows("ORCHESTRATE")
        go_away()
        ended = terminal.ended()
    assert ended.code == 1
    assert "Traceback" not in ended.err
    shown = outcome(installation.run("status", pipeline_id(terminal), "--json"))
    assert shown.status == "ORCHESTRATION_ERROR"
    assert shown.error
    assert shown.error.message in ended.err
    assert f"trilogue continue {shown.pipeline_id}" in ended.out
    assert shown.model == "test/one"
    assert all(agent.cost_usd is None or agent.cost_usd > 0 for agent in shown.agents)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("DROP TABLE usage", "no such table: usage"),
        ("DROP TABLE entries", "no such table: entries"),
        ("UPDATE pipelines SET attempt = attempt + 1", "another attempt"),
        ("UPDATE pipelines SET lease_owner = 'somebody:1:else'", "the lease was lost"),
    ],
)
def test_a_ledger_that_refuses_in_the_middle_ends_the_command(installation: Installation, harm: str, said: str) -> None:
    terminal = installation.start("run", OBJECTIVE, env=SLOW | {"TRILOGUE_LEASE_SECONDS": "1.5"})
    terminal.shows("RUN")
    with sqlite3.connect(installation.home / "ledger.db", timeout=10) as ledger:
        ledger.execute(harm)
    ledger.close()
    ended = terminal.ended(within=60)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err + ended.out
    assert ended.err.startswith("trilogue: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err


def test_a_prefect_server_out_of_reach_is_named_in_one_line(installation: Installation) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/api"
        for arguments in (("list",), ("run", OBJECTIVE), ("watch", "p-1")):
            ended = installation.run(*arguments, env={"PREFECT_API_URL": url})
            assert ended.code == 1
            assert url.removesuffix("/api") in ended.err.splitlines()[-1]
            assert "Traceback" not in ended.err


def test_a_reader_that_goes_away_ends_the_run_and_leaves_it_resumable(installation: Installation) -> None:
    shown = subprocess.run(
        f"{COMMAND} run '{OBJECTIVE}' | grep -m1 -o 'ALPHA  finds f1'",
        shell=True,
        env=installation.environment | SLOW,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shown.stdout == "ALPHA  finds f1\n"
    assert "Traceback" not in shown.stderr
    [item] = json.loads(installation.run("list", "--json").out)["items"]
    document: Any = installation.run("resume", item["pipeline_id"], "--json").document
    assert document["status"] == "COMPLETED"
