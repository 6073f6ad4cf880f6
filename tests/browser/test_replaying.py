"""A slider shows the page as it stood at any moment, for one that is finished and one that goes on."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.reading import assert_whole, open_pipeline, part, shown, standing, up_to
from tests.browser.scenes import head_of, long_story, spawn, status_of
from tests.fixtures.browser import NARROW, Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser


async def test_the_slider_goes_back_to_any_moment_and_forth_to_the_present(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage)
    await status_of(stage, pipeline_id, "COMPLETED")
    page = await open_pipeline(browsing, stage, pipeline_id)
    await up_to(page, head := await head_of(stage, pipeline_id))
    await expect(standing(page)).to_have_text("Completed")
    present = await shown(page)
    slider = page.get_by_role("slider")
    await slider.focus()
    await page.keyboard.press("Home")
    await expect(standing(page)).to_contain_text("Spawned")
    await expect(part(page, "middle")).not_to_contain_text("agreed")
    await expect(part(page, "actions").get_by_role("button", name="STOP")).to_be_disabled()
    await expect(page).to_have_url(re.compile(r"\?at=1$"))
    await slider.fill(str(head // 2))
    await expect(page).to_have_url(re.compile(rf"\?at={head // 2}$"))
    await page.wait_for_function("seq => document.querySelector('main').dataset.seq === String(seq)", arg=head // 2)
    middle = await shown(page)
    await page.reload()
    assert await shown(page) == middle
    await page.get_by_role("link", name="Back to the present").click()
    await up_to(page, head)
    await expect(standing(page)).to_contain_text("Completed")
    assert await shown(page) == present
    await expect(page).to_have_url(re.compile(rf"/{pipeline_id}$"))


async def test_two_thousand_entries_are_replayed_at_once(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await long_story(stage, completed=True)
    page = await open_pipeline(browsing, stage, pipeline_id, width=NARROW)
    await expect(standing(page)).to_contain_text("Completed")
    await page.get_by_role("slider").fill("1000")
    await expect(standing(page)).to_contain_text("Orchestrating")
    await assert_whole(page)
