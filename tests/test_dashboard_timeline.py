"""The timeline tells truly when which agent called its model, and what became of it, at any length of a story."""

import re
from html import unescape

import pytest

from tests.driving import MakeDriver
from tests.telling import BEGAN, Teller, at
from trilogue.clock import SECOND
from trilogue.dashboard.drawing import draw
from trilogue.dashboard.parts.course import Course
from trilogue.dashboard.parts.timeline import MOST_BARS, MOST_ROWS, Chart, chart_of
from trilogue.dashboard.parts.timescale import WIDTH, Scale, scale_of, step_for
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import Kind
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.testing.long_story import write_long_story
from trilogue.testing.openrouter import OpenRouterServer

HOUR = 3600 * SECOND


def drawn(teller: Teller, now: float = 0, *, leased: bool = False) -> str:
    return draw(teller.scene(now, leased=leased))["timeline"]


def chart(teller: Teller, until: float) -> Chart:
    return chart_of(teller.story, Course(teller.story.entries), at(until), growing=False)


def on_line(scale: Scale, *seconds: float) -> list[float]:
    return [round(scale.x(round(second * SECOND)), 1) for second in seconds]


def test_time_keeps_its_proportions() -> None:
    scale = scale_of([(0, 10 * SECOND)], begin=0, end=10 * SECOND)
    assert on_line(scale, 0, 2.5, 5, 10) == [0, 250, 500, WIDTH]
    assert on_line(scale, -5, 99) == [0, WIDTH]
    assert scale.breaks == ()


def test_an_idle_night_is_cut_and_the_rounds_before_and_after_it_keep_their_proportions() -> None:
    first, second = (0, 20 * SECOND), (9 * HOUR, 9 * HOUR + 20 * SECOND)
    scale = scale_of([first, second], begin=0, end=second[1])
    (cut,) = scale.breaks
    assert cut.lasted == 9 * HOUR - 20 * SECOND
    assert 0 < cut.width < 50
    widths = [round(scale.x(end) - scale.x(begin), 6) for begin, end in (first, second)]
    assert widths[0] == widths[1] == round((WIDTH - cut.width) / 2, 6)
    middle = scale.x(4 * HOUR)
    assert scale.x(first[1]) < middle < scale.x(second[0])


def test_a_pause_that_is_short_beside_the_work_is_shown_as_long_as_it_was() -> None:
    assert scale_of([(0, 600 * SECOND), (700 * SECOND, 900 * SECOND)], begin=0, end=900 * SECOND).breaks == ()


def test_what_is_idle_just_now_is_not_over_and_not_cut() -> None:
    scale = scale_of([(0, 5 * SECOND)], begin=0, end=500 * SECOND, growing=True)
    assert scale.breaks == ()
    assert scale.end > 500 * SECOND


def test_while_time_goes_on_places_change_only_now_and_then() -> None:
    ends = {scale_of([(0, SECOND)], begin=0, end=s * SECOND, growing=True).end for s in range(60, 120)}
    assert 2 <= len(ends) <= 10


def test_many_cut_nights_leave_most_of_the_line_to_the_work() -> None:
    spans = [(night * 9 * HOUR, night * 9 * HOUR + 30 * SECOND) for night in range(60)]
    scale = scale_of(spans, begin=0, end=spans[-1][1])
    assert len(scale.breaks) == 59
    assert sum(stretch.width for stretch in scale.stretches) > 0.7 * WIDTH
    places = [scale.x(moment) for span in spans for moment in span]
    assert places == sorted(places)
    assert places[-1] == pytest.approx(WIDTH)


@pytest.mark.parametrize("lasted", [0.4, 1, 8, 59, 61, 130, 601, 3_700, 86_400, 900_000, 9_000_000])
def test_ticks_are_few_and_at_round_times(lasted: float) -> None:
    end = round(lasted * SECOND)
    ticks = scale_of([(0, end)], begin=0, end=end).ticks(0)
    assert 1 <= len(ticks) <= 8
    assert all(tick.after % step_for(end) == 0 for tick in ticks)
    assert [tick.x for tick in ticks] == sorted(tick.x for tick in ticks)


def test_after_a_break_the_axis_says_when_it_goes_on_and_counts_from_there() -> None:
    scale = scale_of([(0, 20 * SECOND), (HOUR, HOUR + 20 * SECOND)], begin=0, end=HOUR + 20 * SECOND)
    after = [(tick.after, tick.onwards) for tick in scale.ticks(0) if tick.x > scale.breaks[0].left]
    assert after[0] == (HOUR, False)
    assert after[1:]
    assert all(onwards and time < 20 * SECOND + 1 for time, onwards in after[1:])


def test_a_bar_reaches_from_the_beginning_of_its_turn_to_its_end_on_the_row_of_its_role() -> None:
    teller = Teller()
    teller.turn(0, 4)
    teller.turn(2, 8, "beta-1")
    alpha, beta = chart(teller, 8).bars
    assert (alpha.x, alpha.width) == (0, 500)
    assert (beta.x, beta.width) == (250, 750)
    assert (alpha.tone, beta.tone) == ("alpha", "beta")
    assert alpha.y < beta.y
    assert [role for role, _ in chart(teller, 8).rows] == ["ALPHA", "BETA"]


@pytest.mark.parametrize(
    ("outcome", "look", "words"),
    [
        ("acted", "acted", "acted"),
        ("malformed", "failed", "unusable answer"),
        ("endpoint", "failed", "endpoint failed"),
        ("cancelled", "cut", "broken off"),
        ("lost", "cut", "lost with its worker"),
    ],
)
def test_an_outcome_shows_by_the_look_of_the_bar_and_in_words(outcome: str, look: str, words: str) -> None:
    teller = Teller()
    teller.turn(0, 4, outcome=outcome, tokens=1234, cost=None)
    (bar,) = chart(teller, 4).bars
    assert bar.look == look
    assert bar.told == f"Turn 1, alpha-1: {words}; 4.0 s; 1,234 tokens; cost unknown; anthropic/claude-sonnet-4"
    html = drawn(teller)
    assert f'class="call alpha {look}"' in html
    assert ('fill="url(#chart-hatch)"' in html) is (look == "failed")
    assert f"<td>{words}</td>" in html


def test_a_running_turn_grows_while_a_worker_is_at_it_and_stands_still_without_one() -> None:
    teller = Teller()
    teller.begin(1, "alpha-1")
    width = r'class="call alpha running".* width="([\d.]+)%"'
    grown = [float(re.findall(width, drawn(teller, now, leased=True))[0]) for now in (2, 3)]
    assert grown[0] < grown[1]
    assert drawn(teller, 2) == drawn(teller, 5000)


def test_at_rest_the_same_is_drawn_for_ever() -> None:
    teller = Teller()
    teller.turn(0, 4)
    teller.report(5)
    assert drawn(teller, 10) == drawn(teller, 10_000)  # held
    teller.begin(11, "alpha-1")
    teller.stop(12, "enough")
    assert drawn(teller, 12, leased=True) == drawn(teller, 10_000)


def test_what_an_earlier_worker_left_open_overnight_does_not_fill_the_line() -> None:
    teller = Teller()
    teller.turn(0, 10)
    lost = teller.begin(10, "alpha-1")
    teller.end(10 + 9 * 3600, lost, "lost")
    teller.turn(10 + 9 * 3600, 20 + 9 * 3600)
    first, _, last = chart(teller, 20 + 9 * 3600).bars
    assert min(first.width, last.width) > 0.3 * WIDTH


def test_every_bar_can_be_seen_and_none_leaves_the_line() -> None:
    teller = Teller()
    for second in range(0, 6000, 100):
        teller.turn(second, second + 0.001)
    teller.turn(5901, 5960)
    teller.turn(5960, 5960.001)
    bars = chart(teller, 5960.001).bars
    assert all(bar.width >= 4 and bar.x >= 0 and bar.x + bar.width <= WIDTH + 1e-6 for bar in bars)


async def test_of_a_long_story_the_latest_turns_are_shown_and_the_rest_is_counted(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    services = (await driver_of(rehearsed)).services
    await write_long_story(services.ledger, TENANT, "p-long", entries=2_000)
    story = Story.told(await services.ledger.entries(TENANT, "p-long"))
    row = await services.ledger.get_pipeline(TENANT, "p-long")
    shown = chart_of(story, Course(story.entries), story.board.at, growing=False)
    assert len(shown.bars) == MOST_BARS
    assert shown.bars[-1].number == len(story.turns)
    assert shown.earlier == len(story.turns) - MOST_BARS > 0
    html = draw(Scene(story=story, row=row, now=story.board.at))["timeline"]
    assert f"the first {shown.earlier:,} are not shown" in html
    assert html.count("<tr data-key=") == MOST_ROWS
    assert len(html) < 80_000


def test_gamma_has_a_row_once_it_is_called_and_its_mediation_a_span() -> None:
    teller = Teller(timeout=100)
    teller.turn(0, 10)
    teller.report(10)
    teller.round(10)
    teller.say(20, Kind.MEDIATION_STARTED, mediation=1, trigger="STUCK", evidence={})
    teller.say(20, Kind.AGENT_SPAWNED, agent_id="gamma-1", role="GAMMA", tier=2, runtime="python", model="m")
    teller.turn(20, 30, "gamma-1")
    teller.say(30, Kind.MEDIATION_ENDED, mediation=1, trigger="STUCK", outcome="named the obstacle")
    shown = chart(teller, 40)
    assert [role for role, _ in shown.rows] == ["ALPHA", "BETA", "GAMMA"]
    (span,) = shown.mediations
    assert (span.x, span.width) == (500, 250)
    assert span.told == "GAMMA: STUCK; named the obstacle"
    assert [(band.name, band.x) for band in shown.bands if band.width > 1] == [("RUN", 0), ("ORCHESTRATE", 250)]


def test_what_people_did_is_marked_and_told_in_order() -> None:
    teller = Teller(timeout=60)
    teller.turn(0, 4)
    teller.report(4)
    teller.round(4)
    teller.status(64, Status.TIMEOUT, "the orchestration timeout struck")
    teller.round(10_000, reason="once more")
    teller.stop(10_010, "too dear")
    marks = [(mark.kind, mark.said) for _, mark in chart(teller, 10_010).marks]
    assert marks == [
        ("end", "TIMEOUT: the orchestration timeout struck"),
        ("continue", "continued as round 2: once more"),
        ("stop", "stopped: too dear"),
    ]
    (struck,) = chart(teller, 10_010).deadlines
    assert struck[0] == chart(teller, 10_010).marks[0][0]
    html = drawn(teller)
    assert html.index("TIMEOUT: ") < html.index("continued as round 2") < html.index("stopped: too dear")
    assert "nothing for 2 h 45 min" in html


def test_a_deadline_that_is_near_is_a_line_and_one_far_ahead_is_none() -> None:
    teller = Teller(timeout=10)
    teller.report(1)
    teller.round(1)
    teller.begin(1, "alpha-1")
    far, near = (chart_of(teller.story, Course(teller.story.entries), at(s), growing=True).deadlines for s in (3, 10.8))
    assert (len(far), len(near)) == (0, 1)


def test_turns_of_agents_that_a_rewinding_took_away_are_still_told() -> None:
    teller = Teller()
    teller.say(1, Kind.CHECKPOINT, name="here", to_seq=teller.board.seq, status="RUNNING", phase="RUN", round=0)
    teller.say(2, Kind.AGENT_SPAWNED, agent_id="beta-2", role="BETA", tier=1, runtime="python", model="m")
    teller.turn(3, 5, "beta-2", tokens=777)
    body = {"status": "RUNNING", "phase": "RUN", "round": 0, "deadline": None, "agents": {}, "gone": ["beta-2"]}
    to_seq = next(entry.body["to_seq"] for entry in teller.story.entries if entry.body.get("name") == "here")
    teller.say(6, Kind.REWOUND, to_seq=to_seq, checkpoint="here", reason="wrong turning", error=None, **body)
    html = drawn(teller)
    assert "rewound to checkpoint here: wrong turning" in html
    assert 'class="call beta acted"' in html
    assert "777" in draw(teller.scene())["budgets"]


def test_a_model_with_a_hostile_name_stays_text() -> None:
    teller = Teller()
    teller.turn(0, 4, model='"><script>alert(1)</script>\u202e' + "x" * 30_000)
    teller.stop(5, '"><img src=x onerror=alert(1)>')
    html = drawn(teller)
    assert "<script" not in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert len(html) < 20_000
    assert '"><script>' in unescape(html)


def test_the_strict_policy_of_the_page_has_nothing_to_forbid() -> None:
    teller = Teller()
    teller.turn(0, 4, outcome="malformed")
    teller.begin(5, "beta-1")
    html = drawn(teller, 6, leased=True)
    assert not re.search(r"\sstyle=|\son\w+=|javascript:|<style|<script", html)


def test_one_bar_is_reached_by_keyboard_and_leads_to_the_others() -> None:
    teller = Teller()
    for second in range(5):
        teller.turn(second, second + 0.5)
    bars = re.findall(r'<rect class="call [^>]*tabindex="(-?\d)"', drawn(teller))
    assert bars == ["-1", "-1", "-1", "-1", "0"]


def test_before_the_first_call_the_page_says_so() -> None:
    html = drawn(Teller())
    assert "No model was asked yet." in html
    assert "<svg" not in html


def test_the_line_begins_when_the_pipeline_was_spawned() -> None:
    teller = Teller()
    teller.turn(5, 10)
    assert teller.story.created_at == BEGAN
    assert chart(teller, 10).bars[0].x == 500
    assert chart(teller, 10).ticks[0] == (0, "start", "0")
