"""What is recorded is anchored: once, in order, by whoever comes first, and kept outside the database."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import create_engine

from tests.fixtures.book import until
from tests.fixtures.receiver import SECRET, Receiver
from tests.tampering import KeyInHand, Office, raw, record, say, unguarded
from trilogue.anchoring import anchor_at_end, anchor_due, keep_anchored
from trilogue.anchoring import keeping as keeping_module
from trilogue.anchoring.keeping import Keeper
from trilogue.anchoring.keys import signer
from trilogue.anchoring.outside import AnchorFile
from trilogue.errors import Conflict, Invalid, Unavailable
from trilogue.ledger import Ledger, schema
from trilogue.ledger.engine import parse_url
from trilogue.proof.anchors import Anchor, heads_of, key_id_of, read_outside, signed_text
from trilogue.settings import load_settings


async def _anchors(ledger: Ledger, tenant: str = "default") -> list[Anchor]:
    return await ledger.proof.anchors(tenant, limit=10_000)


def _named(anchors: list[Anchor]) -> list[tuple[str, int, str]]:
    return [(head.pipeline_id, head.seq, head.status) for anchor in anchors for head in heads_of(anchor)]


@pytest.fixture
async def several(ledger_url: str) -> AsyncIterator[list[Ledger]]:
    """Six workers' connections to one ledger."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(6):
            ledger = await Ledger.open(ledger_url, migrate=False)
            stack.push_async_callback(ledger.close)
            opened.append(ledger)
        yield opened


async def test_what_ended_is_anchored_at_once_and_what_runs_on_its_schedule(ledger: Ledger, tmp_path: Path) -> None:
    keeper = Keeper(Office(ledger, tmp_path, anchor_every=3600.0), KeyInHand())
    assert await keeper.anchor() == 0
    running = await record(ledger, "p-running", end=False)
    await record(ledger, "p-ended")
    assert await keeper.anchor() == 1
    assert _named(await _anchors(ledger)) == [("p-ended", 10, "FAILED"), ("p-running", 9, "SPAWNED")]
    await say(ledger, running, 1)
    assert await keeper.anchor() == 0, "the hour has not passed"
    await record(ledger, "p-too", 1)
    assert await keeper.anchor() == 1
    soon = Keeper(Office(ledger, tmp_path, anchor_every=0.001), KeyInHand())
    assert await soon.anchor() == 1
    assert await soon.anchor() == 0, "nothing has changed"
    assert _named(await _anchors(ledger))[2:] == [("p-too", 3, "FAILED"), ("p-running", 10, "SPAWNED")]
    assert (await ledger.proof.verify()).whole


async def test_many_workers_at_once_anchor_each_head_once_in_one_chain(
    several: list[Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_module, "HEADS", 3)
    key, copy = KeyInHand(), tmp_path / "anchors.jsonl"
    keepers = [Keeper(Office(one, tmp_path, anchor_every=0.001, anchor_file=copy), key) for one in several]
    for tenant in ("default", "other"):
        await asyncio.gather(*(record(several[0], f"p-{n}", 1, tenant=tenant) for n in range(10)))
    running = [await record(several[0], f"q-{n}", 1, end=False) for n in range(4)]

    async def work(keeper: Keeper, ledger: Ledger) -> int:
        made = 0
        for _ in range(6):
            made += await keeper.anchor()
            await keeper.copy()
            if ledger is several[0]:
                await asyncio.gather(*(say(ledger, fence, 1) for fence in running))
        return made

    made = sum(await asyncio.gather(*map(work, keepers, several)))
    made += await keepers[0].anchor()
    await keepers[0].copy()
    ledger = several[0]
    anchors = await _anchors(ledger) + await _anchors(ledger, "other")
    assert len(anchors) == made
    seen = Counter((anchor.tenant, head.pipeline_id, head.seq) for anchor in anchors for head in heads_of(anchor))
    assert set(seen.values()) == {1}
    assert max(len(heads_of(anchor)) for anchor in anchors) == 3
    verdict = await ledger.proof.verify()
    assert verdict.whole, verdict.problems
    assert verdict.anchored == verdict.entries
    with copy.open() as lines:
        kept = [anchor for anchor, _ in read_outside(lines, "copy")]
    assert sorted(kept, key=lambda one: (one.tenant, one.seq)) == anchors
    assert key.signed >= made


_KILLED = """
import asyncio, sys
from pathlib import Path
from tests.tampering import KeyInHand, Office
from trilogue.anchoring.keeping import Keeper
from trilogue.ledger import Ledger

class Stuck(KeyInHand):
    async def sign(self, message):
        print("signing", flush=True)
        await asyncio.Event().wait()

async def main():
    ledger = await Ledger.open(sys.argv[1], migrate=False)
    await Keeper(Office(ledger, Path(sys.argv[2])), Stuck()).anchor()

asyncio.run(main())
"""


async def test_a_worker_that_is_killed_between_draft_and_anchor_leaves_it_to_the_next(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    await record(ledger, "p-1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _KILLED, ledger_url, str(tmp_path), stdout=subprocess.PIPE
    )
    assert process.stdout
    assert (await process.stdout.readline()).strip() == b"signing"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await Keeper(Office(ledger, tmp_path), KeyInHand()).anchor() == 1
    assert (await ledger.proof.verify()).anchored == 10


async def test_a_pipeline_that_ends_anew_while_its_anchor_is_signed_is_due_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    fence = await record(ledger, "p-1")
    key = KeyInHand()
    drafted = await ledger.proof.draft("default", every_seconds=60, limit=10)
    assert drafted is not None
    await say(ledger, fence, 1)  # an entry of one that has ended
    appended = await ledger.proof.append(drafted, await key.sign(signed_text(drafted.hash)))
    assert appended is not None
    assert await ledger.proof.append(drafted, await key.sign(signed_text(drafted.hash))) is None
    assert await Keeper(Office(ledger, tmp_path), key).anchor() == 1
    assert _named(await _anchors(ledger)) == [("p-1", 10, "FAILED"), ("p-1", 11, "FAILED")]


async def _public_key(home: Path, **settings: Any) -> bytes:
    async with signer(load_settings(home=home, **settings)) as signs:
        assert signs
        return (await signs.sign(b"x")).public_key


async def test_a_key_of_its_own_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    assert len(set(await asyncio.gather(*(_public_key(tmp_path) for _ in range(16))))) == 1
    [path] = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    read = ["openssl", "pkey", "-in", str(path), "-noout", "-text"]
    shown = await asyncio.to_thread(subprocess.run, read, check=True, timeout=20, capture_output=True)
    assert b"ED25519 Private-Key" in shown.stdout
    path.chmod(0o644)
    with pytest.raises(Invalid, match="chmod 600"):
        await _public_key(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [("vault:anchors", "VAULT_ADDR"), ("/nowhere/key.pem", "No such file"), ("GARBAGE", "no Ed25519 private key")],
)
async def test_a_key_that_cannot_be_used_is_refused_without_its_text(tmp_path: Path, given: str, said: str) -> None:
    if given == "GARBAGE":
        path = tmp_path / "key.pem"
        path.write_text("canary-1234")
        path.chmod(0o600)
        given = str(path)
    with pytest.raises(Invalid, match=said) as refused:
        await _public_key(tmp_path, anchor_key=given)
    assert "canary" not in str(refused.value)


def _new_key(path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, timeout=20)
    path.chmod(0o600)


async def test_keys_are_rotated_by_giving_another_one_and_both_stay_known(ledger: Ledger, tmp_path: Path) -> None:
    for name in ("first", "second"):
        await asyncio.to_thread(_new_key, tmp_path / name)
        await record(ledger, f"p-{name}")
        assert await anchor_due(Office(ledger, tmp_path, anchor_key=str(tmp_path / name))) == 1
    keys = await ledger.proof.keys(None)
    assert [(key.first, key.last, key.count) for key in keys] == [(1, 1, 1), (2, 2, 1)]
    given = {key.key_id: key.public_key for key in keys}
    assert (await ledger.proof.verify(keys=given)).whole
    del given[keys[0].key_id]
    assert (await ledger.proof.verify(keys=given)).wrong == 1


async def test_with_the_key_none_nothing_is_anchored(ledger: Ledger, tmp_path: Path) -> None:
    await record(ledger, "p-1")
    assert await anchor_due(Office(ledger, tmp_path, anchor_key="none")) == 0
    assert not (tmp_path / "keys").exists()


async def test_the_file_outside_mends_a_torn_line_and_never_takes_a_chain_made_anew(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    path, key = tmp_path / "anchors.jsonl", KeyInHand()
    keeper = Keeper(Office(ledger, tmp_path, anchor_file=path), key)
    for n in range(3):
        await record(ledger, f"p-{n}", 1)
        await keeper.anchor()
        await keeper.copy()
        with path.open("a") as file:
            file.write('{"format":"trilogue-anchor","ten')  # as a writer that was killed leaves it
        lines = path.read_text().splitlines(keepends=True)
        assert len(list(read_outside(lines, "it"))) == n + 1
    await keeper.copy()
    other = Keeper(Office(ledger, tmp_path, anchor_file=path), key)
    await record(ledger, "p-3", 1)
    await other.anchor()
    await other.copy()
    whole = path.read_bytes()
    assert whole.endswith(b"}\n")
    assert [json.loads(line)["seq"] for line in whole.splitlines()] == [1, 2, 3, 4]
    path.unlink()
    await keeper.copy()
    assert path.read_bytes() == whole, "a new file begins with the first anchor"

    await asyncio.to_thread(unguarded, ledger_url, "anchors")
    raw(ledger_url, "DELETE FROM anchors WHERE seq > 2")
    raw(ledger_url, "UPDATE anchor_chains SET seq = 2, hash = (SELECT hash FROM anchors WHERE seq = 2)")
    for n in range(4, 7):
        await record(ledger, f"p-{n}", 1)
        await keeper.anchor()
    with pytest.raises(Conflict, match="does not follow"):
        await Keeper(Office(ledger, tmp_path, anchor_file=path), key).copy()
    assert path.read_bytes() == whole


async def test_a_file_that_is_none_of_ours_or_cannot_be_written_is_told(ledger: Ledger, tmp_path: Path) -> None:
    await record(ledger, "p-1", 1)
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    with pytest.raises(Conflict, match="no anchor"):
        await anchor_due(Office(ledger, tmp_path, anchor_file=notes))
    assert notes.read_text() == "dear diary\n"
    with pytest.raises(Unavailable, match="cannot be used"):
        await anchor_due(Office(ledger, tmp_path, anchor_file=tmp_path / "no" / "folder"))
    assert (await ledger.proof.verify()).anchored == 3, "what was anchored stays"


async def test_anchors_are_posted_in_order_until_each_was_taken_once(
    ledger: Ledger, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_module, "_AGAIN", 0.0)
    settings: dict[str, Any] = {"anchor_url": receiver.url, "webhook_secret": SecretStr(SECRET)}
    await record(ledger, "p-0", 1)
    with pytest.raises(Unavailable, match="TRILOGUE_WEBHOOK_ALLOW_PRIVATE"):
        await anchor_due(Office(ledger, tmp_path, **settings))
    office = Office(ledger, tmp_path, webhook_allow_private=True, **settings)
    receiver.answers = [503, 204]
    with pytest.raises(Unavailable, match="answered 503"):
        await anchor_due(office)
    for n in range(1, 4):
        await record(ledger, f"p-{n}", 1)
        await anchor_due(office)
    await asyncio.gather(*(anchor_due(office) for _ in range(4)))
    assert [seen.document["seq"] for seen in receiver.seen] == [1, 1, 2, 3, 4]
    assert receiver.seen[0].id == receiver.seen[1].id
    [first, *_] = await _anchors(ledger)
    assert receiver.seen[0].document["signature"] == first.signature


async def test_anchoring_beside_the_work_goes_on_after_the_key_was_away_and_at_an_end_is_brief(
    ledger: Ledger, tmp_path: Path
) -> None:
    office = Office(ledger, tmp_path, anchor_key=str(tmp_path / "late.pem"))
    await record(ledger, "p-1", 1)
    await anchor_at_end(office)
    keeping = asyncio.create_task(keep_anchored(office, every=0.01))
    try:
        await asyncio.sleep(0.05)
        assert not keeping.done()
        await asyncio.to_thread(_new_key, tmp_path / "late.pem")

        async def anchored() -> bool:
            return len(await _anchors(ledger)) == 1

        await until(anchored, seconds=10)
    finally:
        keeping.cancel()


def test_a_copy_that_another_process_writes_at_the_same_time_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "anchors.jsonl"
    anchors, before = [], "0" * 64
    for seq in range(1, 101):
        anchors.append(
            Anchor(
                tenant="t",
                seq=seq,
                at=seq,
                body="b" * 2000,
                prev_hash=before,
                hash=f"{seq:064}",
                signature="",
                key_id="k",
            )
        )
        before = anchors[-1].hash
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            copy = AnchorFile(path)
            for end in range(1, 101):
                copy.append(anchors[max(0, end - 5) : end] if end > 5 else anchors[:end], {"k": b""})
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == list(range(1, 101))


def test_a_keys_id_is_the_digest_of_its_bytes() -> None:
    assert key_id_of(bytes(32)) == "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"


async def test_the_tables_come_and_go_and_what_had_ended_before_is_anchored_then(
    empty_url: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(schema.upgrade, empty_url, "0004")
    columns = "tenant, id, spec, status, phase, round, attempt, head_seq, head_hash, created_at, updated_at, ended_at"
    for pipeline_id, ended_at in (("p-ended", "30"), ("p-open", "NULL")):
        status = "FAILED" if ended_at == "30" else "RUNNING"
        values = f"'default', '{pipeline_id}', '{{}}', '{status}', 'RUN', 0, 1, 5, 'h', 10, 20, {ended_at}"
        raw(empty_url, f"INSERT INTO pipelines ({columns}) VALUES ({values})")
    engine = create_engine(parse_url(empty_url))
    for _ in range(2):
        await asyncio.to_thread(schema.upgrade, empty_url)
        ledger = await Ledger.open(empty_url, migrate=False)
        assert await Keeper(Office(ledger, tmp_path), KeyInHand()).anchor() == 1
        assert [head[:2] for head in _named(await _anchors(ledger))] == [("p-ended", 5), ("p-open", 5)]
        await ledger.close()
        with engine.connect() as connection, connection.begin():
            command.downgrade(schema._config(connection), "0004")
    engine.dispose()
    assert len(raw(empty_url, "SELECT id FROM pipelines")) == 2
