"""Time on a line of 1,000 units: what happened keeps its proportions, long idle gaps do not.

Pure geometry: spans of microseconds in, places out. A pipeline that was held overnight shows its rounds side by
side, with a visible break between them that says how long it was.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trilogue.clock import SECOND, Micros

WIDTH = 1_000.0
"""Units from the left end to the right one."""

_IDLE: Micros = 60 * SECOND
"""Shorter gaps are shown as long as they were."""
_IDLE_SHARE = 0.3
"""So are those that are shorter than this part of the time that is not idle: they tell something."""
_BREAK = 26.0
_BREAKS = 260.0
"""Units that a break takes, and that all of them take at most."""
_TICKS = 7
_TICKS_APART = 110.0
"""Units between two labels at least."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Seconds between ticks, as people count."""
_ROUND = (1, 1.1, 1.25, 1.4, 1.6, 1.8, 2, 2.25, 2.5, 2.8, 3.2, 3.6, 4, 4.5, 5, 5.5, 6.25, 7, 8, 9)

Span = tuple[Micros, Micros]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Time that is shown in proportion, from `left` on."""

    begin: Micros
    end: Micros
    left: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Break:
    """Time that is not: where on the line it is cut, and how much of it."""

    left: float
    width: float
    lasted: Micros


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A place with a time, counted from the origin, or with `onwards` from the last break."""

    x: float
    after: Micros
    onwards: bool


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where moments lie. `stretches` follow one another, with the `breaks` between them."""

    stretches: tuple[Stretch, ...]
    breaks: tuple[Break, ...]

    @property
    def begin(self) -> Micros:
        return self.stretches[0].begin

    @property
    def end(self) -> Micros:
        return self.stretches[-1].end

    def x(self, at: Micros) -> float:
        """The place of a moment; those before and after the line lie at its ends."""
        place = bisect_right(self.stretches, at, key=lambda stretch: stretch.begin) - 1
        if place < 0:
            return 0.0
        stretch = self.stretches[place]
        if at <= stretch.end:
            return stretch.left + stretch.width * (at - stretch.begin) / (stretch.end - stretch.begin)
        if place == len(self.breaks):
            return WIDTH
        gap = self.breaks[place]
        return gap.left + gap.width * (at - stretch.end) / gap.lasted

    def ticks(self, origin: Micros) -> tuple[Tick, ...]:
        """A few places with their times, far enough from one another to be labelled."""
        kept: list[Tick] = []
        for tick in self._ticks(origin):
            if not kept or tick.x - kept[-1].x >= _TICKS_APART:
                kept.append(tick)
            elif not tick.onwards and tick.after:  # what begins after a break says more than a step before it
                kept[-1] = tick
        return tuple(kept)

    def _ticks(self, origin: Micros) -> Iterator[Tick]:
        step = step_for(sum(stretch.end - stretch.begin for stretch in self.stretches))
        for number, stretch in enumerate(self.stretches):
            onwards = number > 0
            if onwards:
                yield Tick(x=stretch.left, after=stretch.begin - origin, onwards=False)
            zero = stretch.begin if onwards else origin
            first = 1 if onwards else -((origin - stretch.begin) // step)
            for at in range(zero + first * step, stretch.end + 1, step):
                if at >= stretch.begin:
                    yield Tick(x=self.x(at), after=at - zero, onwards=onwards)


def scale_of(spans: Iterable[Span], *, begin: Micros, end: Micros, growing: bool = False) -> Scale:
    """The scale on which something happened in `spans`, from `begin` to `end`.

    Args:
        growing: time goes on: there is room to the right, so that places change only now and then, and what is idle
            at the end is not over yet.
    """
    busy = _busy(spans, begin, end, growing)
    total = sum(last - first for first, last in busy)
    if growing:
        room = _with_room(total) - total
        busy[-1] = (busy[-1][0], busy[-1][1] + room)
        total += room
    cut = min(_BREAK, _BREAKS / len(busy))
    per_micro = (WIDTH - cut * (len(busy) - 1)) / total
    stretches, breaks, left = [], [], 0.0
    for place, (first, last) in enumerate(busy):
        if place:
            breaks.append(Break(left=left, width=cut, lasted=first - busy[place - 1][1]))
            left += cut
        width = (last - first) * per_micro
        stretches.append(Stretch(begin=first, end=last, left=left, width=width))
        left += width
    return Scale(stretches=tuple(stretches), breaks=tuple(breaks))


def step_for(total: Micros) -> Micros:
    """The distance between ticks at which a few of them fit."""
    seconds = next((step for step in _STEPS if total <= step * SECOND * _TICKS), None)
    return (seconds or -(-total // (_TICKS * _STEPS[-1] * SECOND)) * _STEPS[-1]) * SECOND


def _busy(spans: Iterable[Span], begin: Micros, end: Micros, growing: bool) -> list[Span]:
    """When something happened, joined over all gaps that are to be shown as long as they were; none is empty."""
    inside = sorted((max(begin, first), min(end, last)) for first, last in spans if last >= begin and first <= end)
    known = [(begin, begin), *inside]
    known.append((max(last for _, last in known) if growing else end, end))
    apart = _joined(known, _IDLE)
    active = sum(last - first for first, last in apart)
    idle = max(_IDLE, round(active * _IDLE_SHARE))
    joined = _joined(apart, idle)
    least = max(SECOND, active // (10 * len(joined)))
    return [(first, max(last, first + least)) for first, last in joined]


def _joined(spans: Sequence[Span], idle: Micros) -> list[Span]:
    """Spans in order, those made one that are not further apart than `idle`."""
    joined = [spans[0]]
    for first, last in spans[1:]:
        former = joined[-1]
        if first - former[1] <= idle:
            joined[-1] = (former[0], max(former[1], last))
        else:
            joined.append((first, last))
    return joined


def _with_room(total: Micros) -> Micros:
    """The next round duration."""
    size = 5 * SECOND
    while True:
        for factor in _ROUND:
            if (rounded := round(size * factor)) > total:
                return rounded
        size *= 10
