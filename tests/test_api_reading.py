"""What the API tells of pipelines: pages, entries, log lines, readiness, and a description that holds."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.fixtures.api import Api, MakeApi, assert_problem
from tests.fixtures.valkey import OwnServer
from trilogue.entry import Entry, Kind
from trilogue.errors import Unavailable
from trilogue.ledger import verify
from trilogue.ledger.opening import TENANT

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def test_pages_follow_each_other_without_gap_or_repeat_while_others_come(api: Api) -> None:
    ids = [await api.spawn(project="a" if number % 2 else "b") for number in range(7)]
    seen, cursor = list[str](), None
    while True:
        page = await api.get("/api/pipelines", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [item["pipeline_id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
        await api.spawn()
    assert seen == ids[::-1]
    ours = await api.get("/api/pipelines", project="b", status="SPAWNED")
    assert [item["pipeline_id"] for item in ours["items"]] == ids[::-2]
    assert (await api.get("/api/pipelines", status="FAILED"))["items"] == []
    assert (await api.get("/api/pipelines", status=["FAILED", "SPAWNED"], project="b")) == ours
    begins = await api.get("/api/pipelines", prefix=ids[0][:8])
    assert [item["pipeline_id"] for item in begins["items"]] == [ids[0]]


async def test_pipelines_are_found_by_what_they_are_about_and_say_what_they_cost(api: Api) -> None:
    objective = "Größe & 100% of [it]? a+b \\ 'x'"
    waiting, carried = await api.spawn(objective=objective), await api.spawn(labels=["Nightly run"])
    await api.carry(carried)
    for search, expected in {
        "GRÖSSE": [],
        "GRÖßE & 100% OF [it]? A+B \\ '": [waiting],
        "nightly": [carried],
        "😀": [],
        "": [carried, waiting],
    }.items():
        found = await api.get("/api/pipelines", search=search)
        assert [item["pipeline_id"] for item in found["items"]] == expected, search
    nothing, spent = (await api.get("/api/pipelines"))["items"][::-1]
    assert (nothing["cost_usd"], nothing["tokens"]) == (0, {"input": 0, "output": 0})
    whole = await api.get(f"/api/pipelines/{carried}")
    assert (spent["cost_usd"], spent["tokens"]) == (whole["cost_usd"], whole["tokens"])
    assert spent["cost_usd"] == pytest.approx(sum(agent["cost_usd"] for agent in whole["agents"])) != 0
    assert spent["tokens"]["input"] == sum(agent["tokens"]["input"] for agent in whole["agents"]) > 0


async def test_entries_come_whole_so_that_their_chain_can_be_verified_elsewhere(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    told, after = list[Entry](), 0
    while True:
        page = await api.get(f"/api/pipelines/{pipeline_id}/entries", after=after, limit=7)
        for item in page["items"]:
            at = (datetime.fromisoformat(item["at"]) - EPOCH) // timedelta(microseconds=1)
            given = {**item, "kind": Kind(item["kind"]), "at": at}
            told.append(Entry(tenant=TENANT, pipeline_id=pipeline_id, **given))
        if (after := page["next"]) is None:
            break
    assert told == list(course.entries)
    assert verify(told) is None


async def test_log_lines_have_levels_and_can_be_read_on_from_where_one_stopped(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    everything = (await api.get("/api/pipeline/logs", pipeline_id=pipeline_id, limit=500))["items"]
    assert [line["seq"] for line in everything] == [entry.seq for entry in course.entries]
    assert all(line["message"] and "\n" not in line["message"] for line in everything)
    seen, after = [], 0
    while after is not None:
        page = await api.get("/api/pipeline/logs", pipeline_id=pipeline_id, level="info", after=after, limit=4)
        seen += page["items"]
        after = page["next"]
    assert seen == [line for line in everything if line["level"] != "debug"]
    await api.client.post(f"/api/pipeline/{await api.spawn()}/stop")
    stopped = (await api.get("/api/pipelines", status="STOPPED"))["items"][0]["pipeline_id"]
    (*_, last) = (await api.get("/api/pipeline/logs", pipeline_id=stopped, level="warning"))["items"]
    assert (last["level"], last["kind"]) == ("warning", "stopped")


async def test_a_hostile_objective_stays_text_everywhere(api: Api) -> None:
    hostile = "<script>alert(1)</script> \u202e [bold] %s {x} ${y} é 😀\t\n| end"
    pipeline_id = await api.spawn(objective=hostile, labels=["<b>"])
    await api.carry(pipeline_id)
    assert (await api.get(f"/api/pipelines/{pipeline_id}"))["objective"] == hostile
    answer = await api.client.get(f"/api/pipelines/{pipeline_id}/result", headers={"Accept": "text/markdown"})
    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.headers["x-content-type-options"] == "nosniff"
    lines = await api.get("/api/pipeline/logs", pipeline_id=pipeline_id)
    assert "\u202e" not in lines["items"][0]["message"]


async def test_readiness_names_what_is_away(api_of: MakeApi, valkey_server: OwnServer) -> None:
    api = await api_of(live_url=valkey_server.url)
    assert (await api.client.get("/readyz")).json() == {
        "status": "ready",
        "checks": {"ledger": "ok", "redis": "ok", "prefect": "ok"},
    }
    await asyncio.to_thread(valkey_server.kill)

    async def away() -> None:
        raise Unavailable("Prefect does not answer")

    api.app.state.reach_prefect = away
    answer = await api.client.get("/readyz")
    detail = assert_problem(answer, 503, "not_ready")
    assert "redis: " in detail
    assert "prefect: Prefect does not answer" in detail
    assert answer.json()["checks"]["ledger"] == "ok"
    assert answer.headers["retry-after"]
    assert (await api.client.get("/healthz")).json()["status"] == "alive"
    await api.spawn()  # Redis only carries notice


async def test_the_description_comes_with_all_its_parts_and_names_our_errors(api: Api) -> None:
    page = (await api.client.get("/docs")).text
    parts = [part for part in page.split('"') if part.startswith("/docs/parts/")]
    assert len(parts) >= 3
    assert "https://" not in page.replace("https://fastapi.tiangolo.com", "")
    for part in parts:
        assert (await api.client.get(part)).status_code == 200
    schema = await api.get("/openapi.json")
    assert "HTTPValidationError" not in str(schema)
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            told = operation["responses"]
            assert operation.get("summary"), path
            assert operation.get("description"), path
            wrong = [status for status in told if int(status) >= 400]
            assert all(
                "Problem" in str(told[s]) or "NotReady" in str(told[s]) or "Taken" in str(told[s]) for s in wrong
            )
            if method == "post" and "requestBody" in operation:
                assert "409" in told
    assert schema["components"]["schemas"]["Spawn"]["examples"][0]["objective"]
