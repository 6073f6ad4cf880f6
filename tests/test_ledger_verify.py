"""Whoever changes the record, past the triggers, is found out: the first entry that is not what it was is named."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.tampering import (
    KeyInHand,
    Office,
    entries_of,
    forge,
    forge_anchors,
    insert,
    raw,
    record,
    resealed,
    say,
    shift,
    unguarded,
)
from trilogue.anchoring.keeping import Keeper
from trilogue.errors import NotFound
from trilogue.ledger import Ledger
from trilogue.ledger.verifying import Verdict
from trilogue.proof.anchors import Anchor, key_id_of
from trilogue.proof.chain import Chain
from trilogue.proof.problems import What

THE_ONE = "tenant = 'default' AND pipeline_id = 'p-2'"


@pytest.fixture
def key() -> KeyInHand:
    return KeyInHand()


@pytest.fixture
async def recorded(ledger: Ledger, key: KeyInHand, tmp_path: Path) -> Ledger:
    """Three pipelines of ten entries, of which the first two are anchored twice, and one of another tenant."""
    keeper = Keeper(Office(ledger, tmp_path), key)
    await record(ledger, "p-1")
    await record(ledger, "p-2", tenant="other")
    assert await keeper.anchor() == 2
    await record(ledger, "p-2")
    assert await keeper.anchor() == 1
    await record(ledger, "p-3")
    return ledger


async def _first(ledger: Ledger, **asked: object) -> tuple[What, str | None, int | None]:
    verdict: Verdict = await ledger.proof.verify(**asked)  # type: ignore[arg-type]
    assert not verdict.whole
    problem = verdict.problems[0]
    return problem.what, problem.pipeline_id, problem.seq


async def _outside(ledger: Ledger, key: KeyInHand) -> list[tuple[Anchor, bytes]]:
    return [(anchor, key.public) for tenant in ("default", "other") for anchor in await ledger.proof.anchors(tenant)]


async def test_a_record_that_nobody_touched_is_whole_and_what_is_anchored_is_counted(
    recorded: Ledger, key: KeyInHand
) -> None:
    seen: list[int] = []
    verdict = await recorded.proof.verify(progress=seen.append)
    assert verdict.whole, verdict.problems
    assert (verdict.pipelines, verdict.entries, verdict.anchors, verdict.anchored) == (4, 40, 3, 30)
    assert {tenant: seq for tenant, (seq, _) in verdict.last_anchor.items()} == {"default": 2, "other": 1}
    assert seen[-1] == 40
    outside = await _outside(recorded, key)
    trusted = await recorded.proof.verify(keys={key_id_of(key.public): key.public}, outside=outside[:1])
    assert trusted.whole
    assert (trusted.outside, trusted.trusted) == (10, True)
    one = await recorded.proof.verify(tenant="default", pipeline_id="p-2")
    assert (one.whole, one.pipelines, one.entries, one.anchored) == (True, 1, 10, 10)
    with pytest.raises(NotFound):
        await recorded.proof.verify(tenant="default", pipeline_id="p-9")


def _swap(url: str) -> None:
    shift(url, "p-2", 4, 100)
    raw(url, f"UPDATE entries SET seq = 5 WHERE {THE_ONE} AND seq = 104")
    raw(url, f"UPDATE entries SET seq = 4 WHERE {THE_ONE} AND seq = 105")
    shift(url, "p-2", 106, -100)


def _delete_and_close_the_gap(url: str) -> None:
    raw(url, f"DELETE FROM entries WHERE {THE_ONE} AND seq = 6")
    raw(url, f"UPDATE entries SET seq = -seq WHERE {THE_ONE} AND seq > 6")
    raw(url, f"UPDATE entries SET seq = -seq - 1 WHERE {THE_ONE} AND seq < 0")


def _row(url: str, seq: int) -> dict[str, object]:
    return next(row for row in entries_of(url, "p-2") if (row["tenant"], row["seq"]) == ("default", seq))


def _insert_garbage(url: str) -> None:
    row = _row(url, 3)
    shift_one(url, 4)
    insert(url, row | {"seq": 4, "body": '{"content":"never said"}', "prev_hash": row["hash"]})


def _insert_what_follows(url: str) -> None:
    before = _row(url, 3)
    shift_one(url, 4)
    insert(url, resealed(before, 4, str(before["hash"]), body='{"content":"never said"}'))


def _insert_a_copy(url: str) -> None:
    row = _row(url, 3)
    shift_one(url, 4)
    insert(url, row | {"seq": 4})


def shift_one(url: str, first: int) -> None:
    raw(url, f"UPDATE entries SET seq = -seq WHERE {THE_ONE} AND seq >= {first}")
    raw(url, f"UPDATE entries SET seq = 1 - seq WHERE {THE_ONE} AND seq < 0")


def _beyond_the_head(url: str) -> None:
    last = _row(url, 10)
    insert(url, resealed(last, 11, str(last["hash"])))


def _truncate(url: str, seq: int, *, with_head: bool) -> None:
    raw(url, f"DELETE FROM entries WHERE {THE_ONE} AND seq > {seq}")
    if with_head:
        digest = _row(url, seq)["hash"]
        raw(
            url,
            f"UPDATE pipelines SET head_seq = {seq}, head_hash = '{digest}' WHERE tenant = 'default' AND id = 'p-2'",
        )


def _delete_it_all(url: str) -> None:
    raw(url, f"DELETE FROM entries WHERE {THE_ONE}", "DELETE FROM pipelines WHERE tenant = 'default' AND id = 'p-2'")


def _set(change: str, seq: int) -> Callable[[str], object]:
    return lambda url: raw(url, f"UPDATE entries SET {change} WHERE {THE_ONE} AND seq = {seq}")


TAMPERINGS: dict[str, tuple[Callable[[str], object], What, int]] = {
    "body": (_set("body = '{}'", 4), What.CHANGED, 4),
    "one space": (_set("body = body || ' '", 4), What.CHANGED, 4),
    "time": (_set("at = at + 1", 10), What.CHANGED, 10),
    "first": (_set("actor = 'person'", 1), What.CHANGED, 1),
    "hash": (_set("hash = 'x'", 2), What.CHANGED, 2),
    "delete": (lambda url: raw(url, f"DELETE FROM entries WHERE {THE_ONE} AND seq = 6"), What.MISSING, 6),
    "delete the first": (lambda url: raw(url, f"DELETE FROM entries WHERE {THE_ONE} AND seq = 1"), What.MISSING, 1),
    "delete, renumber": (_delete_and_close_the_gap, What.MISSING, 6),
    "reorder": (_swap, What.OUT_OF_ORDER, 4),
    "move to the end": (_set("seq = 99", 3), What.OUT_OF_ORDER, 3),
    "insert garbage": (_insert_garbage, What.INSERTED, 4),
    "insert what follows": (_insert_what_follows, What.INSERTED, 4),
    "insert a copy": (_insert_a_copy, What.INSERTED, 4),
    "insert before the first": (
        lambda url: insert(url, _row(url, 1) | {"seq": 0}),
        What.INSERTED,
        1,
    ),
    "append": (_beyond_the_head, What.INSERTED, 11),
    "truncate": (lambda url: _truncate(url, 8, with_head=False), What.TRUNCATED, 9),
    "truncate with head": (lambda url: _truncate(url, 8, with_head=True), What.TRUNCATED, 9),
    "delete all": (_delete_it_all, What.PIPELINE_MISSING, 1),
    "delete all entries": (lambda url: raw(url, f"DELETE FROM entries WHERE {THE_ONE}"), What.TRUNCATED, 1),
    "head": (
        lambda url: raw(url, "UPDATE pipelines SET head_hash = 'x' WHERE tenant = 'default' AND id = 'p-2'"),
        What.HEAD_CHANGED,
        11,
    ),
    "to another tenant": (
        lambda url: raw(url, f"UPDATE entries SET tenant = 'third' WHERE {THE_ONE}"),
        What.TRUNCATED,
        1,
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_named_with_the_first_entry_that_it_touches(
    recorded: Ledger, ledger_url: str, name: str
) -> None:
    tamper, what, seq = TAMPERINGS[name]
    await asyncio.to_thread(unguarded, ledger_url)
    await asyncio.to_thread(tamper, ledger_url)
    assert await _first(recorded) == (what, "p-2", seq)
    assert await _first(recorded, tenant="default", pipeline_id="p-2") == (what, "p-2", seq)
    assert (await recorded.proof.verify(tenant="default", pipeline_id="p-1")).whole


async def test_what_is_no_text_or_no_number_in_sqlite_is_a_change_like_any_other(
    migrated_sqlite_url: str, tmp_path: Path
) -> None:
    ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
    try:
        await record(ledger, "p-1")
        unguarded(migrated_sqlite_url, "entries")
        for change in (
            "body = CAST(x'ff' AS TEXT)",
            "actor = CAST(x'ff' AS TEXT)",
            "body = CAST(body AS BLOB)",
            "at = at + 0.5",
        ):
            [row] = [row for row in entries_of(migrated_sqlite_url, "p-1") if row["seq"] == 5]
            raw(migrated_sqlite_url, f"UPDATE entries SET {change} WHERE seq = 5")
            assert await _first(ledger) == (What.CHANGED, "p-1", 5), change
            raw(migrated_sqlite_url, "DELETE FROM entries WHERE seq = 5")
            insert(migrated_sqlite_url, row)
            assert (await ledger.proof.verify()).whole
    finally:
        await ledger.close()


async def test_a_chain_that_was_replaced_as_a_whole_is_caught_by_its_anchor(recorded: Ledger, ledger_url: str) -> None:
    def lie(row: dict[str, object]) -> dict[str, object]:
        return row | ({"body": '{"content":"a lie"}'} if row["seq"] == 5 else {})

    await asyncio.to_thread(unguarded, ledger_url)
    raw(ledger_url, "DELETE FROM entries WHERE tenant = 'other'", "DELETE FROM pipelines WHERE tenant = 'other'")
    await asyncio.to_thread(forge, ledger_url, "p-3", lie)
    assert (await recorded.proof.verify(tenant="default")).whole, "without an anchor nothing tells"
    await asyncio.to_thread(forge, ledger_url, "p-2", lie)
    assert await _first(recorded, tenant="default") == (What.REPLACED, "p-2", 1)


async def test_chains_and_anchors_replaced_together_are_caught_by_the_key_or_by_what_is_kept_outside(
    recorded: Ledger, ledger_url: str, key: KeyInHand
) -> None:
    outside = await _outside(recorded, key)
    trusted = {key_id_of(key.public): key.public}
    await asyncio.to_thread(unguarded, ledger_url)
    raw(ledger_url, "DELETE FROM entries WHERE tenant = 'other'", "DELETE FROM pipelines WHERE tenant = 'other'")
    await asyncio.to_thread(forge, ledger_url, "p-2", lambda row: row | {"at": row["at"] + 1})
    await asyncio.to_thread(forge_anchors, ledger_url, KeyInHand())
    assert (await recorded.proof.verify(tenant="default")).whole, "all of it is the forger's own"
    verdict = await recorded.proof.verify(tenant="default", keys=trusted)
    assert [problem.what for problem in verdict.problems] == [What.ANCHOR_UNTRUSTED]
    verdict = await recorded.proof.verify(tenant="default", outside=outside)
    found = {(problem.what, problem.pipeline_id, problem.seq, problem.anchor) for problem in verdict.problems}
    assert found == {(What.ANCHOR_REPLACED, None, None, 2), (What.REPLACED, "p-2", 1, 2)}
    # p-1 is as it was, but the anchors say so anew; the outside proves what it names.
    assert verdict.outside == 10


@pytest.mark.parametrize(
    ("tampering", "what", "anchor"),
    [
        ("UPDATE anchors SET body = replace(body, 'p-2', 'p-9') WHERE seq = 2", What.ANCHOR_CHANGED, 2),
        ("UPDATE anchors SET at = at + 1 WHERE seq = 1 AND tenant = 'default'", What.ANCHOR_CHANGED, 1),
        ("DELETE FROM anchors WHERE seq = 1 AND tenant = 'default'", What.ANCHOR_MISSING, 1),
        ("DELETE FROM anchors WHERE seq = 2", What.ANCHOR_TRUNCATED, 2),
        ("DELETE FROM anchors WHERE tenant = 'default'", What.ANCHOR_TRUNCATED, 1),
        ("UPDATE anchors SET prev_hash = hash WHERE seq = 2", What.ANCHOR_REPLACED, 2),
        ("UPDATE anchors SET signature = 'AAAA' WHERE seq = 2", What.ANCHOR_FORGED, 2),
        ("UPDATE anchors SET key_id = 'x' WHERE seq = 2", What.ANCHOR_UNTRUSTED, 2),
        ("DELETE FROM anchor_keys WHERE tenant = 'default'", What.ANCHOR_UNTRUSTED, 1),
        ("UPDATE anchor_keys SET public_key = 'AAAA'", What.ANCHOR_FORGED, 1),
    ],
)
async def test_an_anchor_that_was_tampered_with_is_named(
    recorded: Ledger, ledger_url: str, tampering: str, what: What, anchor: int
) -> None:
    await asyncio.to_thread(unguarded, ledger_url)
    await asyncio.to_thread(raw, ledger_url, tampering)
    verdict = await recorded.proof.verify(tenant="default")
    assert (verdict.problems[0].what, verdict.problems[0].anchor) == (what, anchor)


async def test_anchors_that_were_cut_off_with_everything_that_tells_of_them_are_missed_by_the_copy_outside(
    recorded: Ledger, ledger_url: str, key: KeyInHand
) -> None:
    outside = await _outside(recorded, key)
    first = outside[0][0]
    await asyncio.to_thread(unguarded, ledger_url)
    _delete_it_all(ledger_url)
    raw(
        ledger_url,
        "DELETE FROM anchors WHERE seq = 2",
        f"UPDATE anchor_chains SET seq = 1, hash = '{first.hash}' WHERE tenant = 'default'",
    )
    assert (await recorded.proof.verify(tenant="default")).whole
    verdict = await recorded.proof.verify(tenant="default", outside=outside)
    assert [(problem.what, problem.pipeline_id) for problem in verdict.problems] == [
        (What.ANCHOR_MISSING, None),
        (What.PIPELINE_MISSING, "p-2"),
    ]


async def test_the_database_itself_refuses_to_change_an_anchor(recorded: Ledger, ledger_url: str) -> None:
    for table in ("anchors", "anchor_keys"):
        for change in (f"UPDATE {table} SET key_id = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(Exception, match="immutable"):
                await asyncio.to_thread(raw, ledger_url, change)
    assert (await recorded.proof.verify()).whole


async def test_verifying_while_pipelines_are_carried_sees_one_moment(ledger: Ledger) -> None:
    fences = [await record(ledger, f"p-{n}", end=False) for n in range(4)]
    busy = [asyncio.create_task(_say_often(ledger, fence)) for fence in fences]
    while not all(task.done() for task in busy):
        verdict = await ledger.proof.verify()
        assert verdict.whole, verdict.problems
    assert (await ledger.proof.verify()).entries == 4 * (9 + 60)


async def _say_often(ledger: Ledger, fence: object) -> None:
    for _ in range(20):
        await say(ledger, fence, 3)  # type: ignore[arg-type]


async def test_a_user_of_postgresql_that_may_only_read_can_verify_and_export(
    migrated_postgres_url: str, tmp_path: Path
) -> None:
    owner = await Ledger.open(migrated_postgres_url, migrate=False)
    await record(owner, "p-1")
    await Keeper(Office(owner, tmp_path), KeyInHand()).anchor()
    await owner.close()
    name = f"auditor_{uuid.uuid4().hex}"
    with psycopg.connect(migrated_postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    try:
        ledger = await Ledger.open(migrated_postgres_url.replace("postgres:", f"{name}:p", 1), migrate=False)
        try:
            assert (await ledger.proof.verify()).anchored == 10
            with (tmp_path / "bundle").open("wb") as file:
                assert await ledger.proof.export("default", "p-1", file) == 10
            with pytest.raises(Exception, match="permission denied"):
                await say(ledger, (await ledger.get_pipeline("default", "p-1")).fence, 1)
        finally:
            await ledger.close()
    finally:
        with psycopg.connect(migrated_postgres_url, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


def test_hashes_are_those_that_the_ledger_makes_also_for_odd_texts() -> None:
    from trilogue.entry import GENESIS, Draft, Kind  # noqa: PLC0415
    from trilogue.ledger.chain import prepare, seal  # noqa: PLC0415

    odd = 'a"\\\b\f\n\r\t\x01\x1f\x7f\u2028ü𝒙/'
    drafts = [prepare(Draft(kind=Kind.MESSAGE, actor=odd, body={odd: [1e20, 0.1, -0.0, None, odd]})) for _ in range(3)]
    sealed = seal(drafts, tenant=odd, pipeline_id=odd, attempt=2, at=5, after=0, prev_hash=GENESIS)
    chain = Chain(odd, odd)
    chain.take(
        (entry.seq, entry.attempt, entry.kind.value, entry.actor, entry.at, draft.text, entry.prev_hash, entry.hash)
        for entry, draft in zip(sealed, drafts, strict=True)
    )
    assert (chain.length, chain.hash, chain.broken) == (3, sealed[-1].hash, None)
