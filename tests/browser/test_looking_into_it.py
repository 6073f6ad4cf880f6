"""The log and the checkpoints of a long pipeline: found, opened and compared without losing one's place."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.accessibility import accessible
from tests.browser.reading import assert_whole, open_pipeline, part
from tests.browser.scenes import head_of, long_story
from tests.fixtures.browser import NARROW, Browsing
from tests.fixtures.served import Served
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger.opening import TENANT
from trilogue.ledger.rows import Fence
from trilogue.services import open_services

pytestmark = pytest.mark.browser

_ROWS = "[data-log] > [data-seq]"
_SEQS = "rows => rows.filter(row => !row.hidden).map(row => Number(row.dataset.seq))"
_FOLLOWS = "box => box.scrollTop + box.clientHeight >= box.scrollHeight - 24"


async def seqs(page: Page) -> list[int]:
    """Of the rows that are shown."""
    found: list[int] = await page.locator(_ROWS).evaluate_all(_SEQS)
    return found


async def happen(server: Served, pipeline_id: str, times: int) -> None:
    """Let its worker record something that changes nothing."""
    async with open_services(server.settings) as services:
        told = [Draft(kind=Kind.BUDGET, body=_BUDGET)] * times
        fence = Fence(tenant=TENANT, pipeline_id=pipeline_id, attempt=1)
        services.live.poster.post(await services.ledger.append(fence, told, at=clock.now()))
        await services.live.poster.flush(5)


_BUDGET = {
    "scope": "agent",
    "agent_id": "alpha-1",
    "of": "tokens",
    "limit": 10,
    "spent": 8,
    "percent": 80,
    "verdict": "warn",
    "message": "80 % of its tokens are spent",
}


async def test_a_long_log_is_searched_followed_and_never_grows_without_bound(
    browsing: Browsing, served: Served
) -> None:
    pipeline_id = await long_story(served, entries=1_500)
    head = await head_of(served, pipeline_id)
    page = await open_pipeline(browsing, served, pipeline_id)
    box, earlier = page.locator("[data-log-box]"), page.locator("[data-log-earlier] button")
    await expect(page.locator("[data-log-count]")).to_have_text(f"200 of {head:,}")
    assert await seqs(page) == list(range(head - 199, head + 1))
    assert await box.evaluate(_FOLLOWS)

    await page.get_by_label("Who").select_option("GAMMA")
    await expect(page.locator("[data-log-nothing]")).to_be_visible()
    await earlier.click()
    await expect(earlier).to_be_hidden()
    by_gamma = await seqs(page)
    assert by_gamma
    assert max(by_gamma) < head - 199
    await page.get_by_role("button", name="Clear").click()
    await expect(page.locator("[data-log-count]")).to_have_text(f"200 of {head:,}")
    assert await seqs(page) == list(range(head - 199, head + 1))

    for loaded in (400, 600, 800, 1_000):
        await earlier.click()
        await expect(page.locator("[data-log-count]")).to_have_text(f"{loaded:,} of {head:,}")
    await earlier.click()
    await expect(page.locator(_ROWS).first).to_have_attribute("data-seq", str(head - 1_199))
    assert await seqs(page) == list(range(head - 1_199, head - 199))

    latest = page.locator("[data-log-latest]")
    await happen(served, pipeline_id, 3)
    await expect(latest).to_have_text("3 new")
    await latest.click()
    await expect(latest).to_be_hidden()
    await expect(page.locator(_ROWS).last).to_have_attribute("data-seq", str(head + 3))
    await happen(served, pipeline_id, 2)
    await expect(page.locator(_ROWS).last).to_have_attribute("data-seq", str(head + 5))
    assert await box.evaluate(_FOLLOWS)
    assert await latest.is_hidden()


async def test_entries_open_by_keyboard_and_checkpoints_are_compared_in_place(
    browsing: Browsing, served: Served
) -> None:
    pipeline_id = await long_story(served, entries=150)
    page = await open_pipeline(browsing, served, pipeline_id, width=NARROW)
    await expect(page.locator("[data-log-count]")).to_contain_text("of")
    last = page.locator(f"{_ROWS} summary").last
    await last.focus()
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("Enter")
    opened = page.locator(f"{_ROWS}:has(details[open])")
    await expect(opened.locator("pre")).to_contain_text('"turn":')
    await expect(opened.locator("dd").last).to_have_text(re.compile("^[0-9a-f]{64}$"))
    assert await opened.get_attribute("data-seq") == str(await head_of(served, pipeline_id) - 1)

    checkpoints = part(page, "checkpoints")
    await checkpoints.get_by_role("button", name="Compare").click()
    await expect(checkpoints.get_by_role("heading", name=re.compile("From seq"))).to_be_visible()
    await happen(served, pipeline_id, 1)
    await expect(page.locator(_ROWS).last.locator(".kind")).to_have_text("budget")
    await expect(checkpoints.get_by_role("heading", name=re.compile("From seq"))).to_be_visible()
    await assert_whole(page)
    await accessible(page)
