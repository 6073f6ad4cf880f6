"""What a person takes away from a page: report, agreed text and outcome, as the ledger has them."""

import asyncio

import httpx

from tests.fixtures.api import Api
from trilogue.outcome import result_markdown

FILES = {
    "report.md": "text/markdown; charset=utf-8",
    "result.md": "text/markdown; charset=utf-8",
    "result.json": "application/json",
}


async def _taken(api: Api, pipeline_id: str, name: str) -> httpx.Response:
    answer = await api.client.get(f"/pipelines/{pipeline_id}/{name}")
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_completed_pipelines_documents_are_those_of_the_ledger(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    report, result, outcome = await asyncio.gather(*(_taken(api, pipeline_id, name) for name in FILES))
    assert course.board.report
    assert report.text == course.board.report["markdown"]
    assert result.text == result_markdown(pipeline_id, course.board)
    assert course.board.consensus
    assert course.board.consensus["text"] in result.text
    assert outcome.json() == await api.get(f"/api/pipelines/{pipeline_id}/result")
    assert outcome.text.startswith('{\n  "pipeline_id"')


async def test_a_browser_saves_them_and_never_shows_them(api: Api) -> None:
    pipeline_id = await api.spawn(objective="<script>alert(1)</script> שלום 😀")
    await api.carry(pipeline_id)
    for name, kind in FILES.items():
        answer = await _taken(api, pipeline_id, name)
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-disposition"] == f'attachment; filename="{pipeline_id}-{name}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    assert "שלום 😀" in (await _taken(api, pipeline_id, "report.md")).text


async def test_what_is_not_there_yet_is_said_on_a_page(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    for name, words in (("report.md", "has no report yet"), ("result.md", "has no result yet: it is SPAWNED")):
        answer = await api.client.get(f"/pipelines/{pipeline_id}/{name}")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "content-disposition" not in answer.headers
        assert words in answer.text
    assert (await _taken(api, pipeline_id, "result.json")).json()["status"] == "SPAWNED"
    await api.carry(pipeline_id)
    assert (await _taken(api, pipeline_id, "report.md")).text.startswith("# Report")
    assert (await api.client.get(f"/pipelines/{pipeline_id}/result.md")).status_code == 404
    await api.client.post(f"/api/pipeline/{pipeline_id}/stop", json={"reason": "enough"})
    assert "No agreed text" in (await _taken(api, pipeline_id, "result.md")).text


async def test_an_unknown_pipeline_has_no_documents(api: Api) -> None:
    for pipeline_id in ("p-000000000000", "<b>x", "x%0d%0aSet-Cookie:a=b", "%00", "%22"):
        for name in FILES:
            answer = await api.client.get(f"/pipelines/{pipeline_id}/{name}")
            assert answer.status_code == 404, (pipeline_id, name)
            assert answer.headers["content-type"].startswith("text/html")
            assert "no pipeline" in answer.text
            assert "<b>" not in answer.text
            assert "set-cookie" not in answer.headers


async def test_they_are_no_part_of_the_apis_description(api: Api) -> None:
    assert not [path for path in (await api.get("/openapi.json"))["paths"] if path.startswith("/pipelines")]
