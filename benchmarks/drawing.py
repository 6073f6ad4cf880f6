"""What it takes the server to draw a pipeline's page anew for one more entry: time, by part, and what is sent."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.servers import temporary_home
from trilogue import clock
from trilogue.dashboard.drawing import PARTS, draw, draw_part
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import Entry
from trilogue.ledger import Ledger, PipelineRow, sqlite_url
from trilogue.ledger.opening import TENANT
from trilogue.testing.long_story import write_long_story

_ENTRIES = 2_000
_REDRAWN = 60
"""The last entries of the story, after each of which it is drawn."""
_PIPELINE = "p-000000000000"
_AIM, _AIM_OF_A_PART = 20.0, 2.0
"""Milliseconds; what happens within 40 ms is drawn together."""


def measure() -> Iterator[Figure]:
    """A pipeline at work; each drawing is after one more entry, as its open pages cause it."""
    with temporary_home() as home:
        row, entries = asyncio.run(_story(home))
    story = Story.told(entries[:-_REDRAWN])
    began = time.perf_counter()
    draw(_scene(story, row))
    first = (time.perf_counter() - began) * 1e3
    took: dict[str, list[float]] = defaultdict(list)
    changed: dict[str, list[int]] = defaultdict(list)
    known: dict[str, str] = {}
    for entry in entries[-_REDRAWN:]:
        story.add(entry)
        scene = _scene(story, row)
        for name in PARTS:
            began = time.perf_counter()
            html = draw_part(name, scene)
            took[name].append((time.perf_counter() - began) * 1e3)
            changed[name].append(len(html) if known.get(name, html) != html else 0)
            known[name] = html
    yield from _figures(took, changed, first)


def _figures(
    took: Mapping[str, Sequence[float]], changed: Mapping[str, Sequence[int]], first: float
) -> Iterator[Figure]:
    whole = statistics.median(map(sum, zip(*took.values(), strict=True)))
    parts = {name: statistics.median(times) for name, times in took.items()}
    dearest, *others = sorted(parts, key=parts.__getitem__, reverse=True)
    on = f"a pipeline of {_ENTRIES:,} entries"
    note = f"median of {_REDRAWN}; the very first {first:.0f} ms"
    yield Figure(what="page drawn anew, all parts", on=on, value=whole, unit="ms", aim=_AIM, note=note)
    rest = ", ".join(f"{name} {parts[name]:.1f}" for name in others)
    dear = parts[dearest]
    yield Figure(what=f"its dearest part: {dearest}", on=on, value=dear, unit="ms", aim=_AIM_OF_A_PART, note=rest)
    sizes = {name: statistics.mean(lengths) / 1e3 for name, lengths in changed.items() if any(lengths)}
    large = ", ".join(f"{name} {sizes[name]:.1f}" for name in sorted(sizes, key=sizes.__getitem__, reverse=True))
    yield Figure(what="HTML that an entry changes", on=on, value=sum(sizes.values()), unit="kB", note=large)


async def _story(home: Path) -> tuple[PipelineRow, Sequence[Entry]]:
    ledger = await Ledger.open(sqlite_url(home / "ledger.db"), migrate=True)
    try:
        await write_long_story(ledger, TENANT, _PIPELINE, entries=_ENTRIES)
        return await ledger.get_pipeline(TENANT, _PIPELINE), await ledger.entries(TENANT, _PIPELINE)
    finally:
        await ledger.close()


def _scene(story: Story, row: PipelineRow) -> Scene:
    return Scene(story=story, row=row, now=clock.now())
