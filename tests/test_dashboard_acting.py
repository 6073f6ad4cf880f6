"""What the page offers to do is what would be done, and where it offers nothing it says why; a stop shows when all
stood still."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import expect

from tests.browser.accessibility import accessible
from tests.driving import Driver, MakeDriver
from tests.fixtures.api import Api
from tests.fixtures.browser import Browsing
from tests.fixtures.served import served_at
from tests.watching import Station, scribe
from trilogue import clock, interventions, phases
from trilogue.agent import AgentStatus, Role
from trilogue.board import Board
from trilogue.dashboard.drawing import draw
from trilogue.dashboard.possible import no_rewind, possible
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.statuses import plain, standing
from trilogue.dashboard.story import Story
from trilogue.desk import local
from trilogue.entry import Draft, Kind
from trilogue.errors import Conflict
from trilogue.ledger import Fence, PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.spec import RoundSpec
from trilogue.testing.openrouter import OpenRouterServer

Holding = Literal["leased", "queued", "idle"]

_MODELS = dict.fromkeys(Role, "test/one")
_FINDING = {"title": "t", "text": "t", "evidence": "", "confidence": 0.5, "complexity": 0.1, "turn": 0}
_BEFORE_THE_ROUND = {Status.SPAWNED, Status.RUNNING, Status.REPORT, Status.FAILED}
_NOTHING = RoundSpec(reason="to see whether it works")


class Course:
    """A pipeline that is brought where a test wants it, by the entries of a worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.pipeline_id = ""
        self.fence: Fence

    async def bring(self, driver: Driver, status: Status, holding: Holding, *, auto: bool) -> None:
        self.pipeline_id = await driver.spawn(auto_continue=auto)
        await self._claim()
        if status is not Status.SPAWNED:
            await self._append(lambda board: phases.enlisted(board, _MODELS, clock.now()) + phases.running(board))
        if status not in {Status.SPAWNED, Status.RUNNING, Status.FAILED}:
            found = Draft(kind=Kind.FINDING, actor="alpha-1", body={"id": "f1", **_FINDING})
            done = [phases.agent_status(agent_id, AgentStatus.COMPLETED) for agent_id in ("alpha-1", "beta-1")]
            await self._append(lambda _: [found, *done])
            await self._append(lambda board: phases.reported(board, auto_orchestrate=True))
        if status not in _BEFORE_THE_ROUND:
            await self._append(lambda board: interventions.first_round(board, clock.now()))
        if status is Status.STOPPED:
            await local(self.services).stop(self.pipeline_id, "enough")
        elif status.ended:
            body = {"status": status.value, "error": None}
            await self._append(lambda _: [Draft(kind=Kind.STATUS, body=body)])
        if holding != "leased":
            await self.services.ledger.release(self.fence, owner="test", queued=holding == "queued")

    async def scene(self, *, replay: bool = False) -> Scene:
        row = await self.services.ledger.get_pipeline(TENANT, self.pipeline_id)
        story = Story.told(await self.services.ledger.entries(TENANT, self.pipeline_id))
        return Scene(story=story, row=row, now=clock.now(), replay=replay)

    async def _claim(self) -> None:
        claim = await self.services.ledger.claim(
            TENANT, self.pipeline_id, owner="test", lease_seconds=60, flow_run_id=None
        )
        self.fence = claim.fence

    async def _append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        board = await local(self.services).board(self.pipeline_id)
        await self.services.ledger.append(self.fence, build(board), at=clock.now())


@pytest.fixture
async def driver(rehearsed: OpenRouterServer, driver_of: MakeDriver) -> Driver:
    return await driver_of(rehearsed)


async def taken(act: Callable[[], Awaitable[None]]) -> bool:
    """Whether the services do it."""
    try:
        await act()
    except Conflict:
        return False
    return True


def holdings(status: Status) -> list[Holding]:
    if status is Status.STOPPED:
        return ["idle"]  # a stop takes the lease away
    return ["leased", "idle"] if status.ended else ["leased", "queued", "idle"]


@pytest.mark.parametrize("auto", [True, False])
@pytest.mark.parametrize("status", Status)
async def test_the_page_offers_exactly_what_the_services_would_do(driver: Driver, status: Status, auto: bool) -> None:
    services = driver.services
    for holding in holdings(status):
        for name in ("continue_", "stop", "resume"):
            course = Course(services)
            await course.bring(driver, status, holding, auto=auto)
            scene = await course.scene()
            assert (scene.story.board.status, scene.row.leased) == (status, holding == "leased")
            why_not = getattr(possible(scene), name)
            acts: dict[str, Callable[[], Awaitable[None]]] = {
                "continue_": lambda course=course: local(services).begin_round(
                    course.pipeline_id, _NOTHING, queued=True
                ),
                "stop": lambda course=course: local(services).stop(course.pipeline_id, ""),
                "resume": lambda course=course: local(services).take_up_again(course.pipeline_id, _NOTHING),
            }
            done = await taken(acts[name])
            without_effect = name == "resume" and (holding == "queued" or (status is Status.REPORT and not auto))
            if done and without_effect:
                assert why_not, "it would be taken and change nothing"
            else:
                assert done == (why_not is None), (status, holding, name, why_not)
            assert why_not is None or re.fullmatch(r"[A-Z].*\.", why_not)


async def test_nothing_can_be_done_with_the_past(driver: Driver) -> None:
    course = Course(driver.services)
    await course.bring(driver, Status.REPORT, "idle", auto=False)
    now, then = await course.scene(), await course.scene(replay=True)
    assert (possible(now).continue_, possible(now).stop) == (None, None)
    assert {possible(then).continue_, possible(then).stop, possible(then).resume} == {no_rewind(then, 1)}
    assert "Go back to the present" in (possible(then).stop or "")


def row_of(scene: Scene, **changed: object) -> PipelineRow:
    return replace(scene.row, **changed)  # type: ignore[arg-type]  # fields by name


async def test_how_a_pipeline_stands_is_said_in_words_and_one_tone(driver: Driver) -> None:
    course = Course(driver.services)
    await course.bring(driver, Status.ORCHESTRATING, "leased", auto=True)
    scene = await course.scene()
    now = scene.row.read_at

    def stands(status: Status, **changed: object) -> tuple[str, str | None, bool]:
        shown = standing(row_of(scene, status=status, **changed))
        return shown.tone, shown.note, shown.live

    idle: dict[str, object] = {"lease_until": None, "queued_at": None, "released_at": now}
    assert stands(Status.ORCHESTRATING) == ("busy", None, True)
    assert stands(Status.ORCHESTRATING, lease_until=now - 1) == ("bad", "no worker acts for it", False)
    assert stands(Status.ORCHESTRATING, **idle | {"queued_at": now}) == ("busy", "waiting for a worker", False)
    assert stands(Status.SPAWNED, **idle | {"queued_at": now}) == ("idle", "waiting for a worker", False)
    assert stands(Status.REPORT) == ("busy", "going on", True)
    assert stands(Status.REPORT, **idle) == ("held", "held", False)
    assert stands(Status.STOPPED, **idle | {"released_at": now + 1}) == (
        "stopped",
        "the last calls are being ended",
        False,
    )
    assert stands(Status.COMPLETED, **idle) == ("fine", None, False)
    assert all(plain(status).word and not plain(status).live for status in Status)


def part(html: str, name: str) -> str:
    """The words of one part of a page."""
    found = re.search(rf'data-part="{name}"[^>]*>(.*?)(?=<[a-z]+ class="part|<section)', html, re.DOTALL)
    assert found, name
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split())


async def shown(api: Api, pipeline_id: str, name: str) -> str:
    answer = await api.client.get(f"/pipelines/{pipeline_id}")
    assert answer.status_code == 200
    return part(answer.text, name)


async def test_the_head_of_the_page_says_what_it_is_about_and_what_it_took(api: Api) -> None:
    pipeline_id = await api.spawn(
        objective="Choose a queue\nfor orders", labels=["review"], external_id="ticket-4711", project="shop"
    )
    await api.carry(pipeline_id)
    head = await shown(api, pipeline_id, "masthead")
    for fact in ("Completed", pipeline_id, "project shop", "ticket-4711", "openrouter · test/one", "review", "round 1"):
        assert fact in head
    assert "Rehearsal" not in head
    assert await shown(api, pipeline_id, "objective") == "Choose a queue for orders"
    told = (await api.get(f"/api/pipelines/{pipeline_id}"))["budget"]["spent_usd"]
    assert f"cost ${told:,.4f}" in head


async def test_an_unknown_cost_is_never_shown_as_nothing(driver: Driver) -> None:
    entries = (await driver.run()).entries
    course = Course(driver.services)
    course.pipeline_id = entries[0].pipeline_id
    known = await course.scene()
    unknown = Story.told(
        replace(entry, body={**entry.body, "cost_nanousd": None}) if entry.kind is Kind.TURN_ENDED else entry
        for entry in entries
    )
    assert "cost <b>$" in draw(known)["masthead"]
    assert "cost <b>unknown" in draw(replace(known, story=unknown))["masthead"]


async def test_a_long_objective_and_long_documents_are_shown_in_part_at_first(api: Api) -> None:
    text = "Every order is kept. " * 400
    pipeline_id = await api.spawn(objective="Decide. " * 300, context=[{"name": "design.md", "text": text}])
    page = (await api.client.get(f"/pipelines/{pipeline_id}")).text
    assert re.search(r'<h1 id="objective" class="clamp"', page)
    assert "Show all" in page
    given = part(page, "given")
    assert f"design.md {len(text):,} characters" in given
    assert len(given) < 2_500
    seq = next(e.seq for e in await api.services.ledger.entries(TENANT, pipeline_id) if e.kind is Kind.CONTEXT)
    assert f"entries?after={seq - 1}&amp;limit=1" in page


async def test_guidance_and_the_error_of_a_round_are_shown_with_what_can_be_done_next(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    await api.carry(pipeline_id)
    assert "Read the report, then continue it" in await shown(api, pipeline_id, "masthead")
    asked = {"pipeline_id": pipeline_id, "guidance": "We run on one machine.", "timeout": 0.001}
    assert (await api.client.post("/api/pipeline/continue", json=asked)).status_code == 202
    await api.carry(pipeline_id)
    head = await shown(api, pipeline_id, "masthead")
    assert "Timed out" in head
    assert "no agreement within" in head
    assert "Continue it, and another round begins." in head
    assert "We run on one machine." in await shown(api, pipeline_id, "given")


async def test_a_stop_shows_when_everything_stood_still_also_to_whoever_comes_later(api: Api) -> None:
    pipeline_id = await api.spawn()
    ledger = api.services.ledger
    claim = await ledger.claim(TENANT, pipeline_id, owner="slow", lease_seconds=60, flow_run_id=None)
    assert (await api.client.post(f"/api/pipeline/{pipeline_id}/stop", json={"reason": "wrong"})).status_code == 200
    head = await shown(api, pipeline_id, "masthead")
    assert "the last calls are being ended" in head
    assert "stood still" not in head
    await ledger.release(claim.fence, owner="slow")
    head = await shown(api, pipeline_id, "masthead")
    assert re.search(r"everything stood still \d+\.\d\d s later", head)
    assert "Why it was stopped wrong" in head
    assert "It can be resumed where it was." in head


async def test_an_open_page_is_told_when_everything_stood_still(events_at: Station, elsewhere: Services) -> None:
    worker = await scribe(elsewhere, "p-one")
    async with events_at.watching("pipeline_id=p-one", path="/live") as page:
        await page.until(lambda message: "masthead" in message.get("parts", {}))
        await local(elsewhere).stop("p-one", "enough")
        ending = await page.until(lambda message: "Stopped" in message.get("parts", {}).get("masthead", ""))
        assert "the last calls are being ended" in ending["parts"]["masthead"]
        await elsewhere.ledger.release(worker.fence, owner="scribe")
        await page.until(lambda message: "everything stood still" in message.get("parts", {}).get("masthead", ""))


@pytest.mark.browser
async def test_a_refusal_leaves_the_dialog_and_what_was_written_in_it(
    browsing: Browsing, tmp_path: Path, valkey_socket: Path
) -> None:
    with served_at(tmp_path / "served", valkey_socket) as server:
        page = await browsing.open(server.url)
        spawned = await page.request.post(
            f"{server.url}/api/spawn", data={"objective": "Choose", "auto_continue": False}
        )
        await page.goto(f"{server.url}/pipelines/{(await spawned.json())['pipeline_id']}")
        stop, go_on = page.get_by_role("button", name="STOP"), page.get_by_role("button", name="Continue")
        await expect(go_on).not_to_have_attribute("aria-disabled", "true")
        await go_on.click()
        dialog = page.get_by_role("dialog")
        await expect(dialog.get_by_label("Guidance")).to_be_focused()
        await accessible(page)
        await page.keyboard.type("We run on one machine.")
        await dialog.get_by_label("Timeout").fill("0")
        with browsing.forgiving("422", "CONNECTION_REFUSED", "WebSocket connection"):
            await dialog.get_by_role("button", name="Begin the round").click()
            await expect(dialog.get_by_role("alert")).to_contain_text("timeout: input should be greater than 0")
            await expect(dialog.get_by_label("Timeout")).to_be_focused()
            await asyncio.to_thread(server.stop)
            await dialog.get_by_label("Timeout").fill("30")
            await page.keyboard.press("Enter")
            await expect(dialog.get_by_role("alert")).to_contain_text("The server does not answer")
            await expect(dialog.get_by_label("Guidance")).to_have_value("We run on one machine.")
            await asyncio.to_thread(server.start)
            await dialog.get_by_role("button", name="Begin the round").click()
            await expect(page.locator("[data-toasts]")).to_have_text("Round 1 begins")
        await expect(page.locator('[data-part="masthead"] [data-status="COMPLETED"]')).to_be_visible()
        await expect(stop).to_have_attribute("aria-disabled", "true")
        await stop.click(force=True)
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#why-stop")).to_be_visible()
