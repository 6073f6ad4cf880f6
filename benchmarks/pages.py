"""The dashboard's pages in a real Chromium: how soon they open, how soon they show what happens, what they cost.

The server is a process of its own; what happens is written by this one, as a worker would. Of many viewers one is a
page, the others are its WebSocket alone: they cost the server the same, and twenty pages in one machine would mostly
wait for each other's painting.
"""

import asyncio
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it has no types
from pydantic import SecretStr

from benchmarks import drawing
from benchmarks.figures import Figure
from benchmarks.processes import cpu_seconds, started
from benchmarks.scribe import COMMITS, DELTAS, Scribe, Written
from benchmarks.servers import Api, api, temporary_home, valkey
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import new_pipeline_id
from trilogue.services import Services, open_services
from trilogue.settings import load_settings
from trilogue.testing.long_story import LEAST, write_long_story

if TYPE_CHECKING:
    from benchmarks.browsing import Opening, Seen

_LONG = 2_000
"""Entries of a pipeline that is long."""
_FIRST_PAINT, _EVENT_TO_PIXEL = 2.0, 200.0
"""Aims: seconds, and milliseconds at the median."""
_HOME, _PIPELINE = "table.pipelines tbody tr", "[data-part=beta] [data-key^=turn-]"
"""What the pages are for: a pipeline in the list, a turn in a lane."""
_SETTLING = 2.0
"""Seconds of writing that are not counted."""
_MOMENTS = (1000, 400, 1600, 1001, 1350, 20, 1999, 700)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is measured: `watched` are entries of a pipeline and its viewers, each for so many seconds."""

    pipelines: int
    openings: int
    watched: Sequence[tuple[int, int]]
    seconds: float


_WHOLE = _Plan(pipelines=200, openings=5, watched=((LEAST, 1), (LEAST, 20), (_LONG, 1), (_LONG, 20)), seconds=24)
_QUICK = _Plan(pipelines=10, openings=1, watched=((_LONG, 3),), seconds=2)


def measure(*, quick: bool = False) -> Iterator[Figure]:
    """Drawing by itself, then pages; where there is no browser, the figures say what is missing.

    Args:
        quick: only to see that everything runs; the figures say little.
    """
    yield from drawing.measure()
    if missing := _missing():
        yield Figure(what="pages in a browser", value=None, unit="", note=missing)
        return
    with temporary_home() as home, valkey(home) as redis_url:
        yield from asyncio.run(_measured(home, redis_url, _QUICK if quick else _WHOLE))


def _missing() -> str | None:
    try:
        from benchmarks.browsing import what_is_missing  # noqa: PLC0415 - Playwright is only needed here
    except ModuleNotFoundError as error:
        return f"there is no {error.name}: install the development tools (make setup)"
    return what_is_missing()


async def _measured(home: Path, redis_url: str, plan: _Plan) -> list[Figure]:
    async with open_services(load_settings(home=home, redis_url=SecretStr(redis_url))) as services:
        figures = await _opened(services, plan)
        for entries, viewers in plan.watched:
            figures += await _watched(services, entries, viewers, plan.seconds)
    return figures


# How pages open


async def _opened(services: Services, plan: _Plan) -> list[Figure]:
    from benchmarks.browsing import chromium, opened  # noqa: PLC0415

    for number in range(plan.pipelines):
        await _story(services, LEAST, completed=number % 2 == 0)
    stories = [await _story(services, _LONG) for _ in range(plan.openings + 1)]
    with _served(services) as server:
        async with chromium() as browser:
            first, *homes = [await opened(browser, server.url, _HOME) for _ in range(plan.openings + 1)]
            paths = [f"{server.url}/pipelines/{story}" for story in stories]
            pages = [await opened(browser, path, _PIPELINE) for path in paths][1:]
            again = [await opened(browser, path, _PIPELINE) for path in paths][1:]
        moments = [await asyncio.to_thread(_fetched, f"{paths[0]}/moment?at={at}&after={at}") for at in _MOMENTS]
    return [
        _opening("home, first useful paint", f"{plan.pipelines} pipelines", homes, f"first of all {first.content:.0f}"),
        _opening("pipeline page, first useful paint", f"{_LONG:,} entries", pages, "entries read from the ledger"),
        _opening("the same, opened again", f"{_LONG:,} entries", again, "entries known"),
        Figure(
            what="a moment of a replay, p50",
            on=f"{_LONG:,} entries",
            value=sorted(moments)[len(moments) // 2],
            unit="ms",
            note=f"slowest {max(moments):.0f} ms",
        ),
    ]


def _opening(what: str, on: str, openings: Sequence["Opening"], note: str) -> Figure:
    usual, slowest = type(openings[0]).median(openings), max(each.content for each in openings)
    return Figure(
        what=what,
        on=on,
        value=usual.content / 1e3,
        unit="s",
        aim=_FIRST_PAINT,
        note=f"median of {len(openings)}, slowest {slowest:.0f} ms; cold cache, {note}; first paint "
        f"{usual.first_paint:.0f} ms, DOMContentLoaded {usual.parsed:.0f} ms, server {usual.server:.0f} ms; "
        f"{usual.requests:.0f} requests, {usual.bytes / 1e3:.0f} kB, of it HTML {usual.html / 1e3:.0f} kB",
    )


def _fetched(address: str) -> float:
    """Milliseconds until a whole answer has come."""
    began = time.perf_counter()
    with urllib.request.urlopen(address, timeout=30) as answer:
        answer.read()
    return (time.perf_counter() - began) * 1e3


# How pages show what happens


async def _watched(services: Services, entries: int, viewers: int, seconds: float) -> list[Figure]:
    """On a server of its own, so that its memory is what these viewers make it."""
    from benchmarks.browsing import Watching, chromium  # noqa: PLC0415

    scribe = await Scribe.of(services, await _story(services, entries))
    with _served(services) as server, ExitStack() as others:
        async with chromium() as browser:
            process = psutil.Process(server.pid)
            await asyncio.to_thread(_fetched, server.url)
            before = process.memory_info().rss
            page = await Watching.at(browser, f"{server.url}/pipelines/{scribe.pipeline_id}", scribe.streaming)
            if viewers > 1:
                others.enter_context(_sockets(server, scribe.pipeline_id, viewers - 1))
            await scribe.write(_SETTLING)
            await page.begin()
            cpu, began = cpu_seconds([server.pid]), time.monotonic()
            written = await scribe.write(seconds)
            busy = (cpu_seconds([server.pid]) - cpu) / (time.monotonic() - began)
            grown = process.memory_info().rss - before
            shown = await page.end(seq=max(written.entries), length=max(written.text))
    on = f"{entries:,} entries, {viewers} viewer{'s' if viewers > 1 else ''}"
    return [*_latencies(on, written, shown, seconds), *_cost(on, shown, seconds, busy, grown, before)]


@contextmanager
def _sockets(server: Api, pipeline_id: str, viewers: int) -> Iterator[None]:
    address = f"ws://127.0.0.1:{server.port}/live?pipeline_id={pipeline_id}"
    command = [sys.executable, "-m", "benchmarks.watchers", address, str(viewers), str(sys.maxsize)]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready", "the other viewers could not connect"
        yield


def _latencies(on: str, written: Written, shown: "Seen", seconds: float) -> Iterator[Figure]:
    entries = sorted(shown.took(written.entries, shown.entries))
    text = sorted(shown.took(written.text, shown.text))
    busy = ", ".join(f"{name} {spent / seconds:.0%}" for name, spent in shown.busy.items())
    for percent, aim in ((50, _EVENT_TO_PIXEL), (95, None)):
        yield Figure(
            what=f"entry committed to pixel, p{percent}",
            on=on,
            value=entries[len(entries) * percent // 100],
            unit="ms",
            aim=aim,
            note=f"{len(entries)} events; CPU of the page's main thread {busy}" if aim else "",
        )
    p95 = text[len(text) * 95 // 100]
    yield Figure(
        what="streamed text to pixel, p50", on=on, value=text[len(text) // 2], unit="ms", note=f"p95 {p95:.0f} ms"
    )


def _cost(on: str, shown: "Seen", seconds: float, busy: float, grown: int, before: int) -> Iterator[Figure]:
    rate = shown.bytes / seconds / 1e3
    yield Figure(
        what="CPU of the server, of one",
        on=on,
        value=busy * 100,
        unit="%",
        note=f"{COMMITS} commits and {DELTAS} pieces of text a second; {rate:.0f} kB/s to each viewer",
    )
    yield Figure(
        what="memory of the server, growth",
        on=on,
        value=grown / 1e6,
        unit="MB",
        note=f"resident; {before / 1e6:.0f} MB before the first of these viewers",
    )


def _served(services: Services) -> AbstractContextManager[Api]:
    redis_url = services.settings.redis_url
    assert redis_url is not None
    return api(services.settings.home, redis_url.get_secret_value())


async def _story(services: Services, entries: int, *, completed: bool = False) -> str:
    pipeline_id = new_pipeline_id()
    await write_long_story(services.ledger, TENANT, pipeline_id, entries=entries, completed=completed)
    return pipeline_id
