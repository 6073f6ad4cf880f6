"""A person acts from the page: continues what is held, stops what runs, and sees at once what came of it."""

import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.reading import assert_whole, open_pipeline, part, standing, text_growing, up_to
from tests.browser.scenes import head_of, spawn, status_of, stop
from tests.fixtures.browser import NARROW, Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser

AT_THE_END = 60_000
"""Milliseconds within which a rehearsal comes to its end, also where the machine is busy."""


def button(page: Page, name: str) -> Locator:
    """What opens a dialog."""
    return part(page, "actions").get_by_role("button", name=name, exact=True)


async def test_what_is_held_is_continued_with_guidance_and_comes_to_agreement(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await spawn(stage, auto_continue=False)
    page = await open_pipeline(browsing, stage, pipeline_id)
    cannot = part(page, "actions").get_by_text("There is no report yet to go on from.")
    await expect(button(page, "Continue")).to_have_accessible_description("There is no report yet to go on from.")
    await expect(standing(page)).to_have_text(re.compile("Report.*held", re.DOTALL), timeout=AT_THE_END)
    await expect(cannot).to_have_count(0)

    await button(page, "Continue").click()
    dialog = page.get_by_role("dialog", name="Continue")
    await dialog.get_by_label("Guidance").fill("We run on one machine.")
    await dialog.get_by_label("Reason").fill("The report is good")
    await dialog.get_by_role("button", name="Begin the round").click()
    await expect(page.locator("[data-toasts]")).to_have_text("Round 1 begins")
    await expect(dialog).to_be_hidden()
    await expect(part(page, "middle")).to_contain_text("We run on one machine.")
    await expect(standing(page)).to_contain_text("Completed", timeout=AT_THE_END)
    await expect(button(page, "Continue")).to_be_disabled()
    await expect(button(page, "STOP")).to_have_accessible_description("It has ended; there is nothing to stop.")
    await button(page, "STOP").click(force=True)
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_stop_is_one_key_and_a_reason_and_every_page_sees_when_all_stood_still(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await spawn(stage)
    page = await open_pipeline(browsing, stage, pipeline_id)
    other = await open_pipeline(browsing, stage, pipeline_id, width=NARROW)
    await text_growing(page)

    await button(page, "STOP").focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Stop this pipeline")
    await expect(dialog.get_by_label("Reason")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button(page, "STOP")).to_be_focused()
    assert await status_of(stage, pipeline_id) != "STOPPED"

    await page.keyboard.press("Enter")
    await page.keyboard.type("wrong objective")
    await page.keyboard.press("Enter")
    for seen in (page, other):
        await expect(standing(seen)).to_contain_text("Stopped")
        await expect(seen.locator("[data-stopped]")).to_contain_text("everything stood still")
        await expect(part(seen, "masthead")).to_contain_text("wrong objective")
        await expect(seen.locator("[data-stream]")).to_have_count(0)
    assert await status_of(stage, pipeline_id) == "STOPPED"
    head = await head_of(stage, pipeline_id)
    await up_to(page, head)
    stopped = await page.locator("[data-stopped]").inner_text()
    await page.reload()
    await expect(page.locator("[data-stopped]")).to_have_text(stopped)
    assert await head_of(stage, pipeline_id) == head, "something acted after the stop"

    await button(other, "Resume").click()
    dialog = other.get_by_role("dialog", name="Resume")
    await assert_whole(other)
    await dialog.get_by_label("Reason").fill("It was right after all")
    await dialog.get_by_role("button", name="Resume").click()
    await expect(standing(page)).to_contain_text("Completed", timeout=AT_THE_END)


async def test_what_the_server_refuses_is_said_in_the_dialog_and_nothing_typed_is_lost(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await spawn(stage)
    page = await open_pipeline(browsing, stage, pipeline_id)
    await button(page, "STOP").click()
    dialog = page.get_by_role("dialog", name="Stop this pipeline")
    await dialog.get_by_label("Reason").fill("too late")
    await stop(stage, pipeline_id, "somebody was quicker")
    await expect(standing(page)).to_contain_text("Stopped")
    with browsing.forgiving("status of 409"):
        await dialog.get_by_role("button", name="STOP").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("STOPPED")
    await expect(dialog.get_by_label("Reason")).to_have_value("too late")
