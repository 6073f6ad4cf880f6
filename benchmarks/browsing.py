"""Pages in a real Chromium that tell when something was painted: as they open, and as something happens."""

import asyncio
import os
import shutil
import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from playwright.async_api import Browser, CDPSession, Page, async_playwright

BROWSER = "TRILOGUE_TEST_BROWSER"
"""The environment variable that names the browser, as for the tests."""
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_WINDOW: Any = {"width": 1600, "height": 1000}
_PATIENCE = 30.0
_BUSY = {
    "in all": "TaskDuration",
    "script": "ScriptDuration",
    "style": "RecalcStyleDuration",
    "layout": "LayoutDuration",
}

_AFTER_PAINT = """
const afterPaint = (tell) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = tell;
    channel.port2.postMessage(null);
});
"""
"""Calls back after the frame that shows what is in the DOM now: what is posted in a frame's callback comes after its
layout and painting. When a screen shows it is the screen's matter."""

_TELL_OPENING = """
    new MutationObserver((_, observer) => {
        if (!document.querySelector(%r)) return;
        observer.disconnect();
        afterPaint(() => window.benchPainted = performance.now());
    }).observe(document, {childList: true, subtree: true});
"""
_OPENING = """() => {
    const [page] = performance.getEntriesByType("navigation");
    const [first] = performance.getEntriesByName("first-contentful-paint");
    const all = [page, ...performance.getEntriesByType("resource")];
    return {
        content: Math.max(window.benchPainted, first.startTime),
        first_paint: first.startTime,
        parsed: page.domContentLoadedEventEnd,
        server: page.responseStart - page.requestStart,
        html: page.transferSize,
        bytes: all.reduce((sum, {transferSize}) => sum + transferSize, 0),
        requests: all.length,
    };
}"""
_TELL_HAPPENING = """
    window.bench = {entries: [], text: [], bytes: 0};
    window.benchKeptUp = false;
    window.WebSocket = class extends WebSocket {
        constructor(...given) {
            super(...given);
            this.addEventListener("message", ({data}) => {
                bench.bytes += data.length;
                benchKeptUp ||= data.includes('"rows_after":');
            });
        }
    };
    const newest = {entries: 0, text: 0};
    const note = (kind, reached) => {
        if (!(reached > newest[kind])) return;
        newest[kind] = reached;
        afterPaint(() => bench[kind].push([reached, Date.now()]));
    };
    new MutationObserver(() => {
        note("entries", Number(document.querySelector("[data-log]")?.lastElementChild?.dataset.seq));
        note("text", document.querySelector("[data-stream='%d']")?.textContent.length);
    }).observe(document, {childList: true, characterData: true, subtree: true});
"""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a page opened, in milliseconds since it was asked for.

    Attributes:
        content: when what the page is for was painted.
        server: from the request to the first byte of the HTML.
        html, bytes: that came over the wire, of the page and of all that it needs.
    """

    content: float
    first_paint: float
    parsed: float
    server: float
    html: int
    bytes: int
    requests: int

    @classmethod
    def median(cls, openings: Sequence[Self]) -> Self:
        """Each by itself."""
        return cls(**{name: statistics.median(getattr(each, name) for each in openings) for name in vars(openings[0])})


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one page showed: `[seq, when]` of entries, `[length, when]` of text; when in milliseconds of the epoch.

    Attributes:
        busy: CPU seconds of the page's main thread, in all and of it for what.
    """

    entries: Sequence[tuple[int, float]]
    text: Sequence[tuple[int, float]]
    bytes: int
    busy: Mapping[str, float]

    def took(self, written: Mapping[int, float], seen: Sequence[tuple[int, float]]) -> list[float]:
        """Milliseconds from each thing that was written to the frame that showed it. All must have been shown."""
        return [next(at for reached, at in seen if reached >= what) - when * 1e3 for what, when in written.items()]


def what_is_missing() -> str | None:
    """Why there is no browser to measure in; None where there is one."""
    if os.environ.get(BROWSER) or shutil.which("chromium"):
        return None
    return f"there is no Chromium: install Debian's chromium, or say in {BROWSER} where one is"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser with a profile of its own, which goes with it."""
    path = os.environ.get(BROWSER) or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


async def opened(browser: Browser, url: str, content: str) -> Opening:
    """Open a page whose content is what the selector finds, with nothing in the cache."""
    page = await _page(browser, _TELL_OPENING % content)
    try:
        answer = await page.goto(url, wait_until="networkidle")
        assert answer is not None
        assert answer.ok, f"{url} answered {answer.status}"
        await _until(page, "() => window.benchPainted")
        return Opening(**await page.evaluate(_OPENING))
    finally:
        await page.context.close()


class Watching:
    """A page of a pipeline that keeps what it shows and when, and the text of one running turn."""

    def __init__(self, page: Page, inspector: CDPSession) -> None:
        self._page = page
        self._inspector = inspector
        self._busy: Mapping[str, float] = {}

    @classmethod
    async def at(cls, browser: Browser, url: str, turn: int) -> Self:
        """Open it; returns when it keeps up with the pipeline."""
        page = await _page(browser, _TELL_HAPPENING % turn)
        inspector = await page.context.new_cdp_session(page)
        await inspector.send("Performance.enable", {"timeDomain": "threadTicks"})  # as CPU time, whoever else is busy
        await page.goto(url)
        await _until(page, "() => benchKeptUp")
        return cls(page, inspector)

    async def begin(self) -> None:
        """Forget what was shown so far."""
        await self._page.evaluate("() => { bench.entries = []; bench.text = []; bench.bytes = 0; }")
        self._busy = await self._busy_so_far()

    async def end(self, *, seq: int, length: int) -> Seen:
        """What was shown since the beginning, once it is so much."""
        shown = "([seq, length]) => bench.entries.at(-1)?.[0] >= seq && bench.text.at(-1)?.[0] >= length"
        await _until(self._page, shown, [seq, length])
        busy = {name: seconds - self._busy[name] for name, seconds in (await self._busy_so_far()).items()}
        return Seen(**await self._page.evaluate("bench"), busy=busy)

    async def _busy_so_far(self) -> Mapping[str, float]:
        told = await self._inspector.send("Performance.getMetrics")
        known = {each["name"]: each["value"] for each in told["metrics"]}
        return {name: known[metric] for name, metric in _BUSY.items()}


async def _until(page: Page, expression: str, argument: Any = None) -> None:
    """Playwright's own waiting evaluates in the page, which the policy of our pages forbids."""
    async with asyncio.timeout(_PATIENCE):
        while not await page.evaluate(expression, argument):  # noqa: ASYNC110 - what is waited for is in the page
            await asyncio.sleep(0.05)


async def _page(browser: Browser, script: str) -> Page:
    context = await browser.new_context(viewport=_WINDOW)
    context.set_default_timeout(_PATIENCE * 1000)
    await context.add_init_script(f"{{{_AFTER_PAINT}{script}}}")
    return await context.new_page()
