"""Tenants and projects come to be once, and go without taking their record with them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.errors import Conflict, Denied, Invalid, NotFound, TrilogueError, Unauthenticated
from trilogue.identity import Access
from trilogue.ledger import Ledger
from trilogue.ledger.closing import stop_and_delete
from trilogue.ledger.identities import By, TenantFigures, TenantStatus
from trilogue.ledger.standing import check_active
from trilogue.pipeline import Status

BY = By(actor="local")
Spawn = Callable[..., Awaitable[None]]


@pytest.fixture
def spawn(ledger: Ledger) -> Spawn:
    async def spawned(tenant: str, pipeline_id: str, project: str = "default") -> None:
        first = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", "project": project})
        await ledger.spawn(tenant, pipeline_id, [first], at=clock.now())

    return spawned


async def test_the_tenant_default_is_there_from_the_beginning(ledger: Ledger) -> None:
    assert (await ledger.tenants.get("default")).status is TenantStatus.ACTIVE
    assert [row.project for row in (await ledger.projects.list("default")).items] == ["default"]


async def test_of_many_who_make_one_tenant_at_once_one_wins(ledger_url: str) -> None:
    ledgers = [await Ledger.open(ledger_url, migrate=False) for _ in range(3)]
    outcomes = await asyncio.gather(
        *(ledger.tenants.create("acme", by=BY) for ledger in ledgers for _ in range(3)), return_exceptions=True
    )
    codes = [error.code for error in outcomes if isinstance(error, TrilogueError)]
    assert codes == ["exists"] * 8
    lines = (await ledgers[0].audit.list("acme")).items
    assert sorted(line.outcome for line in lines) == ["ok"] + ["refused"] * 8
    assert sorted(line.seq for line in lines) == list(range(1, 10))
    assert [row.project for row in (await ledgers[0].projects.list("acme")).items] == ["default"]
    for ledger in ledgers:
        await ledger.close()


async def test_names_that_cannot_be_are_refused_before_anything_is_written(ledger: Ledger) -> None:
    for name in ("", "Acme", "installation", "\u0430cme"):
        with pytest.raises(Invalid):
            await ledger.tenants.create(name, by=BY)
        with pytest.raises(Invalid):
            await ledger.projects.create("default", name, by=BY)
    assert [row.tenant for row in (await ledger.tenants.list_all()).items] == ["default"]


async def test_a_suspended_tenant_begins_nothing_until_it_is_active_again(ledger: Ledger) -> None:
    await ledger.tenants.create("acme", by=BY, shared_model_key=False)

    async def begin(tenant: str) -> None:
        await ledger._writer.write(lambda c: check_active(c, tenant))

    await begin("acme")
    for _ in range(2):
        assert (await ledger.tenants.suspend("acme", by=BY, reason="unpaid")).status is TenantStatus.SUSPENDED
    with pytest.raises(Denied, match="suspended") as refused:
        await begin("acme")
    assert refused.value.code == "tenant_suspended"
    assert not (await ledger.tenants.activate("acme", by=BY)).shared_model_key
    await begin("acme")
    with pytest.raises(NotFound):
        await begin("nobody-knows")
    with pytest.raises(Conflict, match="cannot be suspended"):
        await ledger.tenants.suspend("default", by=BY)


async def test_a_tenant_with_pipelines_that_have_not_ended_is_not_deleted(ledger: Ledger, spawn: Spawn) -> None:
    await ledger.tenants.create("acme", by=BY)
    for n in range(3):
        await spawn("acme", f"p-{n}")
    await spawn("default", "p-1")
    with pytest.raises(Conflict, match="has 3 pipelines that have not ended") as refused:
        await ledger.tenants.delete("acme", by=BY)
    assert refused.value.code == "pipelines_open"
    assert (await ledger.tenants.get("acme")).status is TenantStatus.ACTIVE
    line = (await ledger.audit.list("acme")).items[0]
    assert (line.action, line.outcome, line.code) == ("tenant.delete", "refused", "pipelines_open")


async def test_a_tenant_is_deleted_once_its_pipelines_are_stopped_and_its_record_stays(
    ledger: Ledger, spawn: Spawn
) -> None:
    await ledger.tenants.create("acme", by=BY)
    issued = await ledger.keys.create("acme", "ci", access=Access.ADMIN, by=BY)
    for n in range(3):
        await spawn("acme", f"p-{n}")
    await spawn("default", "p-1")
    assert await ledger.tenants.figures("acme") == TenantFigures(pipelines=3, open=3, projects=1, keys=1)
    row, stopped = await stop_and_delete(ledger, "acme", by=BY)
    assert (row.status, sorted(stopped)) == (TenantStatus.DELETED, ["p-0", "p-1", "p-2"])
    assert (await ledger.get_pipeline("default", "p-1")).status is Status.SPAWNED
    assert (await ledger.get_pipeline("acme", "p-1")).status is Status.STOPPED
    assert len(await ledger.entries("acme", "p-1")) == 4
    assert await ledger.tenants.figures("acme") == TenantFigures(pipelines=3, open=0, projects=1, keys=0)
    with pytest.raises(Unauthenticated, match="was revoked"):
        await ledger.keys.authenticate(issued.key.text)
    with pytest.raises(Conflict, match="was deleted, and a name is not given out again"):
        await ledger.tenants.create("acme", by=BY)
    for ask in (
        ledger.tenants.delete("acme", by=BY),
        ledger.tenants.activate("acme", by=BY),
        ledger.keys.create("acme", "ci", access=Access.VIEWER, by=BY),
        ledger.projects.create("acme", "web", by=BY),
    ):
        with pytest.raises(Conflict, match="is deleted, for good"):
            await ask
    assert [row.tenant for row in (await ledger.tenants.list_all()).items] == ["default"]
    assert [row.tenant for row in (await ledger.tenants.list_all(deleted=True)).items] == ["acme", "default"]
    actions = [line.action for line in (await ledger.audit.list("acme")).items if line.outcome == "ok"]
    assert actions == ["tenant.delete", *["pipeline.stop"] * 3, "tenant.suspend", "key.create", "tenant.create"]


async def test_keys_made_while_their_tenant_is_deleted_open_nothing(ledger_url: str) -> None:
    ledgers = [await Ledger.open(ledger_url, migrate=False) for _ in range(3)]
    await ledgers[0].tenants.create("acme", by=BY)
    makers = [
        ledger.keys.create("acme", "ci", access=Access.VIEWER, by=BY) for _ in range(10) for ledger in ledgers[1:]
    ]
    outcomes = await asyncio.gather(
        *makers[:10], ledgers[0].tenants.delete("acme", by=BY), *makers[10:], return_exceptions=True
    )
    assert {error.code for error in outcomes if isinstance(error, TrilogueError)} <= {"tenant_deleted"}
    assert (await ledgers[0].tenants.get("acme")).status is TenantStatus.DELETED
    assert (await ledgers[0].keys.list("acme")).items == []
    for ledger in ledgers:
        await ledger.close()


async def test_the_tenant_default_and_an_unknown_one_are_not_deleted(ledger: Ledger, spawn: Spawn) -> None:
    await spawn("default", "p-1")
    with pytest.raises(Conflict, match="'default' cannot be deleted"):
        await stop_and_delete(ledger, "default", by=BY)
    assert (await ledger.get_pipeline("default", "p-1")).status is Status.SPAWNED
    for ask in (
        ledger.tenants.delete("nobody-knows", by=BY),
        stop_and_delete(ledger, "nobody-knows", by=BY),
        ledger.projects.delete("nobody-knows", "web", by=BY),
        ledger.keys.revoke("nobody-knows", "k1", by=BY),
    ):
        with pytest.raises(NotFound, match="no tenant 'nobody-knows'"):
            await ask
    assert (await ledger.audit.list("nobody-knows")).items == [], "a later tenant of that name has an audit of its own"
    lines = reversed((await ledger.audit.list("installation")).items)
    assert [(line.object, line.code) for line in lines] == [
        (what, "no_tenant") for what in ("nobody-knows", "nobody-knows", "web", "k1")
    ]


async def test_a_project_is_deleted_with_its_keys_when_nothing_of_it_runs_and_comes_back(
    ledger: Ledger, spawn: Spawn
) -> None:
    await ledger.projects.create("default", "web", by=BY)
    with pytest.raises(Conflict, match="has a project 'web' already"):
        await ledger.projects.create("default", "web", by=BY)
    mine = await ledger.keys.create("default", "web", access=Access.VIEWER, project="web", by=BY)
    wide = await ledger.keys.create("default", "all", access=Access.VIEWER, by=BY)
    await spawn("default", "p-1", "web")
    with pytest.raises(Conflict, match="'web' has 1 pipeline that has not ended"):
        await ledger.projects.delete("default", "web", by=BY)
    await ledger.projects.get("default", "web")
    failed = Draft(kind=Kind.STATUS, body={"status": "FAILED", "error": {"code": "c", "message": "m"}})
    await ledger.append_outside("default", "p-1", lambda _: [failed], at=clock.now())
    assert (await ledger.projects.delete("default", "web", by=BY)).deleted_at is not None
    with pytest.raises(Unauthenticated, match="was revoked"):
        await ledger.keys.authenticate(mine.key.text)
    await ledger.keys.authenticate(wide.key.text)
    for ask in (ledger.projects.get("default", "web"), ledger.projects.delete("default", "web", by=BY)):
        with pytest.raises(NotFound, match="no project 'web'"):
            await ask
    assert (await ledger.projects.create("default", "web", by=BY)).deleted_at is None
    with pytest.raises(Conflict, match="'default' cannot be deleted"):
        await ledger.projects.delete("default", "default", by=BY)


async def test_lists_are_by_name_and_lead_from_page_to_page(ledger: Ledger) -> None:
    names = [f"t-{n}" for n in range(5)]
    for name in names:
        await ledger.tenants.create(name, by=BY)
        await ledger.projects.create("t-0", f"p-{name}", by=BY)
    seen, cursor = list[str](), None
    while True:
        page = await ledger.tenants.list_all(limit=2, cursor=cursor)
        seen += [row.tenant for row in page.items]
        if (cursor := page.next) is None:
            break
    assert seen == ["default", *names]
    first = await ledger.projects.list("t-0", limit=4)
    rest = await ledger.projects.list("t-0", limit=4, cursor=first.next)
    assert [row.project for row in [*first.items, *rest.items]] == ["default", *(f"p-{name}" for name in names)]
    for bad in (0, 501):
        with pytest.raises(Invalid, match="1 to 500"):
            await ledger.tenants.list_all(limit=bad)
    with pytest.raises(Invalid, match="no cursor"):
        await ledger.tenants.list_all(cursor="a\0")
