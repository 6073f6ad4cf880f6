"""Home: an objective is asked for, watched from its first word to its agreement, and found again."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.reading import part, standing, text_growing
from tests.browser.scenes import OBJECTIVE, spawn, status_of
from tests.fixtures.browser import NARROW, Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser

AT_THE_END = 60_000
"""Milliseconds within which a rehearsal comes to its end, also where the machine is busy."""


async def ask(page: Page, objective: str, *, hold: bool = False) -> None:
    await page.get_by_label("What do you want decided?").fill(objective)
    if hold:
        await page.get_by_label("Hold at report").check()
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url(re.compile(r"/pipelines/p-\w+$"))


async def test_an_objective_is_started_and_watched_until_it_is_agreed(browsing: Browsing, stage: Served) -> None:
    page = await browsing.open(f"{stage.url}/")
    await expect(page.get_by_text("No pipelines yet")).to_be_visible()
    await ask(page, OBJECTIVE)
    await expect(page.get_by_role("heading", level=1)).to_contain_text(OBJECTIVE)
    await expect(part(page, "masthead")).to_contain_text("No language model was used")
    assert await text_growing(page)
    await expect(standing(page)).to_contain_text("Completed", timeout=AT_THE_END)
    await expect(part(page, "middle")).to_contain_text("agreed")
    await expect(part(page, "result")).to_contain_text("Steps:")


async def test_the_list_follows_what_happens_and_what_is_held_is_found_by_its_words(
    browsing: Browsing, stage: Served
) -> None:
    home = await browsing.open(f"{stage.url}/", width=NARROW)
    page = await browsing.open(f"{stage.url}/")
    await ask(page, "Choose a queue for the orders", hold=True)
    other = await spawn(stage)
    row = home.get_by_role("row").filter(has_text="Choose a queue")
    await expect(row).to_contain_text("Report", timeout=AT_THE_END)
    await expect(row).to_contain_text("held")
    await status_of(stage, other, "COMPLETED")
    await expect(home.get_by_role("row").filter(has_text=OBJECTIVE)).to_contain_text("Completed")
    await home.get_by_role("searchbox").fill("QUEUE FOR")
    await expect(home.get_by_role("row").filter(has_text=OBJECTIVE)).to_have_count(0)
    await home.reload()
    await row.get_by_role("link", name="Choose a queue").click()
    await expect(standing(home)).to_contain_text("held")


async def test_what_cannot_be_started_is_said_at_its_field_and_nothing_is_lost(
    browsing: Browsing, stage: Served
) -> None:
    page = await browsing.open(f"{stage.url}/")
    await page.get_by_label("What do you want decided?").fill(OBJECTIVE)
    await page.get_by_label("Model", exact=True).fill("rehearsal/unheard-of")
    with browsing.forgiving("status of 4"):
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_role("alert").filter(has_text="unheard-of")).to_be_visible()
    await expect(page.get_by_label("What do you want decided?")).to_have_value(OBJECTIVE)
    await page.get_by_label("Model", exact=True).fill("")
    await page.get_by_label("What do you want decided?").press("Control+Enter")
    await page.wait_for_url(re.compile(r"/pipelines/p-\w+$"))
