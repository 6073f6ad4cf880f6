"""Bad usage is refused in one clear line with exit code 2, before anything is started or written."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import Command, refusal
from tests.terminals import COMMAND
from trilogue.cli.app import app
from trilogue.spec import LONGEST_CONTEXT, LONGEST_OBJECTIVE

HEAVY = ("prefect", "sqlalchemy", "openai", "redis", "hvac", "httpx2", "rich.live", "alembic", "trilogue.services")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "missing argument 'objective'"),
        (("",), "objective: is empty or blank"),
        ((" \n\t ",), "objective: is empty or blank"),
        (("x" * (LONGEST_OBJECTIVE + 1),), "objective: has 32,769 characters; at most 32,768"),
        (("bell\a",), r"objective: has the control character '\x07' at position 4"),
        (("escape\x1b[2J",), r"control character '\x1b' at position 6"),
        (("lone \udcff",), "not valid Unicode"),
        (("x", "--mode", "cloud"), "'cloud' is not one of 'openrouter', 'local'"),
        (("x", "--timeout", "0"), "timeout: input should be greater than 0"),
        (("x", "--timeout", "-3"), "timeout: input should be greater than 0"),
        (("x", "--timeout", "nan"), "timeout: input should be"),
        (("x", "--timeout", "inf"), "timeout: input should be"),
        (("x", "--timeout", "soon"), "'--timeout'"),
        (("x", "--agent-timeout", "0"), "agent_timeout: input should be greater than 0"),
        (("x", "--model", ""), "model: "),
        (("x", "--model-for", "DELTA=m"), "--model-for takes ROLE=MODEL"),
        (("x", "--model-for", "GAMMA"), "--model-for takes ROLE=MODEL"),
        (("x", "--label", ""), "labels.0: "),
        (("x", "--context", "nowhere.txt"), "--context 'nowhere.txt' cannot be read: No such file"),
        (("x", "--context", "/"), "--context '/' cannot be read: Is a directory"),
        (("x", "--no-such-flag"), "no such option: --no-such-flag"),
        (("x", "y"), "unexpected extra argument"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal(command("run", *arguments))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * (LONGEST_CONTEXT + 1), "has 262,145 bytes; at most 262,144"),
        (b"caf\xe9", "is not text in UTF-8"),
        (b"", "context.0.text: is empty or blank"),
        (b"a\0b", r"control character '\x00'"),
    ],
)
def test_a_context_file_that_is_no_usable_text_is_refused(
    command: Command, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    assert said in refusal(command("run", "x", "--context", str(tmp_path / "notes.txt")))


@pytest.mark.parametrize(
    "arguments", [("run", "x", "--timeout", "0"), ("run",), ("bogus",), ("status", "p-none"), ("list", "--limit", "0")]
)
def test_with_json_an_error_is_one_document_on_stdout_too(command: Command, arguments: tuple[str, ...]) -> None:
    plain, ended = command(*arguments), command(*arguments, "--json")
    assert set(ended.document) == {"error", "detail"}
    assert ended.err == f"trilogue: {ended.document['detail']}\n" == plain.err
    assert ended.code == plain.code


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_traceback_is_shown_with_debug_wherever_it_stands_and_never_without(command: Command, place: int) -> None:
    arguments = ["run", "x", "--timeout=0"]
    assert "Traceback" not in command(*arguments).err
    arguments.insert(place, "--debug")
    ended = command(*arguments)
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("trilogue: timeout: ")
    assert ended.code == 2


def test_what_follows_two_dashes_is_text_even_if_it_looks_like_an_option(command: Command) -> None:
    assert "--debug" in refusal(command("run", "--", "x", "--debug"))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ORCHESTRATION_TIMEOUT", "soon", "ORCHESTRATION_TIMEOUT: input should be a valid number"),
        ("GAMMA_CONFLICT_THRESHOLD", "0", "GAMMA_CONFLICT_THRESHOLD: input should be greater than or equal to 1"),
        ("TRILOGUE_CALL_TRIES", "many", "TRILOGUE_CALL_TRIES"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    command: Command, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    for arguments in (["run", "x"], ["list"], ["status", "p"]):
        assert said in refusal(command(*arguments))


@pytest.mark.parametrize("arguments", [("run", "x"), ("list",), ("status", "p-1"), ("watch", "p-1"), ("db", "upgrade")])
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRILOGUE_HOME", str(tmp_path / place))
    ended = command(*arguments)
    assert ended.code == 2
    assert f"TRILOGUE_HOME '{tmp_path / place}' cannot be used" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


def test_help_lists_every_command_and_every_option_has_a_word_of_help(command: Command) -> None:
    ended = command("--help")
    assert ended.code == 0
    for name in ("run", "continue", "resume", "watch", "status", "list", "report", "result", "blocks", "db"):
        assert f" {name} " in ended.out
        assert command(name, "--help").code == 0
    assert all(info.help or info.callback.__doc__ for info in app.registered_commands if info.callback)
    assert "trilogue" in command("--version").out


def test_the_command_line_imports_nothing_heavy_until_a_command_is_called() -> None:
    heavy = f"import sys, trilogue.cli; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str) -> None:
    shown = subprocess.run(
        [COMMAND, "--show-completion", shell], capture_output=True, text=True, check=False, env={"PATH": "/bin"}
    )
    assert shown.returncode == 0, shown.stderr
    assert "_TRILOGUE_COMPLETE" in shown.stdout
