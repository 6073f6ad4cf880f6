"""Whatever an objective or a model's answer is made of, it is shown as text: nothing runs, nothing bursts the page."""

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.browser.reading import assert_inert, assert_whole, open_pipeline, part, text_growing, up_to
from tests.browser.scenes import HOSTILE, SCRIPT, WORD, head_of, spawn, status_of, take_on
from tests.driving import asked
from tests.fixtures.browser import NARROW, WIDE, Browsing
from tests.fixtures.served import Served
from trilogue.agent import NEGOTIATORS
from trilogue.pipeline import Phase
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Ok, Seen

pytestmark = pytest.mark.browser


async def test_hostile_words_stay_words_while_they_come_and_afterwards(
    browsing: Browsing, hostile_stage: tuple[Served, OpenRouterServer]
) -> None:
    server, models = hostile_stage
    models.plan = lambda seen: Ok(pause=0.001 if asked_in(seen, Phase.RUN) else 0)  # slowly enough to be seen
    much = {"max_tokens": 10_000_000, "max_cost": 1_000.0}  # long words cost
    pipeline_id = await spawn(server, f"{HOSTILE} {WORD}", labels=[SCRIPT], auto_continue=False, **much)
    pages = [await open_pipeline(browsing, server, pipeline_id, width=width) for width in (WIDE, NARROW)]
    await asyncio.gather(*map(text_growing, pages))
    for page in pages:
        await assert_inert(page)
        await assert_whole(page)
    await status_of(server, pipeline_id, "REPORT")
    await take_on(server, pipeline_id, guidance=f"{HOSTILE} {WORD}", reason=HOSTILE)
    await status_of(server, pipeline_id, "COMPLETED")
    for page in pages:
        await up_to(page, await head_of(server, pipeline_id))
        await holds(page)
        await page.reload()
        await holds(page)
    home = await browsing.open(f"{server.url}/", width=NARROW)
    await expect(home.locator(f'a[href="/pipelines/{pipeline_id}"]').first).to_contain_text(SCRIPT)
    await assert_inert(home)
    await assert_whole(home)


def asked_in(seen: Seen, phase: Phase) -> bool:
    return any(asked(seen, role, phase) for role in NEGOTIATORS)


async def holds(page: Page) -> None:
    """What was said is there to be read, all of it, and is no more than that."""
    for name in ("objective", "alpha", "middle", "beta", "result", "report"):
        await expect(part(page, name)).to_contain_text(SCRIPT)
    await page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    await assert_inert(page)
    await assert_whole(page)
