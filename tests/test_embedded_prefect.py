"""The embedded Prefect server: one for all terminals, also when its very first start is shared or broken off."""

import json
import os
import random
import signal
import sqlite3
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.test_embedded_servers import Terminal, alive, all_gone, pids, root, until
from trilogue.embedded import Servers, running, serving
from trilogue.errors import Unavailable

__all__ = ["root"]  # a fixture

_SLOW_START = 60.0


def fetched(url: str | None, path: str = "") -> bytes:
    with urllib.request.urlopen(f"{url}{path}", timeout=30) as answer:  # type: ignore[no-any-return, unused-ignore]
        return bytes(answer.read())


def flows_recorded(servers: Servers, name: str) -> int:
    """Record a flow, and count all: proves that the database behind the API can be written and read."""
    for path, body in (("/flows/", {"name": name}), ("/flows/filter", {})):
        request = urllib.request.Request(
            f"{servers.prefect_api_url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
    return len(found)


@pytest.mark.slow
def test_two_first_terminals_share_one_first_start_and_leave_nothing(root: Path) -> None:
    home = root / "a hóme?x=1#"
    interrupted, killed = Terminal(home, prefect=True), Terminal(home, prefect=True)
    servers = interrupted.servers()
    assert killed.servers() == servers == running(home)

    assert fetched(servers.prefect_api_url, "/health") == b"true"
    assert b"<html" in fetched(servers.prefect_ui_url)
    assert json.loads(fetched(servers.prefect_ui_url, "/ui-settings"))["api_url"] == servers.prefect_api_url
    assert (home / "prefect/prefect.db").exists()
    for pid in pids(home, "prefect").values():
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()

    assert interrupted.end(signal.SIGINT) == 130
    assert flows_recorded(servers, "survivor") == 1
    killed.end(signal.SIGKILL)
    until(lambda: all_gone(root))


@pytest.mark.slow
def test_a_later_start_keeps_port_and_runs_and_may_join_a_valkey_that_runs_already(root: Path) -> None:
    home = root / "home"
    with serving(home, linger=0.2) as first:
        assert flows_recorded(first, "first") == 1
    until(lambda: all_gone(root))
    with serving(home, prefect=False, linger=0.2) as only_valkey:
        assert only_valkey.prefect_api_url is None
        with serving(home, linger=0.2) as second:
            assert second == first
            assert flows_recorded(second, "second") == 2


@pytest.mark.slow
def test_a_first_start_that_is_broken_off_at_any_moment_leaves_nothing_and_the_next_succeeds(root: Path) -> None:
    home = root / "home"
    moments = random.Random(3)
    for sign in (signal.SIGINT, signal.SIGKILL, signal.SIGINT):
        terminal = Terminal(home, prefect=True)
        until((home / "prefect/prefect.db").exists, within=_SLOW_START)
        time.sleep(moments.uniform(0, 3))  # somewhere in its migrations: the moment is what is tested
        terminal.end(sign)
        until(lambda: all_gone(root))
    with serving(home, linger=0.2) as servers:
        assert flows_recorded(servers, "after") == 1


@pytest.mark.slow
def test_a_database_that_a_broken_first_start_left_unusable_is_made_anew_but_one_that_served_is_kept(
    root: Path,
) -> None:
    home = root / "home"
    (home / "prefect").mkdir(parents=True)
    with sqlite3.connect(home / "prefect/prefect.db") as half:  # a migration's table without its revision
        half.execute("CREATE TABLE flow (id TEXT)")
    half.close()
    with serving(home, linger=0.2) as servers:
        assert flows_recorded(servers, "first") == 1
    until(lambda: all_gone(root))

    with sqlite3.connect(home / "prefect/prefect.db") as served:
        served.execute("DELETE FROM alembic_version")
    served.close()
    refusal = r"the Prefect server did not start; its log is .*already exists"
    with pytest.raises(Unavailable, match=refusal), serving(home, redis=False, linger=0.2):
        pass
    with sqlite3.connect(home / "prefect/prefect.db") as kept:
        assert kept.execute("SELECT name FROM flow").fetchall() == [("first",)]
    kept.close()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "guardian"])
def test_a_killed_prefect_server_comes_back_on_its_port_and_a_killed_guardian_takes_it_along(
    root: Path, victim: str
) -> None:
    home = root / "home"
    with serving(home, redis=False, linger=0.2) as servers:
        before = pids(home, "prefect")
        os.kill(before[victim], signal.SIGKILL)
        if victim == "server":
            # Nobody else can have the port meanwhile, so the request waits for the next life.
            assert fetched(servers.prefect_api_url, "/health") == b"true"
            until(lambda: running(home) == servers)
            assert pids(home, "prefect")["guardian"] == before["guardian"]
        else:
            until(lambda: not alive(before["server"]))
            with pytest.raises((URLError, ConnectionResetError)):
                fetched(servers.prefect_api_url, "/health")
            with serving(home, redis=False, linger=0.2) as healed:
                assert healed == servers
                assert fetched(servers.prefect_api_url, "/health") == b"true"


@pytest.mark.slow
def test_many_flow_runs_at_once_are_all_taken(root: Path) -> None:
    """On Prefect's own SQLite settings a third of them would be answered 503, and their clients wait for seconds."""
    with serving(root / "home") as servers:

        def post(path: str, body: dict[str, object]) -> str:
            request = urllib.request.Request(
                f"{servers.prefect_api_url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:  # raises for 503
                return str(json.load(answer)["id"])

        flow = post("/flows/", {"name": "many"})
        state = {"type": "PENDING", "message": "", "name": "Pending"}
        with ThreadPoolExecutor(32) as clients:
            started = clients.map(
                lambda n: post("/flow_runs/", {"flow_id": flow, "name": f"{n}", "state": state}), range(64)
            )
            assert len(set(started)) == 64
