"""Home under a reader's hands: what was typed stays, nothing is sent twice, and the list changes without being left."""

import re

import pytest
from playwright.async_api import Request, expect

from tests.browser.reading import assert_whole
from tests.browser.scenes import spawn, stop
from tests.fixtures.browser import NARROW, Browsing
from tests.fixtures.served import Served

pytestmark = pytest.mark.browser

_ROW = "tbody tr"
_TWICE = "() => { const form = document.querySelector('[data-spawning]'); form.requestSubmit(); form.requestSubmit(); }"


async def test_what_was_filled_in_stays_until_it_was_sent_once(browsing: Browsing, stage: Served) -> None:
    page = await browsing.open(f"{stage.url}/", width=NARROW)
    sent = list[Request]()
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    box = page.get_by_label("What do you want decided?")
    await page.get_by_role("button", name="Design a caching strategy").click()
    await expect(box).to_have_value(re.compile("Design a caching strategy"))
    await box.fill("Decide by the attached papers")
    await page.get_by_text("More options").click()
    await page.get_by_label("Labels").fill("papers, by hand ,")
    await page.get_by_label("GAMMA").fill("rehearsal")
    await page.get_by_label("Tokens an agent").fill("0")
    await page.get_by_text("More options").click()

    await page.get_by_role("button", name="Start").click()
    await expect(page.get_by_label("Tokens an agent")).to_be_focused()  # unfolded, with what is wrong beside it
    await expect(page.get_by_role("alert").filter(has_text="1")).to_be_visible()
    await page.get_by_label("Tokens an agent").fill("50000")
    await page.get_by_role("link", name="API").or_(page.get_by_role("link", name="Trilogue")).first.click()
    await expect(box).to_have_value("Decide by the attached papers")
    await expect(page.get_by_label("Tokens an agent")).to_have_value("50000")

    papers = [("one.md", b"# One\n\nIt is one."), ("two.bin", b"\xff\xfe"), ("three.txt", "Drei: ß 😀".encode())]
    files = [{"name": name, "mimeType": "text/plain", "buffer": content} for name, content in papers]
    await page.get_by_label("Context documents").set_input_files(files)  # type: ignore[arg-type]  # a TypedDict of its
    await expect(page.get_by_role("alert").filter(has_text="two.bin")).to_be_visible()
    await expect(page.get_by_role("button", name="Remove three.txt")).to_be_visible()
    await assert_whole(page)
    assert sent == []
    await page.evaluate(_TWICE)
    await page.wait_for_url(re.compile(r"/pipelines/p-\w+$"))
    [request] = sent
    assert request.post_data_json == {
        "objective": "Decide by the attached papers",
        "max_tokens": 50_000,
        "models": {"GAMMA": "rehearsal"},
        "labels": ["papers", "by hand"],
        "context": [
            {"name": "one.md", "text": "# One\n\nIt is one."},
            {"name": "three.txt", "text": "Drei: ß 😀"},
        ],
    }
    await page.goto(stage.url)
    await expect(box).to_be_empty()


async def test_the_list_is_narrowed_in_place_and_keeps_what_its_reader_does(browsing: Browsing, stage: Served) -> None:
    stage.carries = False
    ids = [await spawn(stage, f"Number {number}", project="sums" if number == 7 else "rest") for number in range(55)]
    await stop(stage, ids[3], "odd")
    page = await browsing.open(stage.url)
    await page.get_by_label("What do you want decided?").fill("half a word")
    await expect(page.locator(_ROW)).to_have_count(50)
    await page.get_by_role("link", name="Older").click()
    await expect(page.locator(_ROW)).to_have_count(5)
    await page.go_back()
    await expect(page.locator(_ROW)).to_have_count(50)
    await page.get_by_role("link", name="Stopped").click()
    await expect(page.locator(_ROW)).to_have_count(1)
    await page.get_by_role("link", name="All").click()
    await page.get_by_role("searchbox").press_sequentially("number 7")
    await expect(page.locator(_ROW)).to_have_count(1)
    await expect(page).to_have_url(f"{stage.url}/?q=number+7")
    await expect(page.get_by_label("What do you want decided?")).to_have_value("half a word")

    await page.get_by_role("link", name="sums").focus()
    await spawn(stage, "Number 77")
    await expect(page.locator(_ROW)).to_have_count(2)
    await expect(page.get_by_role("link", name="sums")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(_ROW)).to_have_count(1)
    await expect(page.get_by_label("Only of the project")).to_have_value("sums")

    plain = await browsing.open(f"{page.url}&state=under-way", java_script_enabled=False)
    await expect(plain.locator(_ROW)).to_have_count(1)
    await plain.get_by_role("searchbox").fill("zebra")
    await plain.get_by_role("button", name="Search").click()
    await expect(plain.get_by_text("No pipeline matches")).to_be_visible()
    await expect(plain.get_by_role("link", name="Under way")).to_have_attribute("aria-current", "true")
    await expect(plain.get_by_role("button", name="Start")).to_be_disabled()
