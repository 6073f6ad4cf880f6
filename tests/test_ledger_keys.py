"""API keys: what opens something and what does not any more, and a last use that costs the request nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import create_engine, event, text

from trilogue import clock
from trilogue.clock import SECOND, Micros
from trilogue.errors import Conflict, Invalid, NotFound, TrilogueError, Unauthenticated
from trilogue.identity import Access, ApiKey, Caller, new_key
from trilogue.ledger import Ledger
from trilogue.ledger.engine import parse_url
from trilogue.ledger.identities import By, Issued, KeyState

BY = By(actor="local")
Make = Callable[..., Awaitable[Issued]]


@pytest.fixture
async def make(ledger: Ledger) -> Make:
    """Makes a key of tenant `acme`."""
    await ledger.tenants.create("acme", by=BY)

    async def made(access: Access = Access.OPERATOR, **more: object) -> Issued:
        return await ledger.keys.create("acme", "ci", access=access, by=BY, **more)  # type: ignore[arg-type]

    return made


async def refused(ledger: Ledger, key: ApiKey | str) -> str:
    with pytest.raises(Unauthenticated) as error:
        await ledger.keys.authenticate(key if isinstance(key, str) else key.text)
    return error.value.code


async def in_time(condition: Callable[[], Awaitable[bool]]) -> None:
    until = time.monotonic() + 5
    while not await condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


async def test_a_key_opens_what_it_was_made_for_and_nothing_else_does(ledger: Ledger, make: Make) -> None:
    await ledger.projects.create("acme", "web", by=BY)
    issued = await make(Access.VIEWER, project="web")
    caller = await ledger.keys.authenticate(issued.key.text)
    assert caller == Caller(tenant="acme", access=Access.VIEWER, key_id=issued.key.id, project="web")
    assert not caller.installation
    assert await refused(ledger, issued.key.text[:-1]) == "truncated_key"
    assert await refused(ledger, new_key()) == "unknown_key"
    assert await refused(ledger, "hush") == "malformed_key"
    assert await ledger.keys.find(new_key()) is None


async def test_the_database_has_no_key_only_its_hash(ledger: Ledger, ledger_url: str, make: Make) -> None:
    issued = await make()
    engine = create_engine(parse_url(ledger_url))
    with engine.connect() as connection:
        rows = [*connection.execute(text("SELECT * FROM api_keys")), *connection.execute(text("SELECT * FROM audit"))]
    engine.dispose()
    assert issued.key.hash in str(rows)
    assert issued.key.text.split("_")[2] not in str(rows)


async def test_an_expired_a_revoked_and_a_suspended_tenants_key_open_nothing(ledger: Ledger, make: Make) -> None:
    short = await make(expires_at=clock.now() + SECOND // 4)
    revoked, kept = await make(), await make()
    await ledger.keys.revoke("acme", revoked.key.id, by=BY, reason="left in a log")
    again = await ledger.keys.revoke("acme", revoked.key.id, by=BY)
    assert again.state is KeyState.REVOKED
    assert await refused(ledger, revoked.key) == "revoked_key"

    async def expired() -> bool:
        return (await ledger.keys.get("acme", short.key.id)).state is KeyState.EXPIRED

    await in_time(expired)
    assert await refused(ledger, short.key) == "expired_key"
    assert [row.key_id for row in (await ledger.keys.list("acme")).items] == [kept.key.id]
    assert len((await ledger.keys.list("acme", gone=True)).items) == 3
    await ledger.tenants.suspend("acme", by=BY)
    assert await refused(ledger, kept.key) == "tenant_suspended"
    await ledger.tenants.activate("acme", by=BY)
    assert (await ledger.keys.authenticate(kept.key.text)).key_id == kept.key.id


async def test_a_rotated_key_is_good_beside_its_successor_for_the_grace_only(ledger: Ledger, make: Make) -> None:
    old = await make(expires_at=clock.now() + 90 * 86_400 * SECOND)
    new = await ledger.keys.rotate("acme", old.key.id, by=BY, grace=SECOND // 2)
    for key in (old.key, new.key):
        assert (await ledger.keys.authenticate(key.text)).key_id == key.id
    assert new.row.expires_at is not None
    assert abs(new.row.expires_at - new.row.created_at - 90 * 86_400 * SECOND) < 5 * SECOND
    assert (new.row.name, new.row.access, new.row.project) == ("ci", Access.OPERATOR, None)
    assert (await ledger.keys.get("acme", old.key.id)).replaced_by == new.key.id

    async def over() -> bool:
        return (await ledger.keys.get("acme", old.key.id)).state is KeyState.EXPIRED

    await in_time(over)
    assert await refused(ledger, old.key) == "expired_key"
    last = await ledger.keys.rotate("acme", new.key.id, by=BY, grace=0)
    assert await refused(ledger, new.key) == "revoked_key"
    assert (await ledger.keys.authenticate(last.key.text)).tenant == "acme"


async def test_a_grace_never_prolongs_a_key(ledger: Ledger, make: Make) -> None:
    until = clock.now() + 3_600 * SECOND
    old = await make(expires_at=until)
    await ledger.keys.rotate("acme", old.key.id, by=BY)
    assert (await ledger.keys.get("acme", old.key.id)).expires_at == until


async def test_what_is_not_good_or_replaced_already_is_not_rotated(ledger: Ledger, make: Make) -> None:
    first, second = await make(), await make()
    outcomes = await asyncio.gather(
        *(ledger.keys.rotate("acme", first.key.id, by=BY) for _ in range(5)), return_exceptions=True
    )
    codes = [error.code for error in outcomes if isinstance(error, TrilogueError)]
    assert codes == ["key_replaced"] * 4
    await ledger.keys.revoke("acme", second.key.id, by=BY)
    with pytest.raises(Conflict, match="is revoked"):
        await ledger.keys.rotate("acme", second.key.id, by=BY)
    with pytest.raises(NotFound):
        await ledger.keys.rotate("default", first.key.id, by=BY)
    with pytest.raises(Invalid, match="0 to 30 days"):
        await ledger.keys.rotate("acme", first.key.id, by=BY, grace=31 * 86_400 * SECOND)


async def test_a_key_expires_ahead_and_within_ten_years(ledger: Ledger, make: Make) -> None:
    old = await make()
    for expires_in in (-SECOND, 0, 4_000 * 86_400 * SECOND, 10**17):
        expires_at: Micros = clock.now() + expires_in
        with pytest.raises(Invalid, match="at most ten years"):
            await make(expires_at=expires_at)
        with pytest.raises(Invalid, match="at most ten years"):
            await ledger.keys.rotate("acme", old.key.id, by=BY, expires_at=expires_at)
    assert len((await ledger.keys.list("acme", gone=True)).items) == 1


async def test_keys_are_made_for_what_is_there_and_an_admin_has_all_of_a_tenant(ledger: Ledger, make: Make) -> None:
    with pytest.raises(NotFound, match="no tenant 'nobody-knows'"):
        await ledger.keys.create("nobody-knows", "ci", access=Access.VIEWER, by=BY)
    with pytest.raises(NotFound, match="no project 'web'"):
        await make(project="web")
    with pytest.raises(Invalid, match="whole tenant"):
        await make(Access.ADMIN, project="default")
    with pytest.raises(Invalid, match="name: "):
        await ledger.keys.create("acme", "\x1b[2J", access=Access.VIEWER, by=BY)


async def test_another_tenants_key_is_not_there(ledger: Ledger, make: Make) -> None:
    issued = await make()
    for ask in (ledger.keys.get("default", issued.key.id), ledger.keys.revoke("default", issued.key.id, by=BY)):
        with pytest.raises(NotFound, match="has no key"):
            await ask
    assert (await ledger.keys.list("default", gone=True)).items == []
    assert (await ledger.keys.authenticate(issued.key.text)).tenant == "acme"


async def test_a_page_of_keys_leads_to_the_next(ledger: Ledger, make: Make) -> None:
    made = [(await make()).key.id for _ in range(7)]
    seen, cursor = list[str](), None
    while True:
        page = await ledger.keys.list("acme", limit=3, cursor=cursor)
        seen += [row.key_id for row in page.items]
        if (cursor := page.next) is None:
            break
    assert sorted(seen) == sorted(made)
    for bad in ("x", "1.", ".", "1.a b", "9" * 30 + ".a"):
        with pytest.raises(Invalid, match="no cursor"):
            await ledger.keys.list("acme", cursor=bad)


async def test_finding_a_key_is_one_statement_by_an_index(ledger: Ledger, ledger_url: str, make: Make) -> None:
    issued, said = await make(), list[str]()
    event.listen(ledger._reading, "before_cursor_execute", lambda _c, _k, statement, *_: said.append(statement))
    await ledger.keys.authenticate(issued.key.text)
    [statement] = said
    if ledger_url.startswith("sqlite"):
        engine = create_engine(parse_url(ledger_url))
        with engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (issued.key.hash,)).all()
        engine.dispose()
        assert "api_keys_hash" in str(plan)
        assert "SCAN" not in str(plan)


async def test_the_last_use_is_written_in_batches_and_at_most_once_a_minute(ledger: Ledger, make: Make) -> None:
    keys = [(await make()).key for _ in range(5)]
    written = list[str]()

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        if "last_used_at=" in statement:
            written.append(statement)

    event.listen(ledger._writing, "before_cursor_execute", note)
    for _ in range(3):
        for key in keys:
            await ledger.keys.authenticate(key.text)
    assert written == [], "no request writes"
    await ledger.keys.uses.write()
    assert len(written) == 1, "all keys together"
    used = {row.key_id: row.last_used_at for row in (await ledger.keys.list("acme")).items}
    assert all(used[key.id] for key in keys)
    for key in keys:
        await ledger.keys.authenticate(key.text)
    await ledger.keys.uses.write()
    assert len(written) == 1, "not again within a minute"
    assert used == {row.key_id: row.last_used_at for row in (await ledger.keys.list("acme")).items}


async def test_the_last_use_is_written_by_itself_and_when_the_ledger_is_closed(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await Ledger.open(ledger_url, migrate=False)
    issued = await first.keys.create("default", "ci", access=Access.VIEWER, by=BY)
    await first.keys.authenticate(issued.key.text)
    await first.close()
    monkeypatch.setattr("trilogue.ledger.uses._BATCH_SECONDS", 0.01)
    second = await Ledger.open(ledger_url, migrate=False)
    assert (await second.keys.get("default", issued.key.id)).last_used_at is not None
    other = await second.keys.create("default", "cd", access=Access.VIEWER, by=BY)
    await second.keys.authenticate(other.key.text)

    async def used() -> bool:
        return (await second.keys.get("default", other.key.id)).last_used_at is not None

    await in_time(used)
    await second.close()
