"""The timeline: every model call as a bar, a row a role, behind it the phases, beside it what people did.

Places are percent of the chart's width and pixels of its height, so that it fills its card at any width and no text
is distorted. While the pipeline is at work the running turns reach to the present; at rest nothing moves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

from trilogue.agent import Role
from trilogue.clock import SECOND, Micros
from trilogue.dashboard.parts.course import Band, Course, Mark
from trilogue.dashboard.parts.timescale import Scale, Span, Tick, scale_of
from trilogue.dashboard.rendering import duration, money, number, title
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story, Turn

MOST_BARS = 200
"""Turns that the chart shows; those before them are in the log."""
MOST_ROWS = 60
"""Turns that the table lists."""
MOST_MARKS, MARKS_IN_WORDS = 40, 6

PHASES, MARKS, ROW, BAR, AXIS = 22, 18, 34, 18, 24
"""Pixels: the strip of the phases, that of the marks, a row and the bar in it, the axis."""
_LEAST = 4.0
"""Units that a bar is wide at least."""
_LONGEST_MODEL = 60
_LETTER, _NARROW, _WIDE = 8.0, 270.0, 560.0
"""Pixels: a letter of a phase's name, and the chart's width on a phone and on most desks."""

OUTCOMES = {
    None: "under way",
    "acted": "acted",
    "malformed": "unusable answer",
    "violation": "outside its mandate",
    "endpoint": "endpoint failed",
    "refused": "turned down by the endpoint",
    "budget": "budget spent",
    "expired": "mandate expired",
    "cancelled": "broken off",
    "lost": "lost with its worker",
}
_LOOKS = {None: "running", "acted": "acted", "cancelled": "cut", "lost": "cut"}
_FILLS = {"failed": ' fill="url(#chart-hatch)"', "running": ' fill="url(#chart-open-{tone})"'}
LEGEND = {"acted": "acted", "failed": "failed", "cut": "broken off", "running": "under way"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One turn. `look` is a key of `LEGEND`; `told` says all about it in one line, its parts separated by `; `."""

    number: int
    tone: str
    look: str
    x: float
    width: float
    y: int
    told: str

    def drawn(self, *, focusable: bool) -> Markup:
        """Its element. Not in the template, which would take most of a frame for some hundreds of them."""
        fill = _FILLS.get(self.look, "").format(tone=self.tone)
        return Markup(  # noqa: S704  # `told` is escaped; all else are numbers and words of ours
            f'<rect class="call {self.tone} {self.look}" role="img" tabindex="{0 if focusable else -1}" '
            f'x="{percent(self.x)}" y="{self.y}" width="{percent(self.width)}" height="{BAR}"{fill} '
            f'data-key="turn-{self.number}" aria-label="{escape(self.told)}"/>'
        )


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A phase or a mediation behind the bars.

    Attributes:
        room: whether its name fits at `any` width of the chart, only where the page is `wide`, or at `none`.
    """

    kind: str
    x: float
    width: float
    name: str
    told: str
    room: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The geometry of it all: `x` and `width` in 0..1000, `y` and `height` in pixels."""

    rows: tuple[tuple[str, int], ...]
    height: int
    bars: tuple[Bar, ...]
    bands: tuple[Strip, ...]
    mediations: tuple[Strip, ...]
    ticks: tuple[tuple[float, str, str], ...]
    breaks: tuple[tuple[float, float, str], ...]
    marks: tuple[tuple[float, Mark], ...]
    deadlines: tuple[tuple[float, str], ...]
    earlier: int


def shown(scene: Scene) -> Mapping[str, Any]:
    """`chart` (None before the first model call), the turns of the table, newest first, and what people did."""
    story = scene.story
    if not story.turns:
        return {"chart": None}
    course = Course(story.entries)
    until = max(story.board.at, scene.now) if scene.at_work else story.board.at
    chart = chart_of(story, course, until, growing=scene.at_work)
    turns = list(story.turns.values())
    looks = {bar.look for bar in chart.bars}
    return {
        "chart": chart,
        "bars": Markup("\n").join(bar.drawn(focusable=bar is chart.bars[-1]) for bar in chart.bars),
        "percent": percent,
        "legend": [(look, word) for look, word in LEGEND.items() if look in looks],
        "calls": len(turns),
        "turns": [(turn, OUTCOMES.get(turn.outcome, str(turn.outcome))) for turn in turns[: -MOST_ROWS - 1 : -1]],
        "unlisted": max(0, len(turns) - MOST_ROWS),
        "marks": course.marks[-MARKS_IN_WORDS:],
        "role_of": {turn.agent_id: role_of(turn).lower() for turn in turns[-MOST_ROWS:]},
        "layout": {"phases": PHASES, "marks": MARKS, "row": ROW, "bar": BAR, "axis": AXIS},
    }


def percent(units: float) -> str:
    """A place or a width as an attribute."""
    return f"{units / 10:.2f}%"


def role_of(turn: Turn) -> str:
    """ALPHA, BETA or GAMMA, also for an agent that a rewinding took off the board."""
    return turn.agent_id.partition("-")[0].upper()


def chart_of(story: Story, course: Course, until: Micros, *, growing: bool) -> Chart:
    """The chart of what happened up to `until`; `growing` while the pipeline is at work."""
    every = list(story.turns.values())
    turns = every[-MOST_BARS:]
    begin = story.created_at if len(turns) == len(every) else turns[0].begun_at
    scale = scale_of(_spans(turns, course, until), begin=begin, end=until, growing=growing)
    roles = [role for role in Role if role is not Role.GAMMA or course.mediations or "GAMMA" in map(role_of, turns)]
    rows = {role.value: PHASES + MARKS + place * ROW for place, role in enumerate(roles)}
    return Chart(
        rows=tuple(rows.items()),
        height=PHASES + MARKS + len(rows) * ROW + AXIS,
        bars=tuple(_bar(turn, scale, rows[role_of(turn)], until) for turn in turns),
        bands=tuple(_bands(course.bands, scale, until)),
        mediations=tuple(_mediations(course, scale, until)),
        ticks=tuple((tick.x, _place(tick.x), _label(tick)) for tick in scale.ticks(story.created_at)),
        breaks=tuple((cut.left, cut.width, f"nothing for {duration(cut.lasted)}") for cut in scale.breaks),
        marks=tuple((scale.x(mark.at), mark) for mark in course.marks[-MOST_MARKS:] if mark.at >= scale.begin),
        deadlines=tuple(_deadlines(course, scale)),
        earlier=len(every) - len(turns),
    )


def _spans(turns: Sequence[Turn], course: Course, until: Micros) -> Iterator[Span]:
    """When something happened."""
    for turn in turns:
        if turn.outcome == "lost":  # nobody was there until somebody noticed
            yield turn.begun_at, turn.begun_at
            yield turn.ended_at or until, turn.ended_at or until
        else:
            yield turn.begun_at, turn.ended_at or until
    for at in [band.started_at for band in course.bands] + [mark.at for mark in course.marks]:
        yield at, at


def _bar(turn: Turn, scale: Scale, row: int, until: Micros) -> Bar:
    x = scale.x(turn.begun_at)
    width = max(_LEAST, scale.x(turn.ended_at or until) - x)
    role = role_of(turn)
    took = None if turn.ended_at is None else turn.ended_at - turn.begun_at
    return Bar(
        number=turn.number,
        tone=role.lower(),
        look=_LOOKS.get(turn.outcome, "failed"),
        x=min(x, 1000 - width),
        width=width,
        y=row + (ROW - BAR) // 2,
        told=_told(
            turn.number, turn.agent_id, turn.model, turn.outcome, took, turn.tokens, turn.cost_nanousd, turn.estimated
        ),
    )


@lru_cache(maxsize=16 * MOST_BARS)
def _told(
    turn: int,
    agent_id: str,
    model: str,
    outcome: str | None,
    took: Micros | None,
    tokens: int | None,
    nanousd: int | None,
    estimated: bool,
) -> str:
    """All about a turn in one line; remembered, since turns that ended stay as they are."""
    told = [f"Turn {turn}, {agent_id}: {OUTCOMES.get(outcome, outcome)}"]
    if took is not None:
        counted = "tokens unknown" if tokens is None else f"{'≈ ' if estimated else ''}{number(tokens)} tokens"
        told += [duration(took), counted, f"cost {money(nanousd)}"]
    return "; ".join([*told, title(model)[:_LONGEST_MODEL]])


def _bands(bands: Iterable[Band], scale: Scale, until: Micros) -> Iterator[Strip]:
    for band in bands:
        ended_at = band.ended_at or until
        if ended_at >= scale.begin:
            name = f"ROUND {band.round}" if band.phase == "ORCHESTRATE" and band.round > 1 else band.phase.value
            told = f"{name}; {duration(ended_at - band.started_at)}"
            yield _strip(scale, band.phase.lower(), band.started_at, ended_at, name, told)


def _mediations(course: Course, scale: Scale, until: Micros) -> Iterator[Strip]:
    for mediation in course.mediations:
        ended_at = mediation.ended_at or until
        if ended_at >= scale.begin:
            told = f"GAMMA: {mediation.trigger}; {mediation.outcome or 'under way'}"
            yield _strip(scale, "mediated", mediation.started_at, ended_at, mediation.trigger, told)


def _strip(scale: Scale, kind: str, begin: Micros, end: Micros, name: str, told: str) -> Strip:
    x = scale.x(begin)
    width = max(1.0, scale.x(end) - x)
    needed = (len(name) + 1) * _LETTER * 1000
    room = "any" if needed <= width * _NARROW else "wide" if needed <= width * _WIDE else "none"
    return Strip(kind=kind, x=x, width=width, name=name, told=told, room=room)


def _deadlines(course: Course, scale: Scale) -> Iterator[tuple[float, str]]:
    """Those that struck, and the one that is near."""
    for deadline in course.deadlines:
        struck = deadline.ended_at is not None and deadline.at <= deadline.ended_at
        ahead = deadline.ended_at is None and deadline.at < scale.end
        if scale.begin <= deadline.at and (struck or ahead):
            x = scale.x(deadline.at)
            yield x, _place(x)


def _place(x: float) -> str:
    """Where a text stands at a place, so that it does not leave the chart: `text-anchor`."""
    return "start" if x < 25 else "end" if x > 960 else "middle"


def _label(tick: Tick) -> str:
    """`0`, `15 s`, `1:30 min`, `2 h 05 min`; `+15 s` after a break."""
    seconds = tick.after // SECOND
    sign = "+" if tick.onwards else ""
    if seconds >= 3600:
        return sign + duration(tick.after)
    minutes, rest = divmod(seconds, 60)
    if not minutes:
        return f"{sign}{rest} s" if rest else "0"
    return f"{sign}{minutes} min" if not rest else f"{sign}{minutes}:{rest:02d} min"
