"""Several programs under one: ready together, started again when they die, ended together, however that comes about."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.terminals import until

_SUPERVISOR = """
import asyncio, json, os, sys
from trilogue.supervision import GaveUp, Program, supervise

bodies, options = json.loads(sys.argv[1]), json.loads(sys.argv[2])
tell = lambda *what: print(json.dumps(what), flush=True)
programs = [Program(name=name, argv=[sys.executable, "-c", body]) for name, body in bodies.items()]
try:
    sign = asyncio.run(supervise(
        programs, environment=dict(os.environ), unit=0.05, **options,
        say=lambda name, line: tell(name, line), ready=lambda notes: tell("READY", *notes),
        ending=lambda: tell("ENDING"),
    ))
    tell("ENDED", sign.name)
except GaveUp as error:
    tell("GAVE UP", error.message)
    sys.exit(1)
"""

READY = "import os; os.write(int(os.environ['TRILOGUE_READY_FD']), b'\\n')\n"
STAYS = READY + "import time; time.sleep(60)\n"
POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit()))\n"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
WITH_CHILD_APART = (
    "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import time, signal;"
    " signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'], start_new_session=True)\n"
)


class Supervised:
    """A process that supervises programs given by their Python source."""

    def __init__(self, mark: str, programs: dict[str, str], options: dict[str, Any]) -> None:
        self.mark = mark
        self.told: list[list[str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SUPERVISOR, json.dumps(programs), json.dumps(options)],
            env=os.environ | {"TEST_MARK": mark},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.told.append(json.loads(line))

    def tells(self, *what: str, times: int = 1) -> "Supervised":
        until(lambda: self.told.count([*what]) >= times or self.process.poll() is not None)
        assert self.told.count([*what]) >= times, self.told
        return self

    def ended(self) -> int:
        code = self.process.wait(15)
        self._reading.join(5)
        return code

    def left(self) -> set[int]:
        """The living processes that descend from it."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"TEST_MARK={self.mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.add(int(process.name))
            except OSError:
                continue
        return found


Supervise = Callable[..., Supervised]


@pytest.fixture
def supervised() -> Iterator[Supervise]:
    begun: list[Supervised] = []

    def begin(programs: dict[str, str], **options: Any) -> Supervised:
        begun.append(Supervised(f"{os.getpid()}-{time.monotonic_ns()}", programs, options))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.ended()
        until(lambda one=one: not one.left())  # type: ignore[misc]


def test_all_are_ready_once_each_of_them_is_and_their_notes_are_passed_on(
    supervised: Supervise, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    note = "import os; os.write(int(os.environ['TRILOGUE_READY_FD']), b'mind this\\n')\n"
    both = supervised({"quick": note + STAYS, "slow": "print('hello', flush=True)\n" + waits + STAYS})
    both.tells("up", "quick is ready").tells("slow", "hello")
    assert ["READY", "mind this"] not in both.told
    gate.touch()
    both.tells("READY", "mind this")


def test_one_that_dies_is_started_again_after_longer_and_longer_pauses(supervised: Supervise, tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    dies_twice = (
        f"open({str(lives)!r}, 'a').write('x'); import os; len(open({str(lives)!r}).read()) > 2 or os._exit(7)\n"
    )
    run = supervised({"weak": dies_twice + STAYS, "sound": STAYS}).tells("READY")
    said = [t[1] for t in run.told if t[0] == "up"]
    assert said.count("sound is ready") == 1
    assert [line for line in said if "exit code 7" in line] == [
        "weak ended with exit code 7; starting it again in 0.05 s",
        "weak ended with exit code 7; starting it again in 0.1 s",
    ]


def test_one_that_is_killed_comes_back_and_the_others_stay(supervised: Supervise) -> None:
    run = supervised({"a": STAYS, "b": "import os; print(os.getpid(), flush=True)\n" + STAYS}).tells("READY")
    first = next(int(line) for name, line in (told for told in run.told if len(told) == 2) if name == "b")
    os.kill(first, signal.SIGKILL)
    run.tells("up", "b was ended by SIGKILL; starting it again in 0.05 s").tells("up", "b is ready", times=2)
    assert run.told.count(["up", "a is ready"]) == 1
    assert run.told.count(["READY"]) == 1


def test_five_quick_deaths_end_everything_and_say_what_the_program_said(supervised: Supervise) -> None:
    run = supervised({"sound": STAYS, "broken": "print('no such database', flush=True); raise SystemExit(1)"})
    assert run.ended() == 1
    last = run.told[-1]
    assert last[0] == "GAVE UP"
    assert "broken ended with exit code 1 5 times in a row" in last[1]
    assert "no such database" in last[1]
    assert not run.left()


def test_one_that_refuses_how_it_was_called_is_not_tried_again(supervised: Supervise) -> None:
    run = supervised({"sound": STAYS, "wrong": "print('port: must be a number', flush=True); raise SystemExit(2)"})
    assert run.ended() == 1
    assert run.told.count(["wrong", "port: must be a number"]) == 1
    assert "port: must be a number" in run.told[-1][1]
    assert not run.left()


def test_one_that_never_becomes_ready_ends_everything(supervised: Supervise) -> None:
    run = supervised({"sound": STAYS, "idle": "import time; time.sleep(60)"}, ready_within=1.0)
    assert run.ended() == 1
    assert "idle was not ready within 1 s" in run.told[-1][1]
    assert not run.left()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_each_end_in_order(supervised: Supervise, sign: signal.Signals) -> None:
    run = supervised({"a": POLITE + STAYS, "b": POLITE + STAYS}).tells("READY")
    run.process.send_signal(sign)
    assert run.ended() == 0
    after = run.told[run.told.index(["ENDING"]) :]
    assert sorted(after[1:-1]) == [["a", "goodbye"], ["b", "goodbye"]]
    assert after[-1] == ["ENDED", sign.name]
    assert not run.left()


def test_a_signal_before_all_are_ready_ends_everything_too(supervised: Supervise) -> None:
    run = supervised({"a": POLITE + STAYS, "b": "print('booting', flush=True); import time; time.sleep(60)"})
    run.tells("b", "booting").process.send_signal(signal.SIGINT)
    assert run.ended() == 0
    assert ["READY"] not in run.told
    assert not run.left()


def test_a_second_signal_does_not_wait_for_what_refuses_to_end(supervised: Supervise) -> None:
    run = supervised({"a": STUBBORN + STAYS}, ended_within=60.0).tells("READY")
    run.process.send_signal(signal.SIGINT)
    run.tells("ENDING").process.send_signal(signal.SIGINT)
    assert run.ended() == 0
    assert not run.left()


def test_what_refuses_to_end_is_killed_in_time_with_what_it_started_apart(supervised: Supervise) -> None:
    run = supervised({"a": STUBBORN + WITH_CHILD_APART + STAYS}, ended_within=0.2).tells("READY")
    assert len(run.left()) == 3
    run.process.send_signal(signal.SIGTERM)
    assert run.ended() == 0
    assert not run.left()


def test_a_killed_supervisor_leaves_nothing_after_five_seconds(supervised: Supervise) -> None:
    run = supervised({"a": STUBBORN + WITH_CHILD_APART + STAYS, "b": STAYS}).tells("READY")
    assert len(run.left()) == 4
    run.process.kill()
    until(lambda: not run.left(), within=5)


def test_any_output_becomes_lines(supervised: Supervise) -> None:
    says = (
        "import sys; sys.stdout.buffer.write(b'one\\r\\n\\xff\\n' + b'x' * 20_000 + b'\\nlast'); sys.stdout.flush()\n"
    )
    run = supervised({"a": says + STAYS}).tells("READY")
    run.process.send_signal(signal.SIGTERM)
    assert run.ended() == 0
    said = [told[1] for told in run.told if told[0] == "a"]
    assert said[:2] == ["one", "\ufffd"]
    assert "".join(said[2:-1]) == "x" * 20_000
    assert said[-1] == "last"
