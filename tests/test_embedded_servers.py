"""The embedded servers belong to whoever uses them: shared, started once, gone after the last, healed by the next."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from trilogue.embedded import Servers, running, serving
from trilogue.errors import Conflict, Invalid

GONE_WITHIN = 10.0

_TERMINAL = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from trilogue.embedded import serving
try:
    with serving(Path(sys.argv[1]), **json.loads(sys.argv[2])) as servers:
        print(json.dumps(asdict(servers)), flush=True)
        sys.stdin.read()
except KeyboardInterrupt:
    sys.exit(130)
"""


class Terminal:
    """A process that uses the embedded servers until it is told to leave, interrupted or killed."""

    def __init__(self, home: Path, **options: Any) -> None:
        secrets = dict.fromkeys(
            ("OPENROUTER_API_KEY", "VAULT_TOKEN", "REDIS_URL", "TRILOGUE_DATABASE_URL", "PREFECT_API_KEY"), "canary"
        )
        options = {"prefect": False, "linger": 0.2} | options
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TERMINAL, str(home), json.dumps(options)],
            env=os.environ | secrets | {"XDG_RUNTIME_DIR": str(home.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def servers(self) -> Servers:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the terminal ended with {self.process.wait()}"
        return Servers(**json.loads(line))

    def end(self, sign: signal.Signals | None = None) -> int:
        """Leave in good order, or by `sign`; the exit code."""
        if sign is not None:
            self.process.send_signal(sign)
        self.process.communicate(timeout=60)
        return self.process.returncode


def pids_below(root: Path) -> set[int]:
    """The processes that work in a folder below `root`: guardians and servers, whoever started them."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((entry / "cwd").readlink()).startswith(f"{root}/"):
                found.add(int(entry.name))
    return found


def until(condition: Callable[[], bool], within: float = GONE_WITHIN) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def all_gone(root: Path) -> bool:
    return not pids_below(root)


def pids(home: Path, kind: str = "valkey") -> dict[str, int]:
    state = json.loads((home / "run" / kind / "state.json").read_text())
    return {"guardian": state["guardian_pid"], "server": state["server_pid"]}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def valkey_answers(servers: Servers) -> bool:
    assert servers.redis_url is not None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(servers.redis_url.removeprefix("unix://"))
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new short folder; whatever still runs in it at the end is killed, and fails the test."""
    folder = Path(tempfile.mkdtemp(prefix="tri-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    try:
        yield folder
        until(lambda: all_gone(folder))
    finally:
        for pid in pids_below(folder):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


def test_terminals_that_start_at_once_on_a_new_home_share_one_server(root: Path) -> None:
    home = root / "home"
    terminals = [Terminal(home) for _ in range(4)]
    seen = {terminal.servers() for terminal in terminals}

    assert seen == {running(home)}
    assert pids_below(root) == set(pids(home).values())
    (servers,) = seen
    *others, last = terminals
    assert [terminal.end() for terminal in others] == [0, 0, 0]
    assert valkey_answers(servers)
    assert last.end() == 0
    until(lambda: all_gone(root))
    assert running(home) is None


def test_an_interrupted_and_a_killed_terminal_count_as_gone_and_harm_nobody(root: Path) -> None:
    home = root / "home"
    interrupted, killed, survivor = (Terminal(home) for _ in range(3))
    servers = [terminal.servers() for terminal in (interrupted, killed, survivor)]
    before = pids(home)

    assert interrupted.end(signal.SIGINT) == 130
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(AssertionError):  # several lingers long, nothing is taken from the survivor
        until(lambda: not valkey_answers(servers[2]), within=1.0)
    assert pids(home) == before

    survivor.end(signal.SIGKILL)
    until(lambda: all_gone(root))


def test_ctrl_c_while_starting_leaves_nothing(root: Path) -> None:
    delays = random.Random(7)
    for number in range(5):
        terminal = Terminal(root / f"home-{number}")
        time.sleep(delays.uniform(0.05, 0.25))  # the moment is what is tested
        assert terminal.end(signal.SIGINT) in {130, -signal.SIGINT}
    until(lambda: all_gone(root))


def test_who_arrives_while_the_guardian_ends_gets_a_server_that_works(root: Path) -> None:
    home = root / "home"
    starts: set[int] = set()

    def come_and_go(seed: int) -> None:
        pauses = random.Random(seed)
        for _ in range(20):
            with serving(home, prefect=False, linger=0.02) as servers:
                starts.add(pids(home)["guardian"])
                assert valkey_answers(servers)
                time.sleep(pauses.uniform(0, 0.02))
                assert valkey_answers(servers)
            time.sleep(pauses.uniform(0, 0.12))  # around the moment at which the guardian makes up its mind

    with ThreadPoolExecutor() as threads:
        list(threads.map(come_and_go, (1, 2)))
    assert len(starts) > 3, "the guardian never ended in between: nothing was tested"


def test_a_killed_guardian_takes_its_server_along_and_the_next_terminal_heals_it(root: Path) -> None:
    home = root / "home"
    early = Terminal(home)
    servers = early.servers()
    before = pids(home)
    os.kill(before["guardian"], signal.SIGKILL)
    until(lambda: not alive(before["server"]))
    assert running(home) is None

    late = Terminal(home)
    assert late.servers() == servers
    assert valkey_answers(servers), "the early terminal's address serves again"
    assert early.end() == 0
    assert valkey_answers(servers)
    assert late.end() == 0


def test_after_everything_was_killed_the_next_terminal_starts_as_if_nothing_had_been(root: Path) -> None:
    home = root / "home"
    terminal = Terminal(home)
    servers = terminal.servers()
    for pid in (terminal.process.pid, *pids(home).values()):
        os.kill(pid, signal.SIGKILL)
    terminal.end()
    until(lambda: all_gone(root))
    assert Path(str(servers.redis_url).removeprefix("unix://")).exists()
    assert (home / "run/valkey/state.json").exists()
    assert running(home) is None

    with serving(home, prefect=False, linger=0.2) as again:
        assert valkey_answers(again)


@pytest.mark.parametrize("loss", ["killed", "folder"])
def test_a_server_that_is_lost_comes_back_at_the_same_address(root: Path, loss: str) -> None:
    home = root / "home"
    with serving(home, prefect=False, linger=0.2) as servers:
        before = pids(home)
        if loss == "killed":
            os.kill(before["server"], signal.SIGKILL)
        else:  # as when the system empties a runtime folder
            shutil.rmtree(Path(str(servers.redis_url).removeprefix("unix://")).parent)

        def anew() -> bool:
            try:
                return running(home) == servers and pids(home)["server"] != before["server"]
            except FileNotFoundError:  # the guardian, which has just noticed the loss, takes the state file away
                return False

        until(anew)
        assert valkey_answers(servers)
        assert pids(home)["guardian"] == before["guardian"]


def test_a_guardian_that_is_asked_to_end_ends_in_good_order(root: Path) -> None:
    home = root / "home"
    with serving(home, prefect=False) as servers:
        os.kill(pids(home)["guardian"], signal.SIGTERM)
        until(lambda: all_gone(root))
        assert running(home) is None
        assert not Path(str(servers.redis_url).removeprefix("unix://")).parent.exists()


def test_no_secret_reaches_guardian_or_server(root: Path) -> None:
    home = root / "home"
    terminal = Terminal(home)
    terminal.servers()
    for pid in pids(home).values():
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
    terminal.end()


def test_files_and_socket_are_for_their_owner_alone(root: Path) -> None:
    home = root / "home"
    with serving(home, prefect=False, linger=0.2) as servers:
        path = Path(str(servers.redis_url).removeprefix("unix://"))
        for private in (home, home / "run/valkey", home / "logs", path.parent):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700, private
        for private in (path, home / "logs/valkey.log", home / "run/valkey/state.json"):
            assert stat.S_IMODE(private.stat().st_mode) & 0o077 == 0, private


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_runtime_folder_that_somebody_else_put_there_is_not_used(root: Path) -> None:
    home = root / "home"
    with serving(home, prefect=False, linger=0.2) as servers:
        folder = Path(str(servers.redis_url).removeprefix("unix://")).parent
    until(lambda: not folder.exists())
    folder.mkdir(mode=0o777)
    os.chown(folder, 65534, 65534)
    with serving(home, prefect=False, linger=0.2) as servers:
        assert str(servers.redis_url).startswith("unix:///tmp/trilogue-")
        assert valkey_answers(servers)
        state = pids(home)
    until(lambda: not alive(state["server"]))


@pytest.mark.parametrize("name", ["a home with spaces, ü and %20?x=1#", "long/" + "/".join(["n" * 60] * 4)])
def test_a_home_may_have_any_name(root: Path, name: str) -> None:
    with serving(root / name, prefect=False, linger=0.2) as servers:
        assert valkey_answers(servers)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_is_refused_in_one_line(root: Path, place: str) -> None:
    (root / "file").touch()
    with pytest.raises(Invalid, match="TRILOGUE_HOME '") as refused, serving(root / place):
        pass
    assert refused.value.code == "bad_home"
    assert "\n" not in refused.value.message
    assert running(root / place) is None


def test_looking_starts_and_creates_nothing(root: Path) -> None:
    assert running(root / "home") is None
    assert list(root.iterdir()) == []


def test_servers_of_another_version_are_left_alone(root: Path) -> None:
    home = root / "home"
    with serving(home, prefect=False, linger=0.2):
        state = home / "run/valkey/state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"layout": 0}))
        with pytest.raises(Conflict, match="another version of Trilogue"), serving(home, prefect=False):
            pass
        with pytest.raises(Conflict):
            running(home)
