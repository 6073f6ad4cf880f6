"""Looking back and stopping on the command line: `checkpoints`, `replay`, `stop`."""

import asyncio
from pathlib import Path

import pytest

from tests.command import Command, refusal
from tests.driving import driving_at


@pytest.fixture
def pipelines(
    tmp_path: Path, valkey_socket: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, str]:
    """A completed pipeline with a ruling, and one that is held; `command` looks at their home."""

    async def record() -> tuple[str, str]:
        async with driving_at(tmp_path / "recorded", valkey_socket) as driver:
            ruled = await driver.run(model="rehearsal/conflict")
            held = await driver.run(mode="local", auto_continue=False)
            return ruled.pipeline_id, held.pipeline_id

    monkeypatch.setenv("TRILOGUE_HOME", str(tmp_path / "recorded"))
    return asyncio.run(record())


def test_checkpoints_are_listed_shown_and_compared(command: Command, pipelines: tuple[str, str]) -> None:
    ruled, _ = pipelines
    items = command("checkpoints", "list", ruled, "--json").document["items"]
    assert [item["name"] for item in items] == ["spawned", "report", "completed"]
    assert "report" in command("checkpoints", "list", ruled).out
    shown = command("checkpoints", "show", ruled, "report", "--json").document
    assert (shown["board"]["seq"], shown["board"]["status"]) == (items[1]["to_seq"], "REPORT")
    assert len(shown["board"]["findings"]) == 4
    assert shown["board"]["proposals"] == []

    changes = command("checkpoints", "diff", ruled, "report", "completed", "--json").document["items"]
    told = {(one["section"], one["id"]): one["change"] for one in changes}
    assert told["pipeline", "status"] == "changed"
    assert told["proposals", "p1"] == told["rulings", "1"] == told["consensus", "consensus"] == "added"
    backwards = command("checkpoints", "diff", ruled, "completed", "report", "--json").document["items"]
    assert {one["change"] for one in backwards if one["section"] == "proposals"} == {"removed"}
    assert "+ proposals p1" in command("checkpoints", "diff", ruled, "report", "completed").out
    assert "No difference" in command("checkpoints", "diff", ruled, "report", "report").out
    assert "there are: spawned, report, completed" in refusal(command("checkpoints", "show", ruled, "nope"), code=1)


def test_a_replay_shows_the_board_as_it_stood_at_any_entry(command: Command, pipelines: tuple[str, str]) -> None:
    ruled, _ = pipelines
    whole = command("replay", ruled, "--json").document
    assert whole["status"] == "COMPLETED"
    for seq in (1, whole["seq"] // 2, whole["seq"]):
        assert command("replay", ruled, "--until", str(seq), "--json").document["seq"] == seq
    assert "GAMMA" in command("replay", ruled).out
    assert "it has entries 1 to" in refusal(command("replay", ruled, "--until", "0"))
    assert "it has entries 1 to" in refusal(command("replay", ruled, "--until", str(whole["seq"] + 1)))


def test_stop_ends_a_held_pipeline_once_and_resume_needs_a_reason(command: Command, pipelines: tuple[str, str]) -> None:
    ruled, held = pipelines
    assert command("stop", held, "--reason", "not needed", "--json").document["status"] == "STOPPED"
    shown = command("status", held, "--json").document
    assert (shown["status"], shown["error"]["message"]) == ("STOPPED", "by a person: not needed")
    assert "STOPPED" in refusal(command("stop", held), code=1)
    assert "--reason" in refusal(command("resume", held), code=1)
    assert "COMPLETED" in refusal(command("stop", ruled), code=1)
    assert "no pipeline" in refusal(command("stop", "p-nothere"), code=1)
