"""Two agents and a mediator come to an agreement before the reader's eyes."""

import pytest
from playwright.async_api import Page, expect

from tests.browser.reading import open_pipeline, part, text_growing
from tests.browser.scenes import CONFLICT, spawn, status_of
from tests.fixtures.browser import Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser


async def test_what_an_agent_says_appears_while_it_is_produced(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage)
    page = await open_pipeline(browsing, stage, pipeline_id)
    so_far = await text_growing(page)
    assert await status_of(stage, pipeline_id) in {"RUNNING", "ORCHESTRATING"}
    late = await open_pipeline(browsing, stage, pipeline_id)  # who comes in its middle is told from its beginning
    assert await text_growing(late)
    await expect(part(page, "middle")).to_contain_text("agreed", timeout=60_000)
    assert so_far.split()[0] in await part(page, "alpha").inner_text() + await part(page, "beta").inner_text()
    await expect(page.locator("[data-stream]")).to_have_count(0)


async def test_a_conflict_is_ruled_by_gamma_between_the_two_and_dissent_stays_visible(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await spawn(stage, model=CONFLICT)
    page = await open_pipeline(browsing, stage, pipeline_id)
    middle = part(page, "middle")
    await expect(middle).to_contain_text("GAMMA", timeout=60_000)
    await expect(middle).to_contain_text("CONFLICT")
    assert await status_of(stage, pipeline_id, "ORCHESTRATING", "COMPLETED")
    await status_of(stage, pipeline_id, "COMPLETED")
    await expect(middle).to_contain_text("agreed")
    await expect(middle).to_contain_text("dissents")
    await expect(middle).to_contain_text("The proposals differ in pace, not in aim")
    await page.reload()
    await expect(middle).to_contain_text("dissents")
    lefts = [await left_of(page, name) for name in ("alpha", "middle", "beta")]
    assert lefts == sorted(lefts), "GAMMA and the board do not stand between ALPHA and BETA"


async def left_of(page: Page, name: str) -> float:
    box = await part(page, name).bounding_box()
    assert box is not None
    return box["x"]
