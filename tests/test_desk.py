"""What people do with pipelines is done as somebody: within a tenant and a project, by right, and on record."""

import pytest

from tests.driving import Driver, MakeDriver
from tests.fixtures.api import Api
from trilogue.desk import Desk, local
from trilogue.errors import Denied, IllegalTransition, NotFound
from trilogue.identity import Access, Caller
from trilogue.ledger.identities import AT_THE_TERMINAL, By, Outcome
from trilogue.ledger.opening import TENANT
from trilogue.spec import RoundSpec, checked_spec
from trilogue.testing.openrouter import OpenRouterServer

SPEC = checked_spec(objective="Choose a queue")


@pytest.fixture
async def driver(driver_of: MakeDriver, rehearsed: OpenRouterServer) -> Driver:
    return await driver_of(rehearsed)


def desk_of(driver: Driver, **caller: object) -> Desk:
    given = {"tenant": TENANT, "access": Access.ADMIN, "key_id": "k1"} | caller
    who = Caller(**given)  # type: ignore[arg-type]
    return Desk(driver.services, who, by=By(actor=who.actor, source="192.0.2.7"))


async def lines(driver: Driver) -> list[tuple[str, str, str, Outcome, str | None]]:
    page = await driver.services.ledger.audit.list(TENANT)
    return [(row.actor, row.action, row.object, row.outcome, row.code) for row in reversed(page.items)]


async def test_each_deed_is_on_record_with_who_did_it_and_what_became_of_it(driver: Driver) -> None:
    desk = desk_of(driver)
    pipeline_id = await desk.spawn(checked_spec(objective="x", auto_continue=False), may_rehearse=False)
    await driver.carry(pipeline_id)
    await desk.begin_round(pipeline_id, RoundSpec(reason="go"))
    await desk.stop(pipeline_id, "enough")
    with pytest.raises(IllegalTransition):
        await desk.stop(pipeline_id, "again")
    await desk.resume(pipeline_id, RoundSpec(reason="after all"), queued=True)
    assert await lines(driver) == [
        ("k1", "pipeline.spawn", pipeline_id, Outcome.OK, None),
        ("k1", "pipeline.continue", pipeline_id, Outcome.OK, None),
        ("k1", "pipeline.stop", pipeline_id, Outcome.OK, None),
        ("k1", "pipeline.stop", pipeline_id, Outcome.REFUSED, "illegal_transition"),
        ("k1", "pipeline.resume", pipeline_id, Outcome.OK, None),
    ]
    [*_, first] = (await driver.services.ledger.audit.list(TENANT)).items
    assert first.source == "192.0.2.7"


async def test_what_does_not_happen_is_recorded_as_refused_and_changes_nothing(driver: Driver) -> None:
    pipeline_id = await local(driver.services).spawn(SPEC, may_rehearse=False)
    viewer = desk_of(driver, access=Access.VIEWER)
    for refused in (
        viewer.spawn(SPEC, may_rehearse=False),
        viewer.stop(pipeline_id, "no"),
        viewer.begin_round(pipeline_id, RoundSpec()),
        viewer.resume(pipeline_id, RoundSpec(reason="no")),
        viewer.rewind(pipeline_id, 1, "spawned", "no"),
    ):
        with pytest.raises(Denied):
            await refused
    assert (await viewer.pipeline(pipeline_id)).status == "SPAWNED"
    assert len((await driver.services.ledger.list_pipelines(TENANT)).items) == 1
    refusals = [
        (who, action, code) for who, action, _, outcome, code in await lines(driver) if outcome is Outcome.REFUSED
    ]
    deeds = ("spawn", "stop", "continue", "resume", "rewind")
    assert refusals == [("k1", f"pipeline.{deed}", "access") for deed in deeds]


async def test_another_projects_and_another_tenants_pipelines_are_not_there(driver: Driver) -> None:
    pipeline_id = await local(driver.services).spawn(SPEC, may_rehearse=False)
    await driver.services.ledger.tenants.create("acme", by=AT_THE_TERMINAL)
    for desk in (desk_of(driver, project="payments"), desk_of(driver, tenant="acme")):
        for hidden in (
            desk.pipeline(pipeline_id),
            desk.board(pipeline_id),
            desk.stop(pipeline_id, "no"),
            desk.begin_round(pipeline_id, RoundSpec()),
            desk.resume(pipeline_id, RoundSpec(reason="no")),
            desk.take_up_again(pipeline_id, RoundSpec()),
            desk.go_on_from(pipeline_id, "spawned", "no"),
        ):
            with pytest.raises(NotFound):
                await hidden
    assert (await driver.services.ledger.get_pipeline(TENANT, pipeline_id)).status == "SPAWNED"


async def test_nothing_begins_for_a_tenant_that_is_suspended_but_it_can_be_stopped(driver: Driver) -> None:
    ledger = driver.services.ledger
    await ledger.tenants.create("acme", by=AT_THE_TERMINAL)
    desk = desk_of(driver, tenant="acme")
    pipeline_id = await desk.spawn(SPEC, may_rehearse=False)
    await ledger.tenants.suspend("acme", by=AT_THE_TERMINAL, reason="unpaid")
    with pytest.raises(Denied, match="suspended"):
        await desk.spawn(SPEC, may_rehearse=False)
    await desk.stop(pipeline_id, "unpaid")
    with pytest.raises(Denied, match="suspended"):
        await desk.resume(pipeline_id, RoundSpec(reason="please"))
    await ledger.tenants.activate("acme", by=AT_THE_TERMINAL, reason="paid")
    await desk.resume(pipeline_id, RoundSpec(reason="paid"), queued=True)


async def test_over_http_the_caller_is_recorded_with_its_address(api: Api) -> None:
    pipeline_id = await api.spawn()
    assert (await api.client.post(f"/api/pipeline/{pipeline_id}/stop", json={"reason": "enough"})).status_code == 200
    page = await api.services.ledger.audit.list(TENANT)
    assert [(row.actor, row.source, row.action) for row in page.items] == [
        ("local", "127.0.0.1", "pipeline.stop"),
        ("local", "127.0.0.1", "pipeline.spawn"),
    ]
