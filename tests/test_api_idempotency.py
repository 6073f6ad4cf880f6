"""The same request under the same Idempotency-Key is carried out once, whoever asks, at once or after a crash."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, update

from tests.fixtures.api import OBJECTIVE, Api, MakeApi, assert_problem
from trilogue.desk import local
from trilogue.entry import Entry
from trilogue.errors import Conflict, Unavailable
from trilogue.ledger import Ledger
from trilogue.ledger.engine import parse_url
from trilogue.ledger.idempotency import ABANDONED_SECONDS, KEPT_SECONDS
from trilogue.ledger.opening import TENANT
from trilogue.ledger.tables import idempotency

BODY = {"objective": OBJECTIVE, "labels": ["a"]}


async def spawn(api: Api, key: str, **body: Any) -> httpx.Response:
    return await api.client.post("/api/spawn", json={**BODY, **body}, headers={"Idempotency-Key": key})


async def spawned(api: Api) -> int:
    return len((await api.services.ledger.list_pipelines(TENANT)).items)


async def test_the_same_request_has_the_same_answer_again(api: Api) -> None:
    first, again = await spawn(api, "k-1"), await spawn(api, "k-1")
    assert (first.status_code, first.json()) == (202, again.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert await spawned(api) == 1
    other = await spawn(api, "k-2")
    assert other.json() != first.json()


async def test_a_key_stands_for_one_request(api: Api) -> None:
    await spawn(api, "k-1")
    assert_problem(await spawn(api, "k-1", objective="another"), 422, "idempotency_key_reused")
    elsewhere = await api.client.post("/api/pipeline/p-none/stop", headers={"Idempotency-Key": "k-1"})
    assert_problem(elsewhere, 422, "idempotency_key_reused")
    for bad in ("a b", "x" * 201, "é"):
        answer = await api.client.post("/api/spawn", json=BODY, headers={"Idempotency-Key": bad.encode()})
        assert_problem(answer, 422, "invalid_idempotency_key")
    assert await spawned(api) == 1


async def test_continue_stop_and_resume_answer_again_what_they_answered(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    await api.carry(pipeline_id)

    async def twice(path: str, **body: Any) -> httpx.Response:
        answers = [await api.client.post(path, json=body, headers={"Idempotency-Key": path}) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert answers[1].headers["idempotent-replayed"] == "true"
        return answers[1]

    assert (await twice("/api/pipeline/continue", pipeline_id=pipeline_id)).status_code == 202
    assert (await twice(f"/api/pipeline/{pipeline_id}/stop", reason="no")).status_code == 200
    assert (await twice(f"/api/pipeline/{pipeline_id}/resume", reason="yes")).status_code == 202
    assert (await local(api.services).board(pipeline_id)).round.number == 1  # type: ignore[union-attr]


async def test_what_was_refused_changed_nothing_and_leaves_the_key_free(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    ask = {"json": {"pipeline_id": pipeline_id}, "headers": {"Idempotency-Key": "k-1"}}
    assert_problem(await api.client.post("/api/pipeline/continue", **ask), 409, "illegal_transition")
    await api.carry(pipeline_id)
    assert (await api.client.post("/api/pipeline/continue", **ask)).status_code == 202


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_many_at_once_at_two_servers_make_one(api_of: MakeApi, request: pytest.FixtureRequest, kind: str) -> None:
    url = request.getfixturevalue(f"migrated_{kind}_url")
    one, two = await api_of(ledger_url=url), await api_of(ledger_url=url)

    async def until_answered(api: Api, key: str) -> httpx.Response:
        while (answer := await spawn(api, key)).status_code == 409:
            assert_problem(answer, 409, "in_progress")
            assert answer.headers["retry-after"] == "1"
        return answer

    for key in ("k-1", "k-2"):
        answers = await asyncio.gather(*(until_answered(api, key) for api in (one, two) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["pipeline_id"] for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await spawned(one) == 2


def aged(url: str, seconds: float) -> None:
    """As if every kept request were older."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(update(idempotency).values(created_at=idempotency.c.created_at - int(seconds * 1e6)))
    engine.dispose()


async def test_work_without_an_answer_is_taken_over_with_its_plan_once_its_process_must_be_gone(
    ledger: Ledger, ledger_url: str
) -> None:
    taken = await ledger.begin_request(TENANT, "k", "request", plan="p-one")
    assert (taken.status, taken.plan) == (None, "p-one")
    with pytest.raises(Conflict) as busy:
        await ledger.begin_request(TENANT, "k", "request", plan="p-two")
    assert busy.value.code == "in_progress"
    aged(ledger_url, ABANDONED_SECONDS + 1)
    assert (await ledger.begin_request(TENANT, "k", "request", plan="p-two")).plan == "p-one"
    with pytest.raises(Conflict):
        await ledger.begin_request(TENANT, "k", "request", plan="p-three")
    await ledger.give_request_up(TENANT, "k")
    assert (await ledger.begin_request(TENANT, "k", "request", plan="p-four")).plan == "p-one"


async def test_an_answer_is_kept_for_a_day_and_then_pruned(ledger: Ledger, ledger_url: str) -> None:
    await ledger.begin_request(TENANT, "k", "request", plan="p-one")
    await ledger.answer_request(TENANT, "k", 202, "{}")
    aged(ledger_url, KEPT_SECONDS - 60)
    assert (await ledger.begin_request(TENANT, "k", "request", plan="p-two")).status == 202
    assert await ledger.prune_requests() == 0
    aged(ledger_url, 61)
    assert (await ledger.begin_request(TENANT, "k", "another", plan="p-two")).plan == "p-two"
    aged(ledger_url, KEPT_SECONDS + 1)
    assert await ledger.prune_requests() == 1


async def test_a_spawn_whose_answer_was_lost_with_its_process_is_not_done_twice(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn_ = api.services.ledger.spawn

    async def committed_but_lost(*given: Any, **named: Any) -> list[Entry]:
        await spawn_(*given, **named)
        raise Unavailable("the connection broke during a commit", code="outcome_unknown")

    monkeypatch.setattr(api.services.ledger, "spawn", committed_but_lost)
    lost = await spawn(api, "k-1", external_id="mine")
    assert_problem(lost, 503, "outcome_unknown")
    assert lost.headers["retry-after"]
    monkeypatch.undo()
    answer = await spawn(api, "k-1", external_id="mine")
    assert answer.status_code == 202
    (item,) = (await api.get("/api/pipelines"))["items"]
    assert item["pipeline_id"] == answer.json()["pipeline_id"]
