"""`trilogue webhooks`: a receiver can be tried, and what became of each webhook can be seen."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.command import Command, refusal
from tests.fixtures.receiver import FORMER_SECRET, SECRET, Receiver, receiving
from tests.test_canary import aside
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger import Ledger, sqlite_url


@pytest.fixture
def other_side() -> Iterator[Receiver]:
    """A receiver in a thread of its own, as commands block theirs."""
    with aside(receiving()) as receiver:
        yield receiver


@pytest.fixture
def configured(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("TRILOGUE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("TRILOGUE_WEBHOOK_ALLOW_PRIVATE", "true")
    return command


def test_a_ping_is_signed_and_what_came_back_is_shown(configured: Command, other_side: Receiver) -> None:
    ended = configured("webhooks", "test", f"{other_side.url}/path-hush")
    assert ended.code == 0, ended
    [seen] = other_side.seen
    assert (seen.document["type"], seen.document["data"]) == ("ping", {})
    assert "delivered" in ended.out
    assert "HTTP 204" in ended.out
    assert seen.id in ended.out
    assert "-hush" not in ended.out + ended.err
    other_side.answers, other_side.body = [418], b"\x1b[2Jshort and stout"
    ended = configured("webhooks", "test", other_side.url, "--json")
    assert (ended.code, ended.document["delivered"], ended.document["status"]) == (1, False, 418)
    assert ended.document["error"] == "answered 418"
    ended = configured("webhooks", "test", other_side.url)
    assert "short and stout" in ended.out
    assert "\x1b[2J" not in ended.out


def test_another_variables_secret_and_the_configured_url_are_used(
    configured: Command, other_side: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_side.secret = FORMER_SECRET
    monkeypatch.setenv("TRILOGUE_WEBHOOK_URL", other_side.url)
    monkeypatch.setenv("THE_OTHER", FORMER_SECRET)
    assert configured("webhooks", "test", "--secret-env", "THE_OTHER").code == 0
    assert "THE_ONE" in refusal(configured("webhooks", "test", "--secret-env", "THE_ONE"))


def test_what_cannot_be_sent_is_refused_with_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TRILOGUE_WEBHOOK_URL" in refusal(command("webhooks", "test"))
    assert "TRILOGUE_WEBHOOK_SECRET" in refusal(command("webhooks", "test", "https://example.com/"))
    monkeypatch.setenv("TRILOGUE_WEBHOOK_SECRET", SECRET)
    assert "no public address" in refusal(command("webhooks", "test", "https://127.0.0.1/"))
    assert "credentials" in refusal(command("webhooks", "test", "https://me:pass-hush@example.com/"))
    monkeypatch.setenv("TRILOGUE_WEBHOOK_SECRET", "hush-hush")
    assert "hush" not in refusal(command("webhooks", "test", "https://example.com/"))


def test_a_pipeline_with_a_webhook_that_cannot_be_sent_is_refused(command: Command) -> None:
    assert "webhook: " in refusal(command("run", "agree", "--webhook", "ftp://example.com/"))


@asynccontextmanager
async def _ledger(home: Path) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(sqlite_url(home / "ledger.db"), migrate=True)
    yield ledger
    await ledger.close()


async def _one_ended(home: Path) -> None:
    async with _ledger(home) as ledger:
        first = {"objective": "agree", "webhook": "https://example.com/path-hush"}
        await ledger.spawn("default", "p-1", [Draft(kind=Kind.PIPELINE_SPAWNED, body=first)], at=clock.now())
        failed = Draft(kind=Kind.STATUS, body={"status": "FAILED", "error": {"code": "c", "message": "m"}})
        await ledger.append_outside("default", "p-1", lambda _: [failed], at=clock.now())
        [claimed] = await ledger.claim_deliveries(limit=1, per_receiver=1, busy=(), hold_seconds=60)
        await ledger.settle_delivery(claimed, error="answered 500", again_in=60_000_000)


def test_webhooks_are_listed_with_what_keeps_them(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No webhooks yet" in command("webhooks", "list").out
    asyncio.run(_one_ended(tmp_path / "home"))
    [item] = command("webhooks", "list", "--json").document["items"]
    assert item | {"id": "", "created_at": "", "due_at": ""} == {
        "id": "",
        "pipeline_id": "p-1",
        "seq": 2,
        "type": "pipeline.failed",
        "receiver": "https://example.com",
        "status": "pending",
        "tries": 1,
        "error": "answered 500",
        "created_at": "",
        "due_at": "",
        "ended_at": None,
    }
    shown = command("webhooks", "list", "--pipeline", "p-").out
    assert "pipeline.failed" in shown
    assert "answered 500" in shown
    assert "-hush" not in shown
    assert command("webhooks", "list", "--status", "delivered", "--json").document == {"items": [], "next": None}
    assert "'lost'" in refusal(command("webhooks", "list", "--status", "lost"))
    monkeypatch.setenv("TRILOGUE_API_URL", "http://127.0.0.1:9")
    assert "where the ledger is" in refusal(command("webhooks", "list"))
