"""One file proves a pipeline, with no database, no network and nothing of ours: any change to it is noticed."""

import asyncio
import base64
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tampering import KeyInHand, Office, record, say
from trilogue.anchoring.keeping import Keeper
from trilogue.clock import now
from trilogue.entry import Draft, Kind
from trilogue.errors import NotFound
from trilogue.ledger import Ledger
from trilogue.proof.anchors import key_id_of, pem_of, read_keys
from trilogue.proof.bundle import verify_bundle
from trilogue.proof.chain import GENESIS
from trilogue.proof.problems import UnreadableError, What

SEED = 20261122
FLIPS = 600
_CHECKPOINT = {"name": "report", "to_seq": 3, "status": "RUNNING", "phase": "RUN", "round": 0, "details": None}
_REPORT = {"markdown": "# Findings\n\nünïcode 𝒙", "findings": [], "complexity": 0.5, "continuation": {"may": True}}


@pytest.fixture
def key() -> KeyInHand:
    return KeyInHand()


@pytest.fixture
async def bundle(ledger: Ledger, key: KeyInHand, tmp_path: Path) -> Path:
    """Of a pipeline of twelve entries, ten of them anchored."""
    keeper = Keeper(Office(ledger, tmp_path, anchor_every=0.001), key)
    fence = await record(ledger, "p-1", 6, end=False)
    await keeper.anchor()
    for kind, body in ((Kind.CHECKPOINT, _CHECKPOINT), (Kind.REPORT, _REPORT), (Kind.CHECKPOINT, _CHECKPOINT)):
        await ledger.append(fence, [Draft(kind=kind, body=body)], at=now())
    await record(ledger, "p-2", 1)
    await keeper.anchor()
    await say(ledger, fence, 2)
    path = tmp_path / "p-1.bundle.jsonl"
    with path.open("wb") as file:
        assert await ledger.proof.export("default", "p-1", file) == 12
    with pytest.raises(NotFound):
        await ledger.proof.export("other", "p-1", file)
    return path


def test_a_bundle_says_what_it_proves(bundle: Path, key: KeyInHand) -> None:
    verdict = verify_bundle(bundle)
    assert verdict.whole, verdict.problems
    assert (verdict.entries, verdict.anchors, verdict.anchored) == (12, 2, 10)
    assert verdict.signers == [key_id_of(key.public)]
    assert not verdict.trusted
    given = verify_bundle(bundle, keys={key_id_of(key.public): key.public})
    assert (given.whole, given.trusted) == (True, True)
    other = KeyInHand()
    problems = verify_bundle(bundle, keys={key_id_of(other.public): other.public}).problems
    assert {problem.what for problem in problems} == {What.ANCHOR_UNTRUSTED}


def test_any_byte_that_is_changed_is_noticed(bundle: Path, tmp_path: Path) -> None:
    whole, chance, changed = bundle.read_bytes(), random.Random(SEED), tmp_path / "changed"
    places = {*chance.sample(range(len(whole)), FLIPS), 0, len(whole) - 1}
    for place in places:
        other = chance.choice([byte for byte in range(256) if byte != whole[place]])
        changed.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        assert not _holds(changed), f"byte {place}: {whole[place]} → {other}"
    for place in chance.sample(range(len(whole)), 100):
        changed.write_bytes(whole[:place])
        assert not _holds(changed), f"cut off at {place}"


def _holds(path: Path) -> bool:
    try:
        return verify_bundle(path).whole
    except UnreadableError:
        return False


Lines = list[dict[str, Any]]


def _rewritten(bundle: Path, change: Callable[[Lines], object]) -> Path:
    """The bundle after a change, with the checksum that belongs to it."""
    lines: Lines = [json.loads(line) for line in bundle.read_text().splitlines()][:-1]
    change(lines)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    end = {"end": {"lines": len(lines), "sha256": hashlib.sha256(text).hexdigest()}}
    path = bundle.with_name("rewritten")
    path.write_bytes(text + json.dumps(end).encode() + b"\n")
    return path


def _these(lines: Lines, name: str) -> Lines:
    return [line[name] for line in lines if name in line]


def _swap_entries(lines: Lines) -> None:
    first = next(n for n, line in enumerate(lines) if "entry" in line)
    lines[first + 3], lines[first + 4] = lines[first + 4], lines[first + 3]


def _shorten(lines: Lines) -> None:
    lines.remove([line for line in lines if "entry" in line][-1])


def _forge(lines: Lines) -> None:
    before = GENESIS
    for entry in _these(lines, "entry"):
        place = ["default", "p-1", entry["seq"], entry["attempt"], entry["kind"], entry["actor"], entry["at"] + 1]
        head = json.dumps(place, ensure_ascii=False, separators=(",", ":"))[:-1]
        digest = hashlib.sha256(f'{head},{entry["body"]},"{before}"]'.encode()).hexdigest()
        entry |= {"at": entry["at"] + 1, "prev_hash": before, "hash": digest}
        before = digest
    _these(lines, "head")[0]["hash"] = before


def _without(name: str) -> Callable[[Lines], object]:
    return lambda lines: lines.remove({name: _these(lines, name)[0]})


CHANGES: dict[str, tuple[Callable[[Lines], object], What, int | None]] = {
    "a word": (lambda lines: _these(lines, "entry")[4].update(body="{}"), What.CHANGED, 5),
    "who": (lambda lines: _these(lines, "entry")[4].update(actor="beta-1"), What.CHANGED, 5),
    "an entry less": (lambda lines: lines.remove({"entry": _these(lines, "entry")[6]}), What.MISSING, 7),
    "the last one less": (_shorten, What.TRUNCATED, 12),
    "the order": (_swap_entries, What.OUT_OF_ORDER, 4),
    "the whole chain": (_forge, What.REPLACED, 1),
    "whose it is": (lambda lines: lines[0].update(pipeline_id="p-2"), What.CHANGED, 1),
    "the head": (lambda lines: _these(lines, "head")[0].update(hash="0" * 64), What.HEAD_CHANGED, 11),
    "an anchor": (lambda lines: _these(lines, "anchor")[0].update(at=1), What.ANCHOR_CHANGED, None),
    "a signature": (
        lambda lines: _these(lines, "anchor")[0].update(signature=_these(lines, "anchor")[1]["signature"]),
        What.ANCHOR_FORGED,
        None,
    ),
    "a checkpoint": (lambda lines: _these(lines, "checkpoint")[0].update(name="x"), What.BUNDLE_CHANGED, None),
    "no checkpoint": (_without("checkpoint"), What.BUNDLE_CHANGED, None),
    "the report": (lambda lines: _these(lines, "report")[0].update(markdown="x"), What.BUNDLE_CHANGED, None),
    "no report": (_without("report"), What.BUNDLE_CHANGED, None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_with_its_checksum_is_noticed_too(bundle: Path, name: str) -> None:
    change, what, seq = CHANGES[name]
    problem = verify_bundle(_rewritten(bundle, change)).problems[0]
    assert (problem.what, problem.seq) == (what, seq), problem


def test_the_same_bundle_written_otherwise_is_still_whole(bundle: Path) -> None:
    assert verify_bundle(_rewritten(bundle, lambda _: None)).whole


def _other_key(lines: Lines) -> None:
    _these(lines, "key")[0]["public_key"] = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[0].update(version=2), "version 2"),
        (lambda lines: lines[0].update(format="other"), "is no bundle"),
        (lambda lines: lines.append({"more": {}}), "no bundle has"),
        (lambda lines: lines.insert(1, lines[-1]), "does not belong"),
        (lambda lines: _these(lines, "entry")[0].update(more=1), "another shape"),
        (lambda lines: _these(lines, "entry")[0].update(seq="1"), "another shape"),
        (_other_key, "not what its id says"),
        (lambda lines: lines.clear(), "is no bundle"),
    ],
)
def test_what_is_no_bundle_is_told_with_its_line(bundle: Path, change: Callable[[Lines], object], said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        verify_bundle(_rewritten(bundle, change))


_DEEP, _LONG = b"{" * 100_000 + b"\n", b"1" * 9999 + b"\n"


@pytest.mark.parametrize("garbage", [b"", b"\n", b"\xff\xfe\n", b"[]\n", b"{}\n", _DEEP, _LONG, bytes(4096)])
def test_garbage_is_told(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(garbage)
    with pytest.raises(UnreadableError, match="garbage"):
        verify_bundle(path)


_ALONE = r"""
import re, sys
from pathlib import Path
from trilogue.proof.bundle import verify_bundle
verdict = verify_bundle(Path(sys.argv[1]))
assert verdict.whole, verdict.problems[:1]
ours = sorted(name for name in sys.modules if name.startswith("trilogue") and not name.startswith("trilogue.proof"))
[most] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
others = {"sqlalchemy", "pydantic", "httpx", "prefect", "redis"} & set(sys.modules)
print(verdict.entries, ours, others, int(most) // 1024)
"""


def test_a_bundle_is_checked_without_anything_else_of_ours(bundle: Path) -> None:
    assert _checked_alone(bundle).startswith("12 ['trilogue'] set() ")


def _checked_alone(path: Path) -> str:
    command = [sys.executable, "-c", _ALONE, str(path)]
    return subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout


async def test_ten_thousand_entries_are_exported_and_checked_in_seconds_and_little_memory(
    migrated_sqlite_url: str, key: KeyInHand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
    fence = await record(ledger, "p-1", 1, end=False)
    talk = [Draft(kind=Kind.MESSAGE, actor="alpha-1", body={"content": f"word {n} " * 400}) for n in range(500)]
    for _ in range(20):
        await ledger.append(fence, talk, at=now())
    await Keeper(Office(ledger, tmp_path), key).anchor()
    began = time.perf_counter()
    with (tmp_path / "bundle").open("wb") as file:
        assert await ledger.proof.export("default", "p-1", file) == 10_002
    exported = time.perf_counter()
    await ledger.close()
    alone = await asyncio.to_thread(_checked_alone, tmp_path / "bundle")
    took = time.perf_counter() - exported
    megabytes = int(alone.split()[-1])
    size = (tmp_path / "bundle").stat().st_size / 1e6
    with capsys.disabled():
        sys.stdout.write(
            f"\n10,002 entries, {size:.0f} MB: exported in {exported - began:.2f} s, checked in {took:.2f} s,"
            f" {megabytes} MB of memory\n"
        )
    assert megabytes < 100


def test_public_keys_go_through_pem(key: KeyInHand, tmp_path: Path) -> None:
    other = KeyInHand()
    text = f"two keys\n{pem_of(key.public)}{pem_of(other.public)}"
    assert read_keys(text, "it") == {key_id_of(one.public): one.public for one in (key, other)}
    for bad in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", pem_of(key.public)[:60]):
        with pytest.raises(UnreadableError):
            read_keys(bad, "it")
    path = tmp_path / "key.pem"
    path.write_text(pem_of(key.public))
    shown = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(path), "-noout", "-text"], check=True, timeout=20, capture_output=True
    )
    assert b"ED25519" in shown.stdout
