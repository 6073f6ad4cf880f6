"""The audit has every deed once, with its outcome, in the order in which they were done; and nobody can change it."""

import asyncio

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from trilogue import clock
from trilogue.clock import SECOND
from trilogue.errors import Conflict, Invalid, Unavailable
from trilogue.identity import new_key
from trilogue.ledger import Ledger
from trilogue.ledger.engine import parse_url
from trilogue.ledger.identities import AuditRow, By, Deed, Outcome, Sought

BY = By(actor="k1", source="10.0.0.7")


def deed(action: str = "pipeline.stop", object_: str = "p-1", **more: object) -> Deed:
    return Deed(by=BY, action=action, object=object_, **more)  # type: ignore[arg-type]


async def test_a_line_tells_who_did_what_to_what_from_where_and_what_came_of_it(ledger: Ledger) -> None:
    began = clock.now()
    await ledger.audit.append("acme", deed(detail={"reason": "too dear"}))
    await ledger.audit.append("acme", deed(outcome=Outcome.REFUSED, code="illegal_transition"))
    await ledger.audit.append("other", deed())
    [second, first] = (await ledger.audit.list("acme")).items
    assert first == AuditRow(
        tenant="acme",
        seq=1,
        at=first.at,
        actor="k1",
        source="10.0.0.7",
        action="pipeline.stop",
        object="p-1",
        outcome=Outcome.OK,
        code=None,
        detail={"reason": "too dear"},
    )
    assert abs(first.at - began) < 5 * SECOND
    assert (second.seq, second.outcome, second.code) == (2, Outcome.REFUSED, "illegal_transition")


_CHANGES = ("UPDATE audit SET outcome = 'ok'", "DELETE FROM audit")
_REPLACE = """
    INSERT OR REPLACE INTO audit
    SELECT tenant, seq, at, 'me', source, action, object, outcome, code, detail FROM audit
"""


async def test_no_line_is_changed_or_removed(ledger: Ledger, ledger_url: str) -> None:
    await ledger.audit.append("acme", deed(outcome=Outcome.REFUSED, code="c"))
    engine = create_engine(parse_url(ledger_url))
    for statement in (*_CHANGES, _REPLACE if engine.dialect.name == "sqlite" else "TRUNCATE audit"):
        with engine.connect() as connection, pytest.raises(DBAPIError, match="immutable"):
            connection.execute(text(statement))
    engine.dispose()
    [line] = (await ledger.audit.list("acme")).items
    assert (line.actor, line.outcome) == ("k1", Outcome.REFUSED)


async def test_lines_of_many_processes_are_numbered_without_gap_or_repeat(ledger_url: str) -> None:
    ledgers = [await Ledger.open(ledger_url, migrate=False) for _ in range(4)]
    await asyncio.gather(
        *(ledger.audit.append(tenant, deed()) for _ in range(25) for ledger in ledgers for tenant in ("a", "b"))
    )
    for tenant in ("a", "b"):
        lines = (await ledgers[0].audit.list(tenant, limit=500)).items
        assert sorted(line.seq for line in lines) == list(range(1, 101))
    for ledger in ledgers:
        await ledger.close()


async def test_a_deed_and_its_line_are_there_together_or_not_at_all(ledger: Ledger) -> None:
    class Broke(Exception):
        pass

    async def tried(error: Exception) -> None:
        def unit(connection: object) -> None:
            connection.execute(text("INSERT INTO projects (tenant, project, created_at) VALUES ('a', 'b', 1)"))  # type: ignore[attr-defined]
            raise error

        with pytest.raises(type(error)):
            await ledger.audit.perform("acme", deed(), unit)

    for error in (Conflict("no", code="not_now"), Unavailable("away"), Broke()):
        await tried(error)
    lines = (await ledger.audit.list("acme")).items
    told = [(line.outcome.value, line.code) for line in reversed(lines)]
    assert told == [("refused", "not_now"), ("failed", "unavailable"), ("failed", "internal")]
    assert (await ledger.projects.list("a")).items == []


async def test_lines_are_found_by_actor_age_action_object_and_outcome(ledger: Ledger) -> None:
    for action in ("key.create", "key.revoke", "keyring.open", "pipeline.stop"):
        await ledger.audit.append("acme", deed(action, "k7"))
    await ledger.audit.append("acme", Deed(by=By(actor="local"), action="pipeline.stop", object="p-9"))
    await ledger.audit.append("acme", deed(outcome=Outcome.FAILED, code="unavailable"))

    async def found(**sought: object) -> list[str]:
        page = await ledger.audit.list("acme", sought=Sought(**sought))  # type: ignore[arg-type]
        return [line.action for line in reversed(page.items)]

    assert await found(action="key") == ["key.create", "key.revoke"]
    assert await found(action="key.revoke") == ["key.revoke"]
    assert await found(action="key.") == await found(action="%") == []
    assert await found(actor="local") == ["pipeline.stop"]
    assert await found(object="p-9") == ["pipeline.stop"]
    assert await found(outcome=Outcome.FAILED) == ["pipeline.stop"]
    assert await found(since=clock.now() + 60 * SECOND) == []
    assert len(await found(since=clock.now() - 60 * SECOND)) == 6
    assert await found(actor="k1", action="pipeline", outcome=Outcome.OK) == ["pipeline.stop"]


async def test_pages_lead_through_one_tenants_lines_or_through_all(ledger: Ledger) -> None:
    for n in range(7):
        await ledger.audit.append("acme" if n % 2 else "b.c-d", deed(object_=f"p-{n}"))

    async def walked(tenant: str | None) -> list[str]:
        seen, cursor = list[str](), None
        while True:
            if tenant is None:
                page = await ledger.audit.list_of_all_tenants(limit=2, cursor=cursor)
            else:
                page = await ledger.audit.list(tenant, limit=2, cursor=cursor)
            seen += [line.object for line in page.items]
            if (cursor := page.next) is None:
                return seen

    assert await walked("acme") == ["p-5", "p-3", "p-1"]
    assert sorted(await walked(None)) == [f"p-{n}" for n in range(7)]
    for bad in ("", "x", "1.2", "1.x.acme", f"1.{'9' * 30}.acme", "1.1.\0"):
        with pytest.raises(Invalid, match="no cursor"):
            await ledger.audit.list("acme", cursor=bad)


async def test_neither_a_key_nor_what_steers_a_terminal_comes_into_a_line(ledger: Ledger) -> None:
    key = new_key()
    hostile = Deed(
        by=By(actor="k1\n", source="1.2.3.4\x1b[2J"),
        action="pipeline.get",
        object=f"{key.text} \0\udcff {'x' * 1_000}",
        detail={"reason": f"found {key.text} in a log", "then": "y" * 100_000},
    )
    await ledger.audit.append("acme", hostile)
    [line] = (await ledger.audit.list("acme")).items
    assert key.text.split("_")[2] not in str(line)
    assert key.id in line.object
    assert key.id in str(line.detail)
    assert (line.actor + str(line.source) + line.object).isprintable()
    assert len(line.object) == 200
    assert len(str(line.detail)) < 17_000
    with pytest.raises(Invalid, match="no action is called 'Stop it'"):
        await ledger.audit.append("acme", deed("Stop it"))
