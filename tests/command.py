"""The command line called in this process: as quick as a function, with the exit code and both outputs of a process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terminals import Finished
from trilogue.cli import main
from trilogue.settings import Settings

Command = Callable[..., Finished]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls `trilogue` with the arguments given; nothing is configured but a new home."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRILOGUE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))  # no profile of whoever runs the tests

    def call(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["trilogue", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Finished(code=code, out=out, err=err)

    return call


def refusal(finished: Finished, code: int = 2) -> str:
    """What a refused command said: one line on stderr and nothing else anywhere."""
    assert (finished.code, finished.out) == (code, ""), finished
    said = finished.err
    assert said.startswith("trilogue: ")
    assert said.count("\n") == 1, said
    return said.removeprefix("trilogue: ").rstrip("\n")
