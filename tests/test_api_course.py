"""A pipeline's whole course over HTTP: spawned, held, continued, stopped, resumed, and looked at from every side."""

import pytest

from tests.fixtures.api import OBJECTIVE, Api, MakeApi, assert_problem
from trilogue.pipeline import Status


async def test_a_spawned_pipeline_goes_through_to_its_end_and_every_route_tells_of_it(api: Api) -> None:
    answer = await api.client.post("/api/spawn", json={"objective": OBJECTIVE, "auto_continue": True})
    assert answer.status_code == 202
    assert answer.json().keys() == {"pipeline_id", "status"}
    assert answer.json()["status"] == "SPAWNED"
    pipeline_id = answer.json()["pipeline_id"]
    course = await api.carry(pipeline_id)
    assert course.board.status is Status.COMPLETED

    (item,) = (await api.get("/api/pipelines"))["items"]
    assert (item["pipeline_id"], item["status"], item["objective"]) == (pipeline_id, "COMPLETED", OBJECTIVE)
    one = await api.get(f"/api/pipelines/{pipeline_id}")
    assert item.items() <= one.items()
    assert one["ledger"]["entries"] == len(course.entries)
    entries = (await api.get(f"/api/pipelines/{pipeline_id}/entries", limit=1000))["items"]
    assert [entry["hash"] for entry in entries] == [entry.hash for entry in course.entries]
    board = await api.get(f"/api/pipelines/{pipeline_id}/board")
    assert (board["seq"], board["consensus"]) == (len(entries), one["consensus"])
    names = [item["name"] for item in (await api.get(f"/api/pipelines/{pipeline_id}/checkpoints"))["items"]]
    assert names == ["spawned", "report", "completed"]
    report = await api.get("/api/checkpoint/report", pipeline_id=pipeline_id)
    assert (report["continuation"]["state"], report["report"]["findings"]) == ("ended", one["report"]["findings"])
    orchestration = await api.get(f"/api/pipeline/{pipeline_id}/orchestration")
    assert orchestration["board"]["proposals"] == len(board["proposals"])
    assert orchestration["consensus"] == one["consensus"]
    assert orchestration["timing"]["timeout"] == 20
    result = await api.get(f"/api/pipelines/{pipeline_id}/result")
    assert result.items() <= one.items()
    markdown = await api.client.get(f"/api/pipelines/{pipeline_id}/result", headers={"Accept": "text/markdown"})
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert one["consensus"]["text"] in markdown.text


async def test_without_auto_continue_it_is_held_at_report_until_continued(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    before = await api.get("/api/checkpoint/report", pipeline_id=pipeline_id)
    assert (before["report"], before["continuation"]["state"]) == (None, "pending")
    course = await api.carry(pipeline_id)
    assert course.board.status is Status.REPORT
    held = await api.get("/api/checkpoint/report", pipeline_id=pipeline_id)
    assert (held["status"], held["continuation"]["state"]) == ("REPORT", "held")
    assert held["continuation"]["continuable"]
    assert held["continuation"]["reasons"] == ["the pipeline was started with auto_continue off"]
    assert held["report"]["markdown"].startswith("# Report")

    tickets = api.tickets
    answer = await api.client.post(
        "/api/pipeline/continue", json={"pipeline_id": pipeline_id, "guidance": "We run on one machine.", "timeout": 9}
    )
    assert (answer.status_code, answer.json()) == (202, {"pipeline_id": pipeline_id, "status": "ORCHESTRATING"})
    assert api.tickets == tickets + 1
    assert (await api.carry(pipeline_id)).board.status is Status.COMPLETED
    board = await api.get(f"/api/pipelines/{pipeline_id}/board")
    assert board["guidance"] == ["We run on one machine."]
    assert (await api.get(f"/api/pipeline/{pipeline_id}/orchestration"))["timing"]["timeout"] == 9


async def test_a_held_pipeline_is_continued_after_everything_was_restarted(api_of: MakeApi) -> None:
    former = await api_of()
    pipeline_id = await former.spawn(auto_continue=False)
    await former.carry(pipeline_id)
    former.serving.cancel()
    later = await api_of()
    answer = await later.client.post("/api/pipeline/continue", json={"pipeline_id": pipeline_id})
    assert answer.status_code == 202
    assert (await later.carry(pipeline_id)).board.status is Status.COMPLETED


async def test_auto_orchestrate_off_holds_every_pipeline(api_of: MakeApi) -> None:
    api = await api_of(auto_orchestrate=False)
    pipeline_id = await api.spawn(auto_continue=True)
    assert (await api.carry(pipeline_id)).board.status is Status.REPORT
    held = await api.get("/api/checkpoint/report", pipeline_id=pipeline_id)
    assert (held["continuation"]["state"], held["continuation"]["reasons"]) == ("held", ["AUTO_ORCHESTRATE is off"])


async def test_a_stopped_pipeline_is_resumed_only_with_a_reason(api: Api) -> None:
    pipeline_id = await api.spawn()
    stopped = await api.client.post(f"/api/pipeline/{pipeline_id}/stop", json={"reason": "wrong objective"})
    assert stopped.status_code == 200
    assert stopped.json()["status"] == "STOPPED"
    one = await api.get(f"/api/pipelines/{pipeline_id}")
    assert (one["error"]["code"], one["ledger"]["entries"]) == ("stopped", stopped.json()["seq"])
    again = await api.client.post(f"/api/pipeline/{pipeline_id}/stop")
    assert "STOPPED cannot become STOPPED" in assert_problem(again, 409, "illegal_transition")

    without = await api.client.post(f"/api/pipeline/{pipeline_id}/resume")
    assert_problem(without, 409, "reason_needed")
    resumed = await api.client.post(f"/api/pipeline/{pipeline_id}/resume", json={"reason": "it was right"})
    assert (resumed.status_code, resumed.json()["status"]) == (202, "SPAWNED")
    assert (await api.carry(pipeline_id)).board.status is Status.COMPLETED


async def test_an_interrupted_pipeline_is_queued_by_resume(api: Api) -> None:
    pipeline_id = await api.driver.spawn()
    assert await api.services.ledger.waiting(10) == []
    resumed = await api.client.post(f"/api/pipeline/{pipeline_id}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "SPAWNED")
    assert (await api.carry(pipeline_id)).board.status is Status.COMPLETED


async def test_a_pipeline_goes_on_from_a_checkpoint(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    await api.carry(pipeline_id)
    await api.client.post(f"/api/pipeline/{pipeline_id}/stop")
    unknown = await api.client.post(f"/api/pipeline/{pipeline_id}/rewind", json={"checkpoint": "later"})
    assert_problem(unknown, 404, "no_checkpoint")
    answer = await api.client.post(
        f"/api/pipeline/{pipeline_id}/rewind", json={"checkpoint": "spawned", "reason": "another try"}
    )
    assert answer.status_code == 202, answer.text
    assert (await api.carry(pipeline_id)).board.status is Status.REPORT


async def test_what_may_not_follow_is_refused_with_both_statuses(api: Api) -> None:
    pipeline_id = await api.spawn()
    early = await api.client.post("/api/pipeline/continue", json={"pipeline_id": pipeline_id})
    assert "SPAWNED cannot become ORCHESTRATING" in assert_problem(early, 409, "illegal_transition")
    await api.carry(pipeline_id)
    late = await api.client.post("/api/pipeline/continue", json={"pipeline_id": pipeline_id})
    assert "COMPLETED cannot become ORCHESTRATING" in assert_problem(late, 409, "illegal_transition")
    resumed = await api.client.post(f"/api/pipeline/{pipeline_id}/resume", json={"reason": "more"})
    assert "COMPLETED" in assert_problem(resumed, 409, "not_resumable")


async def test_an_external_id_is_given_once_and_the_refusal_names_who_has_it(api: Api) -> None:
    pipeline_id = await api.spawn(external_id="ticket-4711")
    twice = await api.client.post("/api/spawn", json={"objective": OBJECTIVE, "external_id": "ticket-4711"})
    assert pipeline_id in assert_problem(twice, 409, "external_id_taken")
    assert twice.json()["pipeline_id"] == pipeline_id


async def test_a_ticket_is_sent_for_every_pipeline_that_is_queued_and_its_failure_hurts_nobody(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    await api.spawn()
    await api.spawn()
    assert api.tickets == 2

    async def broken() -> None:
        raise RuntimeError("no Prefect today")

    api.app.state.tickets._on_queued = broken
    await api.spawn()
    assert len(await api.services.ledger.waiting(10)) == 3
    assert "no ticket was sent" in caplog.text


async def test_a_board_is_shown_as_it_stood_and_only_where_it_stood(api: Api) -> None:
    pipeline_id = await api.spawn()
    await api.carry(pipeline_id)
    first = await api.get(f"/api/pipelines/{pipeline_id}/board", until=1)
    assert (first["seq"], first["status"], first["agents"]) == (1, "SPAWNED", [])
    beyond = await api.client.get(f"/api/pipelines/{pipeline_id}/board", params={"until": 100_000})
    assert_problem(beyond, 422, "bad_seq")
