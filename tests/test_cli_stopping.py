"""`trilogue stop` says that it is stopped, and then when everything stood still; through a server and in the ledger."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import Command
from tests.fixtures.served import Served, served_at
from tests.terminals import until
from trilogue.cli.server import Connection, Server
from trilogue.ledger.opening import TENANT, open_ledger

OBJECTIVE = "Design a caching strategy"
WITHIN = 1.0
"""Seconds after a stop in which everything stands still (DESIGN section 6)."""


@pytest.fixture
def slow(tmp_path: Path, valkey_socket: Path) -> Iterator[Served]:
    """A server with a worker whose calls take long."""
    with served_at(tmp_path / "served", valkey_socket, rehearsal_latency=30.0) as server:
        yield server


@pytest.fixture(params=["through a server", "in the ledger"])
def stopping(
    request: pytest.FixtureRequest, slow: Served, command: Command, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """`trilogue` in a shell that names the server, or only its home."""
    if request.param == "through a server":
        monkeypatch.setenv("TRILOGUE_API_URL", slow.url)
    else:
        monkeypatch.setenv("TRILOGUE_HOME", str(slow.settings.home))
    return command


def _spawned(server: Served) -> str:
    async def spawned() -> str:
        async with Connection(Server(url=server.url, key=None, ours=False)) as connection:
            return str((await connection.post("/api/spawn", {"objective": OBJECTIVE}))["pipeline_id"])

    return asyncio.run(spawned())


def _at_work(server: Served, pipeline_id: str) -> Callable[[], bool]:
    async def looked() -> bool:
        async with Connection(Server(url=server.url, key=None, ours=False)) as connection:
            told = await connection.get(f"/api/pipelines/{pipeline_id}")
        return bool(told["leased"] and told["status"] == "RUNNING" and told["still_since"] is None)

    return lambda: asyncio.run(looked())


async def _taken_by_a_hung_worker(server: Served, pipeline_id: str) -> None:
    ledger = await open_ledger(server.settings)
    await ledger.claim(TENANT, pipeline_id, owner="hung", lease_seconds=60, flow_run_id=None)
    await ledger.close()


def test_it_says_when_the_last_call_had_ended(slow: Served, stopping: Command) -> None:
    pipeline_id = _spawned(slow)
    until(_at_work(slow, pipeline_id))
    told = stopping("stop", pipeline_id, "--reason", "enough")
    assert (told.code, told.err) == (0, "")
    assert f"{pipeline_id} is stopped" in told.out
    found = re.search(r"^stood still after (\d\.\d\d) s$", told.out, re.MULTILINE)
    assert found, told.out
    assert 0 <= float(found[1]) <= WITHIN

    pipeline_id = _spawned(slow)
    until(_at_work(slow, pipeline_id))
    document = stopping("stop", pipeline_id, "--json").document
    assert document.keys() == {"pipeline_id", "status", "reason", "seq", "still_after"}
    assert 0 < document["still_after"] <= WITHIN


def test_where_nobody_was_at_work_it_says_so_at_once(slow: Served, stopping: Command) -> None:
    slow.carries = False
    assert "nobody was at work on it" in stopping("stop", _spawned(slow)).out
    assert stopping("stop", _spawned(slow), "--json").document["still_after"] == 0


def test_a_worker_that_does_not_let_go_is_waited_for_a_moment_and_then_told_of(slow: Served, stopping: Command) -> None:
    slow.carries = False
    pipeline_id = _spawned(slow)
    asyncio.run(_taken_by_a_hung_worker(slow, pipeline_id))
    told = stopping("stop", pipeline_id)
    assert told.code == 0
    assert f"{pipeline_id} is stopped" in told.out
    assert "not known to stand still after 2 s" in told.out
