"""What the browser's fixture promises the other tests here: nothing that a page does wrong goes unnoticed."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, Route

from tests.browser.accessibility import accessible
from tests.fixtures.api import Api
from tests.fixtures.browser import NARROW, Browsing

pytestmark = pytest.mark.browser

_PAGE = '<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1>{}</main>'


@pytest.fixture
async def page(browsing: Browsing, api: Api) -> AsyncIterator[Page]:
    """A page of the server whose paths below `/wrong` a test may make up."""
    page = await browsing.open(f"{api.url}/docs")
    await page.get_by_text("Governed multi-agent pipelines").wait_for()
    assert browsing.complaints == []
    yield page
    browsing.complaints.clear()


async def show(page: Page, body: str, *, status: int = 200, policy: str = "") -> None:
    """Go to a page with `body`, under a content security policy."""

    async def answer(route: Route) -> None:
        headers = {"content-type": "text/html", **({"content-security-policy": policy} if policy else {})}
        await route.fulfill(status=status, headers=headers, body=_PAGE.format(body))

    address = re.sub(r"/docs.*", "/wrong", page.url)
    await page.route("**/wrong", answer)
    await page.goto(address)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>console.error('it broke')</script>", "console: it broke"),
        ("<script>throw new Error('it broke')</script>", "uncaught: it broke"),
        ("<script>alert('hello')</script>", "dialog: alert 'hello'"),
        ("<script>fetch('http://elsewhere.invalid/')</script>", "request: to another server: http://elsewhere"),
        ("<script>new WebSocket('ws://127.0.0.1:9')</script>", "request: to another server: ws://127.0.0.1:9"),
    ],
)
async def test_what_a_page_does_wrong_is_a_complaint(browsing: Browsing, page: Page, body: str, complaint: str) -> None:
    await show(page, f"<p>Before</p>{body}<p>After</p>")
    await page.wait_for_load_state("networkidle")
    assert any(said.startswith(complaint) for said in browsing.complaints), browsing.complaints


async def test_what_the_policy_forbids_and_an_answer_that_fails_are_complaints(browsing: Browsing, page: Page) -> None:
    await show(page, '<p style="color: red">Red</p>', policy="default-src 'none'")
    assert any(said.startswith("policy: style-src-attr forbids inline") for said in browsing.complaints)
    await show(page, "Sorry", status=503)
    assert any(said.startswith("answer: 503 of ") for said in browsing.complaints), browsing.complaints


async def test_what_is_expected_to_go_wrong_is_no_complaint(browsing: Browsing, page: Page) -> None:
    with browsing.forgiving("^answer: 503", "status of 503"):
        await show(page, "Sorry", status=503)
    assert browsing.complaints == []


async def test_a_page_that_somebody_cannot_use_is_not_accessible_whatever_its_policy(
    browsing: Browsing, page: Page
) -> None:
    await page.set_viewport_size({"width": NARROW, "height": 844})
    await show(page, "<p>Plain</p>", policy="default-src 'none'")
    await accessible(page)
    await show(page, "<button></button>", policy="default-src 'none'")
    with pytest.raises(AssertionError, match="- dark, critical: button-name: Buttons must have discernible text"):
        await accessible(page)
    assert browsing.complaints == []
