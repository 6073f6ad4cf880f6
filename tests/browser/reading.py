"""How a reader finds things on the pages, and what holds for every page."""

import asyncio
import re
from typing import Any

from playwright.async_api import Locator, Page

from tests.fixtures.browser import PATIENCE, Browsing
from tests.fixtures.served import Served

_UP_TO = "seq => Number(document.querySelector('main').dataset.seq) >= seq"
_WIDTHS = "() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
_TOO_WIDE = """
() => {
    const clipped = element => {
        for (let around = element.parentElement; around !== document.body; around = around.parentElement)
            if (around.tagName === 'svg' || getComputedStyle(around).overflowX !== 'visible') return true;
        return false;
    };
    return [...document.querySelectorAll('body *')].filter(element => {
        const {left, right, width} = element.getBoundingClientRect();
        const beyond = right > document.documentElement.clientWidth + 1 || (left < -1 && right > 0);
        return width > 0 && beyond && element.checkVisibility() && !clipped(element);
    }).map(element => `${Math.round(element.getBoundingClientRect().right)} px: ${element.outerHTML.slice(0, 160)}`)
        .slice(0, 5);
}
"""
_STRANGE = """
() => [...document.querySelectorAll('main :is(script, iframe, style, object, embed, base, img)')]
    .map(element => element.outerHTML.slice(0, 160))
"""
_HREFS = "() => [...document.querySelectorAll('a[href]')].map(link => [link.getAttribute('href'), link.rel])"
_HANDLERS = """
() => [...document.querySelectorAll('*')]
    .flatMap(element => [...element.attributes].filter(({name}) => name.startsWith('on')))
    .map(({name, value}) => `${name}=${value}`)
"""
_SHOWN = """
() => Object.fromEntries([...document.querySelectorAll('[data-part]')].map(part => {
    const shown = part.cloneNode(true);
    shown.querySelectorAll('time, [data-stream], [data-live]').forEach(element => element.remove());
    return [part.dataset.part, shown.textContent.replace(/\\s+/g, ' ').trim()];
}))
"""

_GROWS = """
() => new Promise(done => {
    const lengths = new Map();  // of the texts of running turns, as they were seen, by turn
    const look = () => {
        for (const element of document.querySelectorAll('[data-stream]')) {
            const seen = lengths.get(element.dataset.stream) ?? new Set();
            lengths.set(element.dataset.stream, seen.add(element.textContent.length));
            if (seen.size >= 4) return done(element.textContent);
        }
        requestAnimationFrame(look);
    };
    look();
})
"""


def part(page: Page, name: str) -> Locator:
    """One part of a pipeline's page."""
    return page.locator(f'[data-part="{name}"]')


async def open_pipeline(browsing: Browsing, server: Served, pipeline_id: str, **how: Any) -> Page:
    """The page of a pipeline."""
    page = await browsing.open(f"{server.url}/pipelines/{pipeline_id}", **how)
    assert await page.locator("main[data-pipeline]").count() == 1, await page.inner_text("body")
    return page


async def up_to(page: Page, seq: int) -> None:
    """Wait until the page shows the pipeline up to `seq`."""
    await page.wait_for_function(_UP_TO, arg=seq)


async def shown(page: Page) -> dict[str, str]:
    """What each part of the page says, but for what runs on by itself: times, and texts as they come in."""
    told: dict[str, str] = await page.evaluate(_SHOWN)
    return told


async def assert_whole(page: Page) -> None:
    """The page is as wide as its window: nothing sticks out, and nobody has to scroll sideways."""
    width, scrolled = await page.evaluate(_WIDTHS)
    wide = await page.evaluate(_TOO_WIDE)
    assert (scrolled, wide) == (width, []), f"{page.url}: {scrolled} px wide in a window of {width}:\n" + "\n".join(
        wide
    )


async def assert_inert(page: Page) -> None:
    """Nothing that somebody wrote has become more than text."""
    assert await page.evaluate("window.owned") is None
    assert (strange := await page.evaluate(_STRANGE)) == [], strange
    assert (handlers := await page.evaluate(_HANDLERS)) == [], handlers
    for href, rel in await page.evaluate(_HREFS):
        if not re.match(r"[/#?]", href):
            assert re.match(r"(https?|mailto):", href), href
            assert {"noopener", "noreferrer"} <= set(rel.split()), (href, rel)


def standing(page: Page) -> Locator:
    """How the pipeline stands, as the head of its page says it."""
    return part(page, "masthead").locator("[data-status]")


async def text_growing(page: Page) -> str:
    """The text of a running turn once it has been seen to grow."""
    async with asyncio.timeout(2 * PATIENCE):
        return str(await page.evaluate(_GROWS))
