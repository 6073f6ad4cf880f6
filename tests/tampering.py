"""What somebody with the database's password can do to a ledger: raw SQL past the triggers, chains of their own."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import create_engine, text

from trilogue.clock import now
from trilogue.entry import GENESIS, Draft, Kind
from trilogue.ledger import Fence, Ledger
from trilogue.ledger.anchors import Signed
from trilogue.ledger.engine import parse_url
from trilogue.proof.anchors import anchor_hash, key_id_of, signed_text
from trilogue.settings import Settings, load_settings

Row = dict[str, Any]


class Office:
    """What anchoring needs, with a home of its own."""

    def __init__(self, ledger: Ledger, home: Path, **settings: Any) -> None:
        self.ledger = ledger
        self.settings: Settings = load_settings(home=home, **settings)


class KeyInHand:
    """A signer whose key the test has."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = self.private.public_key().public_bytes_raw()
        self.signed = 0

    async def sign(self, message: bytes) -> Signed:
        self.signed += 1
        return Signed(public_key=self.public, signature=self.private.sign(message), origin="test")


async def record(
    ledger: Ledger, pipeline_id: str, words: int = 8, *, tenant: str = "default", end: bool = True
) -> Fence:
    """A pipeline of two entries more than `words` (one, where it has not ended)."""
    spawned = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree on ünïcode 𝒙"})
    await ledger.spawn(tenant, pipeline_id, [spawned], at=now())
    claim = await ledger.claim(tenant, pipeline_id, owner="w", lease_seconds=60, flow_run_id=None)
    await say(ledger, claim.fence, words)
    if end:
        failed = {"status": "FAILED", "error": {"code": "c", "message": "m"}}
        await ledger.append(claim.fence, [Draft(kind=Kind.STATUS, body=failed)], at=now())
    return claim.fence


async def say(ledger: Ledger, fence: Fence, words: int) -> None:
    talk = [Draft(kind=Kind.MESSAGE, actor="alpha-1", body={"content": f"word {n}"}) for n in range(words)]
    await ledger.append(fence, talk, at=now())


def raw(url: str, *statements: str, **values: Any) -> list[Row]:
    """Do the statements in one transaction; the rows of the last one, where it has some."""
    engine = create_engine(parse_url(url))
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.execute(text(statement), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []
    finally:
        engine.dispose()


def unguarded(url: str, *tables: str) -> None:
    """Drop the triggers that refuse changes."""
    for table in tables or ("entries", "anchors", "anchor_keys"):
        if url.startswith("sqlite"):
            raw(url, *(f"DROP TRIGGER {table}_refuse_{change}" for change in ("update", "delete", "replace")))
        else:
            raw(url, f"DROP TRIGGER {table}_refuse_change ON {table}")


def entries_of(url: str, pipeline_id: str) -> list[Row]:
    return raw(url, "SELECT * FROM entries WHERE pipeline_id = :p ORDER BY seq", p=pipeline_id)


def resealed(row: Row, seq: int, prev_hash: str, **changes: Any) -> Row:
    """An entry that is whole in itself at a place of the forger's choice."""
    made = row | changes | {"seq": seq, "prev_hash": prev_hash}
    place = [made[name] for name in ("tenant", "pipeline_id", "seq", "attempt", "kind", "actor", "at")]
    head = json.dumps(place, ensure_ascii=False, separators=(",", ":"))[:-1]
    return made | {"hash": hashlib.sha256(f'{head},{made["body"]},"{prev_hash}"]'.encode()).hexdigest()}


def insert(url: str, row: Row, table: str = "entries") -> None:
    raw(url, f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})", **row)


def shift(url: str, pipeline_id: str, first: int, by: int) -> None:
    """Renumber the entries from `first` on."""
    these = f"pipeline_id = '{pipeline_id}'"
    raw(
        url,
        f"UPDATE entries SET seq = -seq WHERE {these} AND seq >= {first}",
        f"UPDATE entries SET seq = {by} - seq WHERE {these} AND seq < 0",
    )


def forge(url: str, pipeline_id: str, change: Callable[[Row], Row]) -> None:
    """Put a chain of the forger's own, whole in itself, in the place of a pipeline's, with its head."""
    rows, before = [], GENESIS
    for row in entries_of(url, pipeline_id):
        changed = change(row)
        rows.append(resealed(changed, changed["seq"], before))
        before = rows[-1]["hash"]
    raw(url, "DELETE FROM entries WHERE pipeline_id = :p", p=pipeline_id)
    for row in rows:
        insert(url, row)
    raw(url, "UPDATE pipelines SET head_hash = :h WHERE id = :p", h=before, p=pipeline_id)


def forge_anchors(url: str, key: KeyInHand) -> None:
    """Make all anchors of tenant `default` anew, from the heads as they are now, signed by the forger."""
    heads = {row["id"]: row for row in raw(url, "SELECT id, head_seq, head_hash FROM pipelines")}
    rows = raw(url, "SELECT * FROM anchors WHERE tenant = 'default' ORDER BY seq")
    before = GENESIS
    raw(url, "DELETE FROM anchors WHERE tenant = 'default'")
    raw(url, "DELETE FROM anchor_keys WHERE tenant = 'default'")
    public = base64.b64encode(key.public).decode()
    insert(
        url,
        {"tenant": "default", "key_id": key_id_of(key.public), "public_key": public, "origin": "file", "at": 1},
        "anchor_keys",
    )
    for row in rows:
        body = json.loads(row["body"])
        for head in body["heads"]:
            head["hash"] = heads[head["pipeline_id"]]["head_hash"]
        words = json.dumps(body, separators=(",", ":"), sort_keys=True)
        digest = anchor_hash(row["tenant"], row["seq"], row["at"], words, before)
        signature = base64.b64encode(key.private.sign(signed_text(digest))).decode()
        made = {"body": words, "prev_hash": before, "hash": digest, "signature": signature}
        insert(url, row | made | {"key_id": key_id_of(key.public)}, "anchors")
        before = digest
    raw(url, "UPDATE anchor_chains SET hash = :h WHERE tenant = 'default'", h=before)
