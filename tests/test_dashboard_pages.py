"""A pipeline's page is whole as it comes from the server, says what is true, and lets nothing run but ours."""

import re

import pytest

from tests.fixtures.api import Api, MakeApi
from trilogue.dashboard.rendering import assets_version

HTML = {"accept": "text/html"}
HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(1)> "quoted' & [link](javascript:alert(1)) \u202egnal"""


async def page(api: Api, path: str, status: int = 200) -> str:
    answer = await api.client.get(path, headers=HTML)
    assert answer.status_code == status, answer.text
    return answer.text


async def test_the_page_shows_both_agents_the_board_and_the_agreed_text(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    shown = await page(api, f"/pipelines/{pipeline_id}")
    assert "Design a caching strategy" in shown
    for part in ("alpha", "middle", "beta", "stepper", "timeline", "budgets", "result", "report", "checkpoints"):
        assert f'data-part="{part}"' in shown
    for thing in (*course.board.proposals, *(message.id for message in course.board.messages)):
        assert f'"thing-{thing}"' in shown or f'data-key="{thing}"' in shown
    assert course.board.consensus
    assert course.board.consensus["title"] in shown


async def test_what_people_and_models_wrote_is_text_and_never_markup(api: Api) -> None:
    pipeline_id = await api.spawn(objective=HOSTILE)
    await api.carry(pipeline_id)
    moment = await api.get(f"/pipelines/{pipeline_id}/moment", at=30)
    pages = [await page(api, f"/pipelines/{pipeline_id}"), await page(api, "/"), *moment["parts"].values()]
    for shown in [*pages, *moment["rows"]]:
        assert "<script>alert" not in shown
        assert not re.search(r"<img|href=.?javascript:|\u202e", shown)


async def test_no_page_may_run_load_or_frame_anything_that_is_not_ours(api: Api) -> None:
    pipeline_id = await api.spawn()
    for path, status in (("/", 200), (f"/pipelines/{pipeline_id}", 200), ("/pipelines/p-none", 404), ("/nowhere", 404)):
        answer = await api.client.get(path, headers=HTML)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script(?! type=\"module\" src=\"/assets/)", answer.text)


async def test_styles_and_scripts_are_kept_for_ever_under_an_address_that_changes_with_them(api: Api) -> None:
    addresses = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', await page(api, "/nowhere", 404)))
    assert {f"/assets/{assets_version()}/style.css", f"/assets/{assets_version()}/page.js"} <= addresses
    for address in addresses:
        answer = await api.client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert (await api.client.get(f"/assets/{assets_version()}/../rendering.py")).status_code == 404
    another = await api.client.get("/assets/another/style.css")
    assert another.headers["cache-control"] == "no-store", "what another version's page gets here must not stay"


async def test_whoever_only_looks_whether_a_page_is_there_is_answered(api: Api) -> None:
    pipeline_id = await api.spawn()
    for path, status in (("/", 200), (f"/pipelines/{pipeline_id}", 200), ("/pipelines/p-none", 404)):
        answer = await api.client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")


async def test_a_pipeline_that_does_not_exist_has_a_page_that_says_so(api: Api) -> None:
    assert "no pipeline &#39;p-none&#39;" in await page(api, "/pipelines/p-none", 404)
    assert "no pipeline" in await page(api, "/pipelines/%00", 404)


async def test_the_page_of_a_moment_shows_what_was_known_then_and_nothing_later(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    proposed = next(entry.seq for entry in course.entries if entry.kind == "proposal")
    then = await page(api, f"/pipelines/{pipeline_id}?at={proposed - 1}")
    assert "thing-p1" not in then
    assert "data-replay" in then
    assert "thing-p1" in await page(api, f"/pipelines/{pipeline_id}?at={proposed}")
    moment = await api.get(f"/pipelines/{pipeline_id}/moment", at=proposed - 1)
    assert course.board.consensus
    del moment["parts"]["moments"]  # they are all there, to go to
    for shown in [*moment["parts"].values(), *moment["rows"]]:
        assert course.board.consensus["title"] not in shown


async def test_a_moment_that_never_was_is_refused(api: Api) -> None:
    pipeline_id = await api.spawn()
    for at in ("0", "-1", "x", str(2**31)):
        assert (await api.client.get(f"/pipelines/{pipeline_id}/moment", params={"at": at})).status_code == 422


@pytest.mark.parametrize(("cookie", "marked"), [("dark", 'data-theme="dark"'), ("light", 'data-theme="light"')])
async def test_the_theme_that_was_chosen_is_there_from_the_first_byte(api: Api, cookie: str, marked: str) -> None:
    answer = await api.client.get("/nowhere", headers=HTML | {"cookie": f"theme={cookie}"})
    assert f'<html lang="en" {marked}>' in answer.text
    odd = await api.client.get("/nowhere", headers=HTML | {"cookie": 'theme="><script>'})
    assert '<html lang="en">' in odd.text


@pytest.mark.parametrize("at", ["0", "-1", "abc", "", "%F0%9F%92%A5", "9" * 5_000, "99999999999"])
async def test_an_address_with_a_moment_that_makes_no_sense_shows_the_present(api: Api, at: str) -> None:
    pipeline_id = await api.spawn()
    assert 'data-replay="' not in (shown := await page(api, f"/pipelines/{pipeline_id}?at={at}"))
    assert "data-replay>" not in shown


async def test_the_pages_and_their_socket_stand_behind_the_same_guard_as_the_api(api_of: MakeApi) -> None:
    api = await api_of(api_key="secret-of-the-test")
    for path in ("/", "/pipelines/p-none", f"/assets/{assets_version()}/style.css", "/nowhere"):
        assert (await api.client.get(path, headers=HTML)).status_code == 401
        evil = {"host": "evil.example", "x-api-key": "secret-of-the-test"}
        assert (await api.client.get(path, headers=evil)).status_code == 421
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    live = "/live?pipeline_id=p-none"
    assert (await api.client.get(live, headers=upgrade)).status_code == 401
    known = upgrade | {"x-api-key": "secret-of-the-test"}
    assert (await api.client.get(live, headers=known | {"origin": "https://evil.example"})).status_code == 403
