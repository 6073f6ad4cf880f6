"""A pipeline's page shows what happens, as it happens, and the same after a reload or the server's restart."""

import asyncio
import json
import time

import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.browser.reading import assert_whole, open_pipeline, part, shown, standing, text_growing, up_to
from tests.browser.scenes import CONFLICT, head_of, spawn, status_of
from tests.fixtures.browser import NARROW, PATIENCE, Browsing
from tests.fixtures.served import Served
from trilogue import clock
from trilogue.dashboard.rendering import assets_version

pytestmark = pytest.mark.browser

AWAY = (r"ERR_CONNECTION_REFUSED", r"WebSocket connection to .* failed")
"""What a browser says of a server that is not there."""


def hello(*, ahead: float = 0) -> str:
    """What a server says first whose clock is some seconds ahead of the page's."""
    at = clock.iso(clock.now() + clock.seconds(ahead))
    return json.dumps({"type": "hello", "assets": assets_version(), "at": at})


async def test_the_page_keeps_up_with_the_pipeline_until_its_end(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage)
    page = await open_pipeline(browsing, stage, pipeline_id)
    await status_of(stage, pipeline_id, "COMPLETED")
    head = await head_of(stage, pipeline_id)
    await up_to(page, head)
    assert await page.locator("[data-log] > [data-seq]").count() == head
    await expect(standing(page)).to_have_text("Completed")  # and nothing else: the worker has let go, too
    lived = await shown(page)
    await page.reload()
    assert await shown(page) == lived
    await assert_whole(page)


async def test_a_reload_in_the_middle_shows_the_same(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage, model=CONFLICT, auto_continue=False)
    page = await open_pipeline(browsing, stage, pipeline_id)
    await status_of(stage, pipeline_id, "REPORT")
    await up_to(page, head := await head_of(stage, pipeline_id))
    await expect(standing(page)).to_have_text("Report held")
    before = await shown(page)
    rows = await page.locator("[data-log] > [data-seq]").all_inner_texts()
    await page.reload()
    await up_to(page, head)
    assert await shown(page) == before
    assert await page.locator("[data-log] > [data-seq]").all_inner_texts() == rows


async def test_without_javascript_the_page_shows_the_truth_of_its_moment(browsing: Browsing, stage: Served) -> None:
    pipeline_id = await spawn(stage, auto_continue=False)
    await status_of(stage, pipeline_id, "REPORT")
    with_it = await open_pipeline(browsing, stage, pipeline_id)
    without = await open_pipeline(browsing, stage, pipeline_id, java_script_enabled=False, width=NARROW)
    told = await part(without, "alpha").inner_text()
    assert " ".join(told.split()) == " ".join((await part(with_it, "alpha").inner_text()).split())
    assert await without.locator("[data-log] > [data-seq]").count() == await head_of(stage, pipeline_id)


async def test_a_restarted_server_is_found_again_and_the_page_shows_the_truth(
    browsing: Browsing, stage: Served
) -> None:
    pipeline_id = await spawn(stage)
    page = await open_pipeline(browsing, stage, pipeline_id)
    await text_growing(page)
    with browsing.forgiving(*AWAY):
        await asyncio.to_thread(stage.stop)
        await expect(page.locator("[data-connection]")).to_contain_text("Reconnecting")
        await asyncio.to_thread(stage.start)
        await status_of(stage, pipeline_id, "COMPLETED")
        await up_to(page, head := await head_of(stage, pipeline_id))
        await expect(page.locator("[data-connection]")).to_be_empty()
    assert await page.locator("[data-log] > [data-seq]").count() == head
    await expect(standing(page)).to_have_text("Completed")  # and nothing else: the worker has let go, too
    lived = await shown(page)
    await page.reload()
    assert await shown(page) == lived


async def test_durations_go_by_the_clock_of_the_server(browsing: Browsing, stage: Served) -> None:
    page = await open_pipeline(browsing, stage, await spawn(stage, auto_continue=False))
    await page.route_web_socket("**/live?*", lambda socket: socket.send(hello(ahead=7_205)))
    await page.reload()
    await expect(part(page, "masthead").locator("[data-age]")).to_have_text("2 h ago")


async def test_a_server_that_cannot_tell_anything_is_asked_less_and_less_often(
    browsing: Browsing, stage: Served
) -> None:
    page = await open_pipeline(browsing, stage, await spawn(stage, auto_continue=False))
    asked: list[float] = []
    enough = asyncio.Event()

    async def fail(socket: WebSocketRoute) -> None:
        asked.append(time.monotonic())
        if len(asked) == 4:
            enough.set()
        socket.send(hello())
        socket.send('{"type": "error", "data": {"error": "page_broken", "detail": "it is broken"}}')
        await socket.close(code=1011)

    await page.route_web_socket("**/live?*", fail)
    await page.reload()
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    assert asked[3] - asked[2] > 0.8, "after 0.25 and 0.5 s it waits for a second"
    await expect(page.locator("[data-connection]")).to_contain_text("Reconnecting")
