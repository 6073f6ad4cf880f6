"""Home: what can be asked for as it is configured, and the list of what was, as it stands."""

import contextlib
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.api import Api, MakeApi
from tests.fixtures.book import until
from tests.fixtures.model_server import KEY
from tests.watching import Scribe, Station, Watching, scribe
from trilogue import clock
from trilogue.dashboard import lookout
from trilogue.dashboard.listing import EXAMPLES, PER_PAGE, STATES, Wanted
from trilogue.dashboard.rendering import assets_version
from trilogue.dashboard.spawning import offered
from trilogue.desk import local
from trilogue.entry import Draft, Kind
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec, checked_spec

LIVE = "/live/list"
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> \u202e"\'</table>'


class Listed(HTMLParser):
    """The rows of a list, and everything that the page links to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: dict[str, str] = {}
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._row: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "tr":
            self._row = given.get("data-key")
        if tag == "a":
            self.links.append(str(given["href"]))

    def handle_data(self, data: str) -> None:
        if self._row:
            self.rows[self._row] = " ".join(f"{self.rows.get(self._row, '')} {data}".split())


async def got(api: Api, path: str, status: int = 200) -> str:
    answer = await api.client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    return answer.text


async def listed(api: Api, query: str = "") -> Listed:
    """What the list shows, which the page and its fragment show alike."""
    fragment = await got(api, f"/list{query}")
    assert fragment.strip() in await got(api, f"/{query}")
    return Listed(fragment)


async def test_a_newcomer_is_told_what_to_do(api: Api) -> None:
    html = await got(api, "/")
    assert "No pipelines yet" in html
    assert "trilogue run" in html
    assert "OPENROUTER_API_KEY" in html
    assert [given["data-example"] for _, given in Listed(html).tags if "data-example" in given] == list(EXAMPLES)
    for example in EXAMPLES:
        checked_spec(objective=example)


async def test_each_pipeline_is_listed_as_it_stands(api: Api) -> None:
    done = await api.spawn(objective="Choose a queue", project="orders", labels=["a", "b", "c", "d"], external_id="t-1")
    await api.carry(done)
    held = await api.spawn(auto_continue=False)
    await api.carry(held)
    waiting = await api.spawn()
    stopped = await api.spawn()
    await api.client.post(f"/api/pipeline/{stopped}/stop", json={"reason": "enough"})
    page = await listed(api)
    assert list(page.rows) == [stopped, waiting, held, done]
    assert page.rows[done].startswith("Completed Choose a queue")
    for words in (done, "t-1", "a", "and 1 more", "COMPLETE", "orders", "$"):
        assert words in page.rows[done]
    assert page.rows[held].startswith("Report held ")
    assert page.rows[waiting].startswith("Spawned waiting for a worker ")
    assert page.rows[stopped].startswith("Stopped ")
    assert {f"/pipelines/{pipeline_id}" for pipeline_id in page.rows} <= set(page.links)


async def test_a_pipeline_that_nobody_acts_for_is_said_to_be_so(api: Api) -> None:
    lost = await api.spawn()
    await api.services.ledger.claim(TENANT, lost, owner="gone", lease_seconds=0.0, flow_run_id=None)
    assert "no worker acts for it" in (await listed(api)).rows[lost]


async def test_a_cost_that_is_not_known_is_not_shown_as_nothing(api: Api) -> None:
    free, unknown = await api.spawn(), await api.spawn()
    await api.carry(free)
    api.models.cost = None
    await api.carry(unknown)
    page = await listed(api)
    assert "unknown" not in page.rows[free]
    assert "unknown" in page.rows[unknown]


async def test_the_list_is_narrowed_by_words_by_state_and_by_project(api: Api) -> None:
    queue = await api.spawn(objective="Choose a QUEUE", project="orders & more")
    cache = await api.spawn(objective="Choose a cache")
    await api.client.post(f"/api/pipeline/{cache}/stop")
    assert list((await listed(api, "?q=queue")).rows) == [queue]
    assert list((await listed(api, "?state=stopped")).rows) == [cache]
    assert list((await listed(api, "?state=under-way&q=choose")).rows) == [queue]
    project = "?project=orders+%26+more"
    assert f"/{project}" in (await listed(api)).links
    assert list((await listed(api, project)).rows) == [queue]
    for query in ("?q=zebra", "?state=completed", f"{project}&state=stopped"):
        html = await got(api, f"/{query}")
        assert "No pipeline matches" in html
        assert "No pipelines yet" not in html
        assert Listed(html).rows == {}


async def test_what_was_asked_for_stays_in_the_form_and_in_the_links(api: Api) -> None:
    await api.spawn(objective='A "quoted" word')
    query = "?q=%22quoted%22&state=under-way&project=default"
    html = await got(api, f"/{query}")
    page = Listed(html)
    fields = {given.get("name"): given.get("value") for tag, given in page.tags if tag == "input"}
    assert (fields["q"], fields["state"], fields["project"]) == ('"quoted"', "under-way", "default")
    assert "/?q=%22quoted%22&state=stopped&project=default" in page.links
    assert "/?q=%22quoted%22&project=default" in page.links


def test_every_status_is_in_one_state() -> None:
    found = [status for state in STATES for status in state.statuses]
    assert sorted(found) == sorted(Status)


async def test_older_pipelines_are_a_page_further_and_newer_ones_do_not_move_them(api: Api) -> None:
    ids = [await spawned(api.services, number) for number in range(PER_PAGE + 3)]
    newest = await listed(api)
    assert list(newest.rows) == ids[:2:-1]
    [older] = [link for link in newest.links if "cursor" in link]
    await spawned(api.services, 999)
    page = Listed(await got(api, older))
    assert list(page.rows) == ids[2::-1]
    assert not [link for link in page.links if "cursor" in link]
    assert "Newest" in await got(api, older)


async def spawned(services: Services, number: int) -> str:
    spec = PipelineSpec(objective=f"Number {number}", mode="local")
    return await local(services).spawn(spec, may_rehearse=True, pipeline_id=f"p-{number:03}")


async def test_what_is_under_way_or_held_is_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trilogue.dashboard.home.MOST_COUNTED", 3)
    monkeypatch.setattr("trilogue.dashboard.listing.MOST_COUNTED", 3)
    for number in range(3):
        await spawned(api.services, number)
    counted = r'Under way <span class="count">{}</span>'
    assert counted.format("3") in await got(api, "/list?state=stopped")
    await spawned(api.services, 3)
    assert counted.format("4+") in await got(api, "/list")


async def test_what_people_wrote_is_text(api: Api) -> None:
    pipeline_id = await api.spawn(objective=HOSTILE, project=HOSTILE, labels=[HOSTILE], external_id=HOSTILE)
    page = Listed(await got(api, "/"))
    assert "<script>alert(1)</script>" in page.rows[pipeline_id]
    assert "\u202e" not in page.rows[pipeline_id]
    assert not [given for tag, given in page.tags if tag == "img"]
    await got(api, page.links[page.links.index(f"/pipelines/{pipeline_id}") + 1])
    for tag, given in page.tags:
        assert not [name for name in given if name.startswith("on") or name == "style"], (tag, given)
        assert tag != "script" or given["src"]


async def test_a_query_that_makes_no_sense_is_answered_by_a_page_that_says_so(api: Api) -> None:
    for query, words in {"?cursor=x": "cursor", "?q=%00": "search", "?project=%00": "project"}.items():
        html = await got(api, f"/{query}", 422)
        assert words in html.partition('<p class="problem" dir="auto">')[2]
        assert "What do you want decided?" in html
        assert '<a class="button" href="/">' in await got(api, f"/list{query}", 422)


async def test_the_page_stands_while_the_ledger_cannot_be_read(api: Api, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute("DROP TABLE usage")
    await api.spawn()
    assert "What do you want decided?" in await got(api, "/", 503)
    assert "no such table" in await got(api, "/list", 503)


def test_another_choice_begins_with_the_newest() -> None:
    assert Wanted(cursor="x", q="a b").address() == "/?q=a+b"
    assert Wanted(cursor="x").address(state="stopped") == "/?state=stopped"
    assert Wanted.of("", "<b>", " ", "").address() == "/"


async def test_a_list_where_all_stands_still_need_not_be_looked_at_again(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    moving = await got(api, "/list")
    assert "data-unsettled" in moving
    assert await got(api, "/list") == moving
    await api.carry(pipeline_id)
    assert "data-unsettled" not in await got(api, "/list")


LOCAL = {"local_model_url": "http://me:secret@models.example:8000/v1"}
ROUTER = {"openrouter_api_key": SecretStr(KEY), "openrouter_model": "test/one"}


@pytest.mark.parametrize(
    ("configured", "may_rehearse", "mode", "words"),
    [
        ({}, True, "", "No model is configured: this will be a rehearsal"),
        ({}, False, "", "Nothing says which model to use"),
        ({}, False, "local", "this will be a rehearsal"),
        (ROUTER, True, "", "test/one at openrouter.ai"),
        (ROUTER, True, "local", "No model server is configured: this will be a rehearsal"),
        (LOCAL, True, "", "at models.example:8000"),
        (LOCAL | ROUTER, True, "openrouter", "test/one at openrouter.ai"),
        (ROUTER, True, "rehearsal", "This will be a rehearsal"),
    ],
)
def test_it_is_said_beforehand_which_model_would_answer(
    configured: dict[str, Any], may_rehearse: bool, mode: str, words: str
) -> None:
    nothing = {"openrouter_api_key": None, "vault_addr": None, "local_model_url": None}
    offer = offered(load_settings(**(nothing | configured)), may_rehearse=may_rehearse)
    [said] = [one for one in offer["answering"] if one.mode == mode]
    assert words in (said.words or f"{said.model} at {said.where}")
    assert "secret" not in repr(offer["answering"])


async def test_choices_and_defaults_are_those_of_the_server(api_of: MakeApi) -> None:
    api = await api_of(orchestration_timeout=77.0, auto_orchestrate=False, fallback_models="test/two")
    html = await got(api, "/")
    assert 'placeholder="77 as configured"' in html
    assert "AUTO_ORCHESTRATE is off" in html
    assert KEY not in html
    options = [str(given.get("value")) for tag, given in Listed(html).tags if tag == "option"]
    assert {"test/one", "test/two", "rehearsal/conflict"} <= set(options)


@pytest.fixture
async def writer(elsewhere: Services) -> Scribe:
    return await scribe(elsewhere, "p-one")


async def news(page: Watching) -> None:
    await page.until(lambda message: message["type"] == "news")


async def test_a_list_is_told_to_look_at_once_and_whenever_something_happens(
    events_at: Station, writer: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "PAUSE", 0.0)
    async with events_at.watching(path=LIVE) as page:
        assert (await page.next())["assets"] == assets_version()
        assert await page.next() == {"type": "news"}
        for number in range(3):
            seen = len(page.came)
            await writer.say()
            await news(page)
            assert len(page.came) > seen, number
    await until(lambda: not events_at.app.state.house._seats)


async def test_however_much_happens_a_list_is_told_at_most_twice_a_second(events_at: Station, writer: Scribe) -> None:
    async with events_at.watching(path=LIVE) as page:
        await news(page)
        began = clock.now()
        for _ in range(2):
            await writer.write(
                [Draft(kind=Kind.MESSAGE, actor="alpha-1", body=_message(number)) for number in range(5)]
            )
            await news(page)
        assert clock.now() - began >= clock.seconds(0.9 * 2 * lookout.PAUSE)


def _message(number: int) -> dict[str, Any]:
    return {"id": f"m{number}", "to": "ALL", "content": "x", "turn": 1}


async def test_a_list_that_hears_nothing_for_long_gets_a_sign_of_life(events_at: Station) -> None:
    events_at.app.state.house.heartbeat = 0.05
    async with events_at.watching(path=LIVE) as page:
        await page.until(lambda message: message["type"] == "beat")
        assert [message["type"] for message in page.came[:2]] == ["hello", "news"]  # though nothing has happened


async def test_a_server_that_goes_away_sends_its_lists_away_first(events_at: Station) -> None:
    async with events_at.watching(path=LIVE) as page:
        await news(page)
        events_at.closing()
        assert (await page.closed())[0] == 1012
