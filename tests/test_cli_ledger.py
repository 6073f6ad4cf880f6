"""`trilogue ledger …`: what it says, in words and as JSON, and how it exits."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.command import Command, refusal
from tests.driving import driving_at
from tests.tampering import raw, unguarded
from trilogue.anchoring import anchor_due
from trilogue.ledger import sqlite_url


@pytest.fixture
def recorded(tmp_path: Path, valkey_socket: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a pipeline that completed and was anchored; `command` looks at its home."""
    home = tmp_path / "recorded"

    async def run() -> str:
        async with driving_at(home, valkey_socket) as driver:
            course = await driver.run(mode="local")
            assert await anchor_due(driver.services) == 1
            return course.pipeline_id

    monkeypatch.setenv("TRILOGUE_HOME", str(home))
    return asyncio.run(run())


def _tamper(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "recorded" / "ledger.db")
    unguarded(url)
    raw(url, "UPDATE entries SET body = '{}' WHERE seq = 7")


def test_verify_says_what_is_whole_and_what_is_proved(command: Command, recorded: str, tmp_path: Path) -> None:
    shown = command("ledger", "verify")
    assert shown.code == 0
    assert shown.out.startswith("whole  1 pipelines, ")
    assert "could have made both anew" in " ".join(shown.out.split())

    copy, keys = tmp_path / "copy.jsonl", tmp_path / "keys.pem"
    assert command("ledger", "anchors", "-o", str(copy)).code == 0
    assert command("ledger", "anchors").out == copy.read_text()
    keys.write_text(command("ledger", "keys", "--pem").out)
    [key] = command("ledger", "keys", "--json").document["items"]
    assert (key["public_key"], key["origin"], key["anchors"]) == (keys.read_text(), "file", 1)
    assert key["key_id"] in command("ledger", "keys").out

    told = command("ledger", "verify", "--anchors", str(copy), "--key", str(keys), "--json").document
    assert (told["whole"], told["problems"], told["keys_given"]) == (True, [], True)
    assert told["entries"] == told["anchored_entries"] == told["outside"]["entries"] > 20
    assert "Proved by the anchors kept outside" in told["proved"]
    assert command("ledger", "verify", "--pipeline", recorded[:6], "--json").document["pipelines"] == 1
    assert command("ledger", "verify", "--tenant", "other", "--json").document["pipelines"] == 0

    _tamper(tmp_path)
    shown = command("ledger", "verify")
    assert shown.code == 1
    assert shown.out.startswith("NOT WHOLE")
    assert f"changed  {recorded} entry 7: entry 7 is not what was recorded" in shown.out
    told = command("ledger", "verify", "--json")
    assert told.code == 1
    [problem] = told.document["problems"]
    assert (problem["what"], problem["pipeline_id"], problem["seq"]) == ("changed", recorded, 7)


def test_a_bundle_is_exported_and_checked(command: Command, recorded: str, tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    told = command("ledger", "export", recorded[:8], "-o", str(path), "--json").document
    assert (told["pipeline_id"], told["bytes"]) == (recorded, path.stat().st_size)
    assert command("ledger", "export", recorded, "-o", "-").out == path.read_text()
    checked = command("ledger", "verify-bundle", str(path), "--json")
    assert checked.code == 0
    assert (checked.document["whole"], checked.document["entries"]) == (True, told["entries"])
    assert checked.document["anchored_entries"] == told["entries"]
    kinds = [next(iter(json.loads(line))) for line in path.read_text().splitlines()]
    assert {"key", "anchor", "entry", "head", "checkpoint", "report", "end"} <= set(kinds)
    copy = tmp_path / "copy.jsonl"
    command("ledger", "anchors", "-o", str(copy))
    shown = command("ledger", "verify-bundle", str(path), "--anchors", str(copy)).out
    assert "were kept outside" in " ".join(shown.split())

    path.write_text(path.read_text().replace('"kind":"report"', '"kind":"raport"'))
    shown = command("ledger", "verify-bundle", str(path))
    assert shown.code == 1
    assert shown.out.startswith("NOT WHOLE")
    _tamper(tmp_path)
    command("ledger", "export", recorded, "-o", str(path))
    [problem] = command("ledger", "verify-bundle", str(path), "--json").document["problems"]
    assert (problem["what"], problem["seq"]) == ("changed", 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify-bundle", "nothing"), "No such file"),
        (("verify-bundle", "/dev/null"), "is no bundle|cut off"),
        (("verify", "--key", "nothing"), "No such file"),
        (("verify", "--key", "/dev/null"), "no public key"),
        (("verify", "--anchors", "nothing"), "No such file"),
        (("export", "x", "-o", "-", "--json"), "cannot both go to stdout"),
    ],
)
def test_what_cannot_be_used_is_refused(
    command: Command, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = command("ledger", *arguments)
    assert finished.code == 2
    assert re.search(said, finished.err), finished


def test_where_only_a_server_is_known_verify_does_not_look_at_another_ledger(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILOGUE_API_URL", "http://127.0.0.1:1")
    assert "TRILOGUE_DATABASE_URL" in refusal(command("ledger", "verify"))
    assert command("ledger", "export", "x").code == 2
