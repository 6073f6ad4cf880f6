"""Terminals side by side on one new home: shared servers, Ctrl-C and kill, watching, and what each output shows."""

import json
import re
import signal

import pytest
from rich.cells import cell_len

from tests.terminals import Installation, Terminal, until
from tests.test_cli_reading import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OBJECTIVE = "Design a caching strategy"
SLOW = {"TRILOGUE_REHEARSAL_LATENCY": "2"}
ESCAPE = "\x1b"


def pipeline_id(terminal: Terminal) -> str:
    """The id of the pipeline, once the terminal says it."""
    until(lambda: bool(re.search(r"pipeline p-\w{12}:", terminal.seen)), within=120)
    found = re.search(r"pipeline (p-\w{12}):", terminal.seen)
    assert found
    return found[1]


def shown(installation: Installation, pipeline: str) -> Outcome:
    return Outcome.model_validate_json(installation.run("status", pipeline, "--json").out)


def words(terminal_output: str) -> str:
    """The text of a terminal's output, without what moves its cursor and colours it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal_output)


def test_ctrl_c_in_one_terminal_leaves_the_other_alone_and_its_own_pipeline_resumable(
    installation: Installation,
) -> None:
    interrupted = installation.start("run", "Interrupt me", columns=100, env=SLOW)
    survivor = installation.start("run", OBJECTIVE, env=SLOW)
    interrupted.shows("ORCHESTRATE")
    interrupted.press_ctrl_c()
    ended = interrupted.ended(within=20)
    assert ended.code == 130
    taken_up = pipeline_id(interrupted)
    assert f"`trilogue resume {taken_up}` takes it up again" in words(ended.out).replace("\r\n", " ")
    assert "Traceback" not in ended.out

    left = shown(installation, taken_up)
    assert (left.status, left.orphaned) == ("ORCHESTRATING", True)
    went_on = survivor.ended()
    assert (went_on.code, went_on.err) == (0, "")
    assert "COMPLETED" in went_on.out
    assert shown(installation, taken_up) == left, "nobody touched it meanwhile"

    resumed = Outcome.model_validate_json(installation.run("resume", taken_up, "--json").out)
    assert (resumed.pipeline_id, resumed.status) == (taken_up, "COMPLETED")
    assert resumed.phases[:3] == left.phases[:3], "what was finished was not done again"
    assert installation.run("resume", taken_up).code == 1


def test_kill_9_in_one_terminal_leaves_the_other_alone_and_its_own_pipeline_resumable(
    installation: Installation,
) -> None:
    short = {**SLOW, "TRILOGUE_LEASE_SECONDS": "6"}
    killed = installation.start("run", "Kill me", env=short)
    survivor = installation.start("run", OBJECTIVE, env=short)
    killed.shows("ORCHESTRATE")
    orphan = pipeline_id(killed)
    assert killed.send(signal.SIGKILL).ended().code == -signal.SIGKILL
    refused = installation.run("resume", orphan, "--json")
    if refused.code == 1:  # it took less than the lease to ask
        assert refused.document["error"] == "leased"
        until(lambda: shown(installation, orphan).orphaned, within=20)
        refused = installation.run("resume", orphan, "--json")
    assert Outcome.model_validate_json(refused.out).status == "COMPLETED"
    assert survivor.ended().code == 0
    listed = json.loads(installation.run("list", "--status", "COMPLETED", "--json").out)["items"]
    assert len(listed) == 2


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_a_plain_kill_and_a_closed_terminal_give_the_lease_back_like_ctrl_c(
    installation: Installation, sign: signal.Signals
) -> None:
    terminal = installation.start("run", OBJECTIVE, env=SLOW)
    terminal.shows("RUN")
    assert terminal.send(sign).ended(within=20).code == 130
    assert shown(installation, pipeline_id(terminal)).orphaned


def test_ctrl_c_while_the_servers_start_and_twice_in_a_row_always_comes_back(installation: Installation) -> None:
    early = installation.start("run", OBJECTIVE, columns=100).shows("starting")
    assert early.press_ctrl_c().ended(within=15).code == 130
    assert "Traceback" not in early.seen
    assert json.loads(installation.run("list", "--json").out)["items"] == []

    twice = installation.start("run", OBJECTIVE, columns=100, env=SLOW).shows("ORCHESTRATE")
    twice.press_ctrl_c().press_ctrl_c()
    assert twice.ended(within=20).code == 130


def test_watching_from_another_terminal_shows_text_as_it_streams_and_ends_with_the_pipeline(
    installation: Installation,
) -> None:
    runner = installation.start("run", OBJECTIVE, env=SLOW)
    watcher = installation.start("watch", pipeline_id(runner), columns=80)
    piped = installation.start("watch", pipeline_id(runner))
    watcher.shows("Rehearsal: no language model is used")
    watcher.shows("Steps: 1.")  # of a proposal's text, which its line does not show
    assert runner.ended().code == 0
    assert (watcher.ended().code, piped.ended().code) == (0, 0)
    assert "COMPLETED" in watcher.seen
    lines = [line for line in runner.seen.splitlines() if re.match(r"\s+\d+\.\ds ", line)]
    assert lines == [line for line in piped.seen.splitlines() if re.match(r"\s+\d+\.\ds ", line)]
    assert "Steps: 1." not in piped.seen


def test_a_terminal_shows_phases_turns_and_the_agreed_text_and_leaves_a_clean_screen(
    installation: Installation,
) -> None:
    terminal = installation.start("run", f"{OBJECTIVE} for 日本語 [bold]sites[/bold]", columns=80, env=SLOW)
    ended = terminal.ended()
    assert ended.code == 0
    text = words(ended.out)
    for seen in ("starting the Prefect server", "ALPHA", "thinking …", "after SPAWN", "Decided by vote", "beta-1:"):
        assert seen in text, seen
    assert "日本語 [bold]sites[/bold]" in text
    assert max(cell_len(line) for line in re.split(r"[\r\n]+", text)) <= 80, "a line that wraps spoils the live part"
    assert ended.out.count(ESCAPE + "[?25l") == ended.out.count(ESCAPE + "[?25h"), "the cursor is back"


def test_a_pipe_gets_plain_lines_and_json_keeps_stdout_for_the_document(installation: Installation) -> None:
    plain = installation.run("run", OBJECTIVE)
    assert plain.code == 0
    assert ESCAPE not in plain.out + plain.err
    assert plain.err == ""
    assert "# a caching strategy" in plain.out
    assert all(line == line.rstrip() or line.endswith("  ") for line in plain.out.splitlines())

    document = installation.run("run", OBJECTIVE, "--json")
    assert Outcome.model_validate_json(document.out).status == "COMPLETED"
    assert "agreed:" in document.err
