"""Wrong input on every route is answered by a clear 4xx in the one shape, never by a 5xx."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fixtures.api import OBJECTIVE, Api, assert_problem
from trilogue.api.bodies import LONGEST, LONGEST_SPAWN
from trilogue.spec import LONGEST_CONTEXT, LONGEST_OBJECTIVE

POSTS = [
    "/api/spawn",
    "/api/pipeline/continue",
    "/api/pipeline/p-none/stop",
    "/api/pipeline/p-none/resume",
    "/api/pipeline/p-none/rewind",
]
OF_ONE = [
    "/api/pipelines/{}",
    "/api/pipelines/{}/entries",
    "/api/pipelines/{}/board",
    "/api/pipelines/{}/checkpoints",
    "/api/pipelines/{}/result",
    "/api/pipelines/{}/events",
    "/api/pipeline/{}/orchestration",
    "/api/checkpoint/report?pipeline_id={}",
    "/api/pipeline/logs?pipeline_id={}",
]
JSON = {"Content-Type": "application/json"}


async def test_an_unknown_id_is_not_found_whatever_it_looks_like(api: Api) -> None:
    for id_ in ("p-none", "%00", "%ff%fe", "..%2f..%2fetc", "p" * 5000, "%F0%9F%98%80"):
        for path in OF_ONE:
            answer = await api.client.get(path.format(id_))
            assert answer.status_code == 404, (path, answer.text)
            assert set(answer.json()) == {"error", "detail", "request_id"}
        answer = await api.client.post(f"/api/pipeline/{id_}/stop")
        assert answer.status_code == 404


async def test_unknown_paths_and_wrong_methods_answer_in_the_same_shape(api: Api) -> None:
    for path in ("/api", "/api/", "/api/nothing", "/api/pipelines/", "/api/pipelines/p/x/y", "/nowhere"):
        assert_problem(await api.client.get(path), 404, "not_found")
    for method, path, allowed in (
        ("GET", "/api/spawn", "POST"),
        ("DELETE", "/api/pipelines", "GET"),
        ("PUT", "/api/pipelines/p-none", "GET"),
        ("POST", "/api/pipelines/p-none/events", "GET"),
        ("POST", "/healthz", "GET"),
    ):
        answer = await api.client.request(method, path)
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


async def test_a_browser_gets_a_page_where_nothing_is_and_below_the_api_what_everybody_gets(api: Api) -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    nowhere = await api.client.get("/anything", headers=browser)
    assert (nowhere.status_code, nowhere.headers["content-type"]) == (404, "text/html; charset=utf-8")
    for path in ("/api", "/api/", "/api/nothing", "/api/pipelines/"):
        assert_problem(await api.client.get(path, headers=browser), 404, "not_found")
        assert_problem(await api.client.post(path, headers=browser), 404, "not_found")
    assert_problem(await api.client.delete("/api/pipelines", headers=browser), 405, "method_not_allowed")


BAD_BODIES: list[tuple[Any, str, str]] = [
    ({}, "invalid_objective", "objective: field required"),
    ({"objective": " "}, "invalid_objective", "objective: is empty or blank"),
    ({"objective": 7}, "invalid_objective", "objective: input should be a valid string (given: 7)"),
    ({"objective": "a\x00b"}, "invalid_objective", "control character"),
    ({"objective": "x" * (LONGEST_OBJECTIVE + 1)}, "invalid_objective", "at most 32,768"),
    ({"objective": "x", "timeout": 0}, "invalid_timeout", "timeout: input should be greater than 0 (given: 0)"),
    ({"objective": "x", "timeout": -1, "mode": "cloud"}, "invalid_mode", "timeout: "),
    ({"objective": "x", "timeout": 1e999}, "invalid_json", "JSON"),
    ({"objective": "x", "max_cost": "free"}, "invalid_max_cost", "max_cost"),
    ({"objective": "x", "agents": ["alpha"]}, "invalid_agents", "agents: extra inputs are not permitted"),
    ({"objective": "x", "models": {"DELTA": "m"}}, "invalid_models", "ALPHA"),
    ({"objective": "x", "context": [{"name": "a", "text": ""}]}, "invalid_context", "context.0.text"),
    ({"objective": "x", "context": [{"name": "a", "text": "b" * (LONGEST_CONTEXT + 1)}]}, "invalid_context", "262,144"),
    ({"objective": "x", "mode": "openrouter", "model": "rehearsal/stuck"}, "invalid_mode", "rehearsal"),
    ([], "invalid_body", "body: "),
    ("text", "invalid_body", "body: "),
    (None, "invalid_body", "body: "),
]


async def test_a_bad_body_is_refused_with_its_field(api: Api) -> None:
    for body, error, detail in BAD_BODIES:
        answer = await api.client.post("/api/spawn", content=json.dumps(body).encode(), headers=JSON)
        assert detail in assert_problem(answer, 422, error)
        assert len(answer.json()["detail"]) < 500
    assert await api.services.ledger.waiting(1) == []


NO_JSON = {
    "cut": b"{",
    "nan": b'{"objective": NaN}',
    "utf-8": b'{"objective": "\xff\xfe"}',
    "surrogate": b'{"objective": "\\ud800"}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"objective":' * 50_000,
    "long number": b'{"timeout": ' + b"9" * 10_000 + b"}",
    "nul": b"\x00",
    "trailing": b'{"objective": "x"} trailing',
}


async def test_what_is_no_json_is_said_to_be_none(api: Api) -> None:
    for path in POSTS:
        for body in NO_JSON.values():
            detail = assert_problem(await api.client.post(path, content=body, headers=JSON), 422, "invalid_json")
            assert detail.startswith("the body is no JSON: ")


async def test_a_body_that_is_not_said_to_be_json_is_refused(api: Api) -> None:
    for path in POSTS:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            answer = await api.client.post(path, content=b'{"objective": "x"}', headers={"Content-Type": kind})
            assert_problem(answer, 415, "unsupported_media_type")


async def test_a_body_beyond_the_limit_is_too_large_whether_it_says_so_or_not(api: Api) -> None:
    async def dripping(size: int) -> Any:
        for _ in range(size // 2**16 + 1):
            yield b" " * 2**16

    for path in POSTS:
        limit = LONGEST_SPAWN if path == "/api/spawn" else LONGEST
        for content in (b" " * 10_000_000, dripping(limit)):
            assert_problem(await api.client.post(path, content=content, headers=JSON), 413, "too_large")
    assert (await api.client.get("/healthz")).status_code == 200


async def test_as_many_context_documents_as_may_be_are_taken(api: Api) -> None:
    documents = [{"name": f"document {number}", "text": "x" * LONGEST_CONTEXT} for number in range(32)]
    pipeline_id = await api.spawn(context=documents)
    entries = await api.get(f"/api/pipelines/{pipeline_id}/entries", limit=1)
    assert entries["next"] == 1


BAD_PAGES = (
    "limit=0 limit=501 limit=x limit=99999999999999999999 cursor=garbage cursor=%00 cursor=W251bGwsbnVsbF0 status=DONE "
    f"project=%00 prefix= prefix=%00 prefix={'p' * 201} status=FAILED&status=DONE status= search=a%00b "
    f"search={'y' * 1_001} {'&'.join(['status=FAILED'] * 11)}"
)


async def test_a_bad_page_is_refused(api: Api) -> None:
    for query in BAD_PAGES.split():
        answer = await api.client.get(f"/api/pipelines?{query}")
        assert answer.status_code == 422, (query, answer.text)
        assert set(answer.json()) == {"error", "detail", "request_id"}


async def test_a_bad_stretch_of_entries_or_lines_is_refused(api: Api) -> None:
    pipeline_id = await api.spawn()
    for query in ("after=-1", "after=x", f"after={2**63}", "limit=0", "limit=1.5"):
        for path in (f"/api/pipeline/logs?pipeline_id={pipeline_id}&", f"/api/pipelines/{pipeline_id}/entries?"):
            answer = await api.client.get(path + query)
            assert answer.status_code == 422, (query, answer.text)
    loud = await api.client.get("/api/pipeline/logs", params={"pipeline_id": pipeline_id, "level": "loud"})
    assert_problem(loud, 422, "invalid_level")


async def test_what_is_no_http_is_told_so_in_the_same_shape(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(api.url).port)
    writer.write(b"HELLO\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "bad_request"
    writer.close()


async def test_a_request_id_is_taken_where_it_is_sane_and_made_where_not(api: Api) -> None:
    answer = await api.client.get("/api/nothing", headers={"X-Request-ID": "mine-4711.a_b"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-4711.a_b"
    seen = set()
    for bad in ("", "a b", "x" * 129, "<script>", 'a"b'):
        answer = await api.client.get("/api/nothing", headers={"X-Request-ID": bad})
        seen.add(answer.headers["x-request-id"])
        assert answer.headers["x-request-id"] != bad
    assert len(seen) == 5


async def test_an_unexpected_error_is_a_500_without_internals_and_logged_with_the_request(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.app.state.tickets = None
    answer = await api.client.post("/api/spawn", json={"objective": OBJECTIVE}, headers={"X-Request-ID": "broken-1"})
    detail = assert_problem(answer, 500, "internal_error")
    assert "NoneType" not in detail
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "broken-1" in record.message
    assert record.exc_info
