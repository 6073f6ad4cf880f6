"""Everybody can use the pages, in a wide window and a narrow one, in the light and in the dark."""

import pytest

from tests.browser.accessibility import accessible
from tests.browser.reading import assert_whole, open_pipeline, up_to
from tests.browser.scenes import CONFLICT, head_of, long_story, spawn, status_of
from tests.fixtures.browser import NARROW, WIDE, Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser


async def test_home_is_accessible_with_and_without_pipelines(browsing: Browsing, stage: Served) -> None:
    for width in (WIDE, NARROW):
        await accessible(await browsing.open(f"{stage.url}/", width=width))
    for options in ({}, {"auto_continue": False}, {"model": CONFLICT}):
        await spawn(stage, **options)
    for width in (WIDE, NARROW):
        page = await browsing.open(f"{stage.url}/", width=width)
        await accessible(page)
        await assert_whole(page)


async def test_a_pipelines_page_is_accessible_at_work_and_at_its_end(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage, model=CONFLICT)
    pages = [await open_pipeline(browsing, stage, pipeline_id, width=width) for width in (WIDE, NARROW)]
    await up_to(pages[0], 8)
    await accessible(pages[0])
    await status_of(stage, pipeline_id, "COMPLETED")
    for page in pages:
        await up_to(page, await head_of(stage, pipeline_id))
        await accessible(page)
        await assert_whole(page)


async def test_a_long_pipeline_is_accessible_and_so_is_a_page_that_is_not_there(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await long_story(stage)
    page = await open_pipeline(browsing, stage, pipeline_id, width=NARROW)
    await accessible(page)
    await assert_whole(page)
    with browsing.forgiving("status of 404"):
        await accessible(await browsing.open(f"{stage.url}/nowhere"))
