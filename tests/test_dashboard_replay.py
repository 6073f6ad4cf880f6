"""Replay: every moment of a pipeline is shown as it stood, quickly, and the way back to the present needs no reload."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from playwright.async_api import Page, expect

from tests.browser.accessibility import accessible
from tests.driving import Driver, MakeDriver
from tests.fixtures.api import Api
from tests.fixtures.browser import Browsing
from tests.fixtures.served import served_at
from trilogue.clock import iso
from trilogue.dashboard import past as past_module
from trilogue.dashboard.parts import moments
from trilogue.dashboard.parts.moments import shown
from trilogue.dashboard.past import Past
from trilogue.dashboard.stage import ROWS_AT_ONCE
from trilogue.dashboard.story import Story
from trilogue.desk import local
from trilogue.entry import Entry, Kind
from trilogue.errors import NotFound
from trilogue.ledger.opening import TENANT
from trilogue.testing.long_story import write_long_story
from trilogue.testing.openrouter import OpenRouterServer

LONG = "p-long"
_COMPLETED = "async id => (await (await fetch(`/api/pipelines/${id}`)).json()).status === 'COMPLETED'"


@pytest.fixture
async def driver(rehearsed: OpenRouterServer, driver_of: MakeDriver) -> Driver:
    return await driver_of(rehearsed)


@pytest.fixture
async def past(driver: Driver) -> AsyncIterator[Past]:
    kept = Past(driver.services)
    yield kept
    kept.close()


async def entries_of(driver: Driver, pipeline_id: str) -> list[Entry]:
    return await driver.services.ledger.entries(TENANT, pipeline_id)


async def test_every_moment_is_what_its_entries_alone_come_to(
    driver: Driver, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past_module, "APART", 7)
    held = (await driver.run(auto_continue=False)).pipeline_id
    await local(driver.services).rewind(held, 5, "spawned", "once more")
    entries = (await driver.carry(held)).entries
    assert Kind.REWOUND in {entry.kind for entry in entries}
    seqs = [*range(1, len(entries) + 1)] * 2
    Random(1).shuffle(seqs)
    for seq in seqs:
        scene = await past.scene(held, seq)
        assert scene.story == Story.told(entries[:seq])
        assert (scene.replay, scene.now == scene.story.board.at) == ((seq < len(entries)),) * 2


async def test_moments_in_between_are_not_changed_by_what_is_folded_on_from_them(driver: Driver, past: Past) -> None:
    pipeline_id = (await driver.run()).pipeline_id
    early, whole = await past.scene(pipeline_id, 20), await past.scene(pipeline_id, None)
    assert early.story == Story.told((await entries_of(driver, pipeline_id))[:20])
    early.story.board.guidance = ("mine",)
    early.story.entries.clear()
    assert (await past.scene(pipeline_id, 20)).story.board.guidance == ()
    assert len(whole.whole) == whole.row.head_seq


async def test_what_happened_since_is_there_at_the_next_question(driver: Driver, past: Past) -> None:
    pipeline_id = (await driver.run(auto_continue=False)).pipeline_id
    head = (await past.scene(pipeline_id, None)).story.board.seq
    await driver.carry_on(pipeline_id, guidance="go on")
    later = await past.scene(pipeline_id, None)
    assert later.story == Story.told(await entries_of(driver, pipeline_id))
    assert later.story.board.guidance == ("go on",)
    assert (await past.scene(pipeline_id, head)).replay


async def test_an_unknown_pipeline_and_a_moment_to_come(driver: Driver, past: Past) -> None:
    with pytest.raises(NotFound):
        await past.scene("p-none", 3)
    pipeline_id = await driver.spawn()
    scene = await past.scene(pipeline_id, 99)
    assert (scene.replay, scene.story.board.seq) == (False, 1)


async def test_a_slider_reads_the_entries_once_and_folds_few_of_them_for_each_moment(
    driver: Driver, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_long_story(driver.services.ledger, TENANT, LONG, entries=3 * past_module.APART)
    first = await past.scene(LONG, None)
    folded = Counter[str]()
    add = Story.add

    def counted(story: Story, entry: Entry) -> None:
        folded["entries"] += 1
        add(story, entry)

    monkeypatch.setattr(Story, "add", counted)
    for seq in range(3 * past_module.APART, 1, -41):
        scene = await past.scene(LONG, seq)
        assert scene.story.board.seq == seq
        assert scene.whole is first.whole
        assert folded.pop("entries", 0) < past_module.APART


async def test_only_so_many_pipelines_are_kept_in_memory(driver: Driver, past: Past) -> None:
    for number in range(past_module.MOST_KEPT + 3):
        pipeline_id = await driver.spawn(external_id=f"one-{number}")
        await past.scene(pipeline_id, None)
    assert len(past._told) == len(past._forgetting) == past_module.MOST_KEPT


async def test_a_moment_is_told_with_its_words_and_the_next_one(api: Api) -> None:
    pipeline_id = await api.spawn()
    entries = (await api.carry(pipeline_id)).entries
    proposal = next(entry for entry in entries if entry.kind is Kind.PROPOSAL)
    moment = await api.get(f"/pipelines/{pipeline_id}/moment", at=proposal.seq)
    assert (moment["seq"], moment["at"], moment["head"]) == (proposal.seq, iso(proposal.at), len(entries))
    assert moment["replay"] is True
    assert moment["told"].startswith("ALPHA · proposal p1: ")
    following = entries[proposal.seq]
    together = [entry for entry in entries if entry.at == following.at]
    assert moment["next"] == {"seq": together[-1].seq, "wait": (following.at - proposal.at) // 1_000}
    last = await api.get(f"/pipelines/{pipeline_id}/moment", at=len(entries))
    assert (last["next"], last["replay"]) == (None, False)


async def test_a_moment_brings_only_the_rows_that_the_log_does_not_have(api: Api) -> None:
    pipeline_id = await api.spawn()
    await api.carry(pipeline_id)
    address = f"/pipelines/{pipeline_id}/moment"
    forth = await api.get(address, at=25, after=20)
    assert (forth["rows_after"], len(forth["rows"])) == (20, 5)
    back = await api.get(address, at=25, after=40)
    assert (back["rows_after"], len(back["rows"])) == (0, 25)
    await write_long_story(api.services.ledger, TENANT, LONG, entries=600)
    far = await api.get(f"/pipelines/{LONG}/moment", at=500, after=3)
    assert (far["rows_after"], len(far["rows"])) == (500 - ROWS_AT_ONCE, ROWS_AT_ONCE)


async def test_the_marks_are_those_of_the_whole_pipeline_at_every_moment(api: Api) -> None:
    pipeline_id = await api.spawn()
    entries = (await api.carry(pipeline_id)).entries
    early, late = [await api.get(f"/pipelines/{pipeline_id}/moment", at=at) for at in (5, len(entries))]
    assert early["parts"]["moments"] == late["parts"]["moments"]
    marked = {int(seq) for seq in re.findall(r'<option value="(\d+)"', late["parts"]["moments"])}
    kinds = {Kind.PHASE_STARTED, Kind.ROUND_STARTED, Kind.PROPOSAL, Kind.REVISION, Kind.CONSENSUS}
    assert marked == {entry.seq for entry in entries if entry.kind in kinds}


async def test_of_many_proposals_the_latest_are_marked_and_everything_rarer_always(
    driver: Driver, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "MOST_MARKS", 5)
    await write_long_story(driver.services.ledger, TENANT, LONG, entries=300)
    scene = await past.scene(LONG, None)
    marks = shown(scene)["marks"]
    said = [entry.seq for entry in scene.whole if entry.kind in {Kind.PROPOSAL, Kind.REVISION}]
    assert [mark.seq for mark in marks if not mark.tall] == said[-5:]
    assert {"REPORT begins", "ORCHESTRATE begins"} <= {mark.words for mark in marks}
    assert any(mark.tone == "gamma" for mark in marks)


async def test_a_rewound_pipeline_marks_where_it_went_back(driver: Driver, past: Past) -> None:
    held = (await driver.run(auto_continue=False)).pipeline_id
    await local(driver.services).rewind(held, 5, "spawned", "once more")
    words = [mark.words for mark in shown(await past.scene(held, 6))["marks"]]
    assert words[-1] == "rewound once more"


async def moment_shown(page: Page) -> int:
    return int(await page.locator("main").get_attribute("data-seq") or 0)


@pytest.mark.browser
async def test_a_reader_goes_back_in_time_and_returns_without_a_reload(
    browsing: Browsing, tmp_path: Path, valkey_socket: Path
) -> None:
    with served_at(tmp_path / "served", valkey_socket) as server:
        page = await browsing.open(server.url)
        answer = await page.request.post(f"{server.url}/api/spawn", data={"objective": "Choose a queue"})
        pipeline_id = (await answer.json())["pipeline_id"]
        await page.goto(f"{server.url}/pipelines/{pipeline_id}")
        main, slider = page.locator("main"), page.get_by_role("slider")
        await expect(page.locator('[data-part="masthead"] [data-status="COMPLETED"]')).to_be_visible()
        await expect(slider).to_have_attribute("aria-valuetext", re.compile("the present"))
        head = await moment_shown(page)
        await page.evaluate("window.untouched = true")

        await slider.focus()
        await page.keyboard.press("Home")
        await expect(main).to_have_attribute("data-seq", "1")
        await expect(page.locator("[data-log] > [data-seq]")).to_have_count(1)
        await page.keyboard.press("ArrowRight")
        await expect(slider).to_have_attribute("aria-valuetext", re.compile(f"^seq 2 of {head} · "))
        await expect(main).to_have_attribute("data-replay", "")
        await expect(page).to_have_url(re.compile(r"\?at=2$"))
        for name in ("Continue", "Resume", "STOP"):
            await expect(page.get_by_role("button", name=name)).to_have_attribute("aria-disabled", "true")
        await accessible(page)

        await page.reload()
        await expect(slider).to_have_value("2")
        jump = page.get_by_label("Go to a moment")
        await jump.select_option(index=2)
        await expect(main).to_have_attribute("data-seq", await jump.input_value())
        await page.evaluate("window.untouched = true")
        await page.get_by_label("Speed").select_option("16×")
        await page.get_by_role("button", name="Play").click()
        await expect(main).to_have_attribute("data-seq", str(head))
        await expect(main).not_to_have_attribute("data-replay", "")

        await page.get_by_role("button", name="Previous entry").click()
        await expect(main).to_have_attribute("data-seq", str(head - 1))
        await page.get_by_role("link", name="Back to the present").click()
        await expect(main).not_to_have_attribute("data-replay", "")
        await expect(main).to_have_attribute("data-seq", str(head))
        await expect(page).to_have_url(re.compile(rf"/{pipeline_id}$"))
        await expect(slider).to_be_focused()
        assert await page.evaluate("window.untouched")
        assert await page.locator("[data-log] > [data-seq]").count() == head


@pytest.mark.browser
async def test_while_the_past_is_shown_the_present_does_not_write_over_it(
    browsing: Browsing, tmp_path: Path, valkey_socket: Path
) -> None:
    with served_at(tmp_path / "served", valkey_socket) as server:
        page = await browsing.open(server.url)
        body = {"objective": "Choose a queue", "auto_continue": False}
        spawned = await page.request.post(f"{server.url}/api/spawn", data=body)
        pipeline_id = (await spawned.json())["pipeline_id"]
        await page.goto(f"{server.url}/pipelines/{pipeline_id}")
        await expect(page.locator('[data-part="masthead"] [data-status="REPORT"]')).to_contain_text("held")
        await page.get_by_role("slider").focus()
        await page.keyboard.press("ArrowLeft")
        await expect(page.get_by_role("slider")).to_have_attribute("aria-valuetext", re.compile("^seq "))
        then = await moment_shown(page)
        go_on = await page.request.post(f"{server.url}/api/pipeline/continue", data={"pipeline_id": pipeline_id})
        assert go_on.status == 202
        await page.wait_for_function(_COMPLETED, arg=pipeline_id)
        assert await moment_shown(page) == then
        await page.get_by_role("link", name="Back to the present").click()
        await expect(page.locator('[data-part="masthead"] [data-status="COMPLETED"]')).to_be_visible()
        assert await moment_shown(page) > then
