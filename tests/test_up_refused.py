"""`trilogue up` says in one line why it cannot start, and believes no file that a killed one left behind."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Command, refusal
from trilogue.supervision import Up, present, taking

UP = Up(
    pid=1,
    api_url="http://127.0.0.1:3000",
    dashboard_url="http://127.0.0.1:3000",
    prefect_url="http://127.0.0.1:4200",
    started_at="2026-11-22T09:00:00Z",
)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def test_a_taken_port_is_named_with_the_option_that_chooses_another(command: Command, taken_port: int) -> None:
    said = refusal(command("up", "--port", str(taken_port)), code=1)
    assert f"port {taken_port} of 127.0.0.1 cannot be used: address already in use" in said
    assert "--port" in said


def test_a_taken_port_of_prefect_is_named_with_its_option(command: Command, taken_port: int, free_port: int) -> None:
    said = refusal(command("up", "--port", str(free_port), "--prefect-port", str(taken_port)), code=1)
    assert f"port {taken_port} of 127.0.0.1" in said
    assert "--prefect-port" in said


def test_a_second_up_is_told_where_the_first_is(command: Command, tmp_path: Path, free_port: int) -> None:
    with taking(tmp_path / "home") as taken:
        assert "about to be ready" in refusal(command("up", "--port", str(free_port)), code=1)
        taken.show(UP)
        said = refusal(command("up", "--port", str(free_port)), code=1)
    assert "already runs" in said
    assert UP.api_url in said


def test_a_home_that_cannot_be_written_is_bad_usage(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILOGUE_HOME", "/dev/null/home")
    assert "TRILOGUE_HOME '/dev/null/home' cannot be used" in refusal(command("up"))


def test_what_runs_is_told_to_its_owner_only_and_while_it_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert present(home) is None
    with taking(home) as taken:
        assert present(home) is None
        taken.show(UP)
        assert present(home) == UP
        assert stat.S_IMODE((home / "run/up.json").stat().st_mode) == 0o600
        taken.hide()
        assert present(home) is None
        taken.show(UP)
    assert not (home / "run/up.json").exists()


def test_a_file_whose_up_was_killed_is_not_believed_and_is_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "up.lock").touch()
    (run / "up.json").write_text("{half of a")
    assert present(tmp_path) is None
    with taking(tmp_path) as taken:
        assert present(tmp_path) is None
        taken.show(UP)
        assert present(tmp_path) == UP
