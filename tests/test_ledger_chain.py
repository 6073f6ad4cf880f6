"""What is recorded stays as it was recorded, and a change would show."""

import asyncio
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from trilogue.entry import GENESIS, Draft, Entry, Kind
from trilogue.errors import Invalid, NotFound
from trilogue.ledger import Ledger, canonical, verify
from trilogue.ledger.chain import Prepared, prepare, seal
from trilogue.ledger.engine import parse_url

SPAWNED = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree on ünïcode 𝒙 \\u0000", "timeout": 1e20})
TALK = [Draft(kind=Kind.MESSAGE, actor="alpha-1", body={"content": f"word {n}", "weight": n / 3}) for n in range(9)]


def _raw(url: str, *statements: str) -> None:
    engine = create_engine(parse_url(url))
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    finally:
        engine.dispose()


def _without_triggers(url: str) -> list[str]:
    if url.startswith("sqlite"):
        return [f"DROP TRIGGER entries_refuse_{change}" for change in ("update", "delete", "replace")]
    return ["DROP TRIGGER entries_refuse_change ON entries"]


@pytest.mark.parametrize(
    ("tampering", "broken"),
    [
        ('UPDATE entries SET body = \'{"content":"other"}\' WHERE seq = 4', 4),
        ("UPDATE entries SET actor = 'beta-1' WHERE seq = 5", 5),
        ("UPDATE entries SET at = at + 1 WHERE seq = 1", 1),
        ("DELETE FROM entries WHERE seq = 6", 6),
        ("DELETE FROM entries WHERE seq = 1", 1),
        ("UPDATE entries SET tenant = 'other', pipeline_id = 'p-other' WHERE seq < 3", 1),
    ],
)
async def test_tampering_shows_at_the_first_entry_that_it_touches(
    ledger: Ledger, ledger_url: str, tampering: str, broken: int
) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED, *TALK], at=1_700_000_000_000_000)
    assert verify(await ledger.entries("default", "p-1")) is None
    await asyncio.to_thread(_raw, ledger_url, *_without_triggers(ledger_url), tampering)
    assert verify(await ledger.entries("default", "p-1")) == broken


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 1",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 1",
        "INSERT INTO entries SELECT * FROM entries ON CONFLICT (tenant, pipeline_id, seq) DO UPDATE SET body = '{}'",
    ],
)
async def test_the_database_itself_refuses_to_change_an_entry(ledger: Ledger, ledger_url: str, change: str) -> None:
    await ledger.spawn("default", "p-1", [SPAWNED, *TALK], at=7)
    before = await ledger.entries("default", "p-1")
    on_sqlite = ledger_url.startswith("sqlite")
    if ("TRUNCATE" in change and on_sqlite) or ("REPLACE" in change and not on_sqlite):
        pytest.skip("no such statement there")
    with pytest.raises(DBAPIError, match=r"immutable|syntax"):
        await asyncio.to_thread(_raw, ledger_url, change)
    assert await ledger.entries("default", "p-1") == before


async def test_hashes_are_the_same_on_both_databases(migrated_sqlite_url: str, migrated_postgres_url: str) -> None:
    chains = []
    for url in (migrated_sqlite_url, migrated_postgres_url):
        ledger = await Ledger.open(url, migrate=False)
        await ledger.spawn("default", "p-1", [SPAWNED], at=1_700_000_000_000_000)
        claim = await ledger.claim("default", "p-1", owner="w", lease_seconds=9, flow_run_id=None)
        returned = await ledger.append(claim.fence, TALK, at=1_700_000_000_000_001)
        read = await ledger.entries("default", "p-1")
        assert read[1:] == returned
        chains.append(read)
        await ledger.close()
    assert chains[0] == chains[1]
    # The format is a promise to whoever verifies a ledger in another language.
    assert chains[0][0].hash == "8970ec338f93c94fcad83a7d5d9913f0a76cecaf0ae810a7b947fe070c7b8f05"


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "ä", "𝒙", "\ufb33"]), _json), min_size=1, max_size=4))
def test_what_is_read_back_equals_what_was_written_and_verifies(bodies: list[dict[str, object]]) -> None:
    prepared = [prepare(Draft(kind=Kind.MESSAGE, body=body)) for body in bodies]
    assert [draft.body for draft in prepared] == bodies
    entries = _seal(prepared)
    assert verify(entries) is None
    assert [canonical(dict(entry.body), what="it") for entry in entries] == [draft.text for draft in prepared]


def test_entries_in_another_order_do_not_verify() -> None:
    entries = _seal([prepare(draft) for draft in TALK])
    shuffled = random.Random(1).sample(entries, len(entries))
    first_moved = next(n for n, (a, b) in enumerate(zip(entries, shuffled, strict=True), start=1) if a != b)
    assert verify(shuffled) == first_moved
    renumbered = [replace(entry, seq=n) for n, entry in enumerate(shuffled, start=1)]
    assert verify(renumbered) == first_moved
    assert verify([]) is None


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), "a\0b", "\\\0", "\ud800", {"\ud800": 1}, {1: "one"}, {"k\0": 1}, {1}, b"x"],
)
async def test_what_json_or_a_database_cannot_hold_is_refused_before_anything_is_written(
    migrated_sqlite_url: str, value: object
) -> None:
    ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
    try:
        with pytest.raises(Invalid, match="'message'"):
            await ledger.spawn("default", "p-1", [SPAWNED, Draft(kind=Kind.MESSAGE, body={"deep": [value]})], at=1)
        assert (await ledger.list_pipelines("default")).items == []
    finally:
        await ledger.close()


async def test_an_id_that_a_database_cannot_hold_is_refused_by_every_query(ledger: Ledger) -> None:
    for bad in ("p-\0", "p-\ud800"):
        with pytest.raises(Invalid):
            await ledger.spawn("default", bad, [SPAWNED], at=1)
    with pytest.raises(Invalid):
        await ledger.get_pipeline("default", "p-\ud800")
    with pytest.raises((Invalid, NotFound)):
        await ledger.get_pipeline("default", "p-\0")


def _seal(prepared: list[Prepared]) -> list[Entry]:
    return seal(prepared, tenant="default", pipeline_id="p-1", attempt=1, at=5, after=0, prev_hash=GENESIS)
