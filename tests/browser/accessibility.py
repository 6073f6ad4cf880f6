"""Whether everybody can use a page, as far as axe-core can tell."""

import json
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page

from tests.fixtures.browser import Theme

THEMES: tuple[Theme, ...] = ("light", "dark")
_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
_GRAVE = {"serious", "critical"}
_MOST_NODES = 5
_SETTLED = "Promise.allSettled(document.getAnimations().map(animation => animation.finished))"


async def accessible(page: Page) -> None:
    """Fail where axe-core finds a serious or critical violation of WCAG 2.1 AA on the page, in either theme."""
    found = [line for theme in THEMES for line in await violations(page, theme)]
    assert not found, f"not accessible: {page.url}\n" + "\n".join(found)


async def violations(page: Page, theme: Theme) -> list[str]:
    """A line for each element that is hard or impossible to use for somebody, with what to do about it."""
    # Without motion, for a colour on its way from one to another has the contrast of neither.
    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    session = await page.context.new_cdp_session(page)

    async def evaluated(expression: str) -> Any:
        # Straight to the engine, which asks no content security policy.
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await session.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    options = {"runOnly": {"type": "tag", "values": _RULES}, "resultTypes": ["violations"], "preload": False}
    try:
        await evaluated(AXE_SCRIPT)
        await evaluated(_SETTLED)
        results = await evaluated(f"axe.run(document, {json.dumps(options)})")
    finally:
        await session.detach()
    return [
        f"- {theme}, {found['impact']}: {found['id']}: {found['help']}\n{_nodes(found['nodes'])}"
        for found in results["violations"]
        if found["impact"] in _GRAVE
    ]


def _nodes(nodes: list[dict[str, Any]]) -> str:
    lines = []
    for node in nodes[:_MOST_NODES]:
        why = " ".join(check["message"] for name in ("any", "all", "none") for check in node[name])
        lines += [f"    {' '.join(map(str, node['target']))}: {node['html'][:200]}", f"      {why[:300]}"]
    if len(nodes) > _MOST_NODES:
        lines.append(f"    … and {len(nodes) - _MOST_NODES} more")
    return "\n".join(lines)
