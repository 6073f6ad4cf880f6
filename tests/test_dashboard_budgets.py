"""The page tells what may still be spent: as much as is known, with words of warning; never less than the truth."""

import re
from dataclasses import replace

import pytest

from tests.driving import MakeDriver
from tests.telling import LIMITS, Teller, at
from trilogue.agent import ErrorBudget
from trilogue.board import Amount
from trilogue.dashboard.breaker import Breaker, breaker_of
from trilogue.dashboard.drawing import draw
from trilogue.dashboard.parts.budgets import Gauge, shown
from trilogue.dashboard.scene import Scene
from trilogue.entry import Kind
from trilogue.errors import Violation
from trilogue.governance.handoff import revoked
from trilogue.money import USD
from trilogue.pipeline import Status
from trilogue.testing.openrouter import OpenRouterServer

CENT = USD // 100


def money_of(teller: Teller) -> Gauge:
    gauge = shown(teller.scene())["money"]
    assert isinstance(gauge, Gauge)
    return gauge


def gauge_of(teller: Teller, name: str, agent: int = 0) -> Gauge:
    account = shown(teller.scene())["accounts"][agent]
    return next(gauge for gauge in account.gauges if gauge.name == name)


def drawn(scene: Scene) -> str:
    return re.sub(r"\s+", " ", draw(scene)["budgets"])


@pytest.mark.parametrize(
    ("tokens", "warning", "tone"),
    [
        (7_499, "", "fine"),
        (7_500, "over 75 %", "held"),
        (9_000, "over 90 %", "bad"),
        (10_000, "spent", "bad"),
        (12_000, "spent", "bad"),
    ],
)
def test_tokens_warn_where_governance_does_in_tone_and_words(tokens: int, warning: str, tone: str) -> None:
    teller = Teller()
    teller.turn(0, 1, tokens=tokens)
    gauge = gauge_of(teller, "Tokens")
    assert (gauge.warning, gauge.tone, gauge.text) == (warning, tone, f"{tokens:,} of 10,000")
    html = drawn(teller.scene())
    assert f'aria-valuemax="10000" aria-valuenow="{min(tokens, 10_000)}"' in html
    assert (f'<b class="tone">{warning}</b>' in html) is bool(warning)


def test_what_running_turns_have_reserved_is_told_beside_what_is_spent() -> None:
    teller = Teller()
    teller.turn(0, 1, tokens=2_000, cost=20 * CENT)
    teller.begin(1, "alpha-1", reserved=3_000, nanousd=30 * CENT)
    tokens, money = gauge_of(teller, "Tokens"), money_of(teller)
    assert (tokens.filled, tokens.held, tokens.note) == (20, 30, "3,000 reserved")
    assert (money.filled, money.held, money.note) == (20, 30, "$0.3000 reserved")


def test_the_head_of_the_page_counts_what_was_broken_off_as_the_budgets_do() -> None:
    teller = Teller()
    teller.turn(0, 1, tokens=2_000, cost=20 * CENT)
    teller.begin(1, "alpha-1", reserved=3_000, nanousd=30 * CENT)
    teller.stop(2, "in the middle of a call")
    head = re.sub(r"<[^>]+>|\s+", " ", draw(teller.scene())["masthead"])
    assert "$0.2000 and an unknown rest" in head
    assert re.search("≈ 5,000 +tokens", head), head
    assert gauge_of(teller, "Tokens").text == "≈ 5,000 of 10,000"


def test_reservations_never_reach_beyond_the_limit_on_the_gauge() -> None:
    teller = Teller()
    teller.turn(0, 1, tokens=9_000)
    teller.begin(1, "alpha-1", reserved=3_000)
    gauge = gauge_of(teller, "Tokens")
    assert (gauge.filled, gauge.held) == (90, 10)


def test_a_call_that_was_never_sent_costs_nothing() -> None:
    teller = Teller()
    teller.turn(0, 1, outcome="cancelled", tokens=0, cost=None, calls=0)
    assert shown(teller.scene())["accounts"][0].cost == "nothing yet"
    assert money_of(teller).text == "$0 of $1.00"


def test_an_estimate_is_marked_as_one() -> None:
    teller = Teller()
    teller.turn(0, 1, "alpha-1", "cancelled", tokens=1_000, cost=None, estimated=True)
    assert gauge_of(teller, "Tokens").text == "≈ 1,000 of 10,000"


def test_a_cost_that_nobody_told_is_unknown_and_not_nothing() -> None:
    teller = Teller()
    teller.turn(0, 1, cost=None)
    money = money_of(teller)
    assert (money.value, money.text, money.note) == (None, "unknown of $1.00", "cost of 1 turn unknown")
    account = shown(teller.scene())["accounts"][0]
    assert account.cost == "unknown"
    html = drawn(teller.scene())
    assert "Money of the pipeline" not in html  # no meter where nothing is measured
    assert "unknown of $1.00" in html


def test_where_some_costs_are_known_they_are_told_and_the_others_counted() -> None:
    teller = Teller()
    teller.turn(0, 1, cost=10 * CENT)
    teller.turn(1, 2, cost=None)
    teller.turn(2, 3, cost=None)
    assert money_of(teller).text == "≈ $0.1000 of $1.00"
    assert shown(teller.scene())["accounts"][0].cost == "$0.1000, 2 turns unknown"


def test_a_cost_that_is_known_to_be_nothing_is_nothing() -> None:
    teller = Teller()
    assert shown(teller.scene())["accounts"][0].cost == "nothing yet"
    teller.turn(0, 1, cost=0)
    assert shown(teller.scene())["accounts"][0].cost == "$0"
    assert money_of(teller).text == "$0 of $1.00"


def test_errors_warn_by_what_is_nearest_to_its_limit() -> None:
    teller = Teller(limits=replace(LIMITS, errors=ErrorBudget(in_all=8, alike=4, violations=2)))
    for second in range(3):
        teller.turn(second, second + 0.5, outcome="malformed")
    gauge = gauge_of(teller, "Errors")
    assert (gauge.text, gauge.note) == ("3 of 8", "alike 3 of 4 · violations 0 of 2")
    assert (gauge.warning, gauge.tone) == ("alike over 75 %", "held")


def test_errors_are_those_of_the_present_round() -> None:
    teller = Teller(timeout=10)
    teller.report(1)
    teller.round(1)
    teller.turn(1, 2, outcome="malformed")
    assert gauge_of(teller, "Errors").text == "1 of 8"
    teller.status(11, Status.TIMEOUT, "struck")
    teller.round(20)
    assert gauge_of(teller, "Errors").text == "0 of 8"


def test_a_revoked_agent_says_why_and_who_goes_on_with_what() -> None:
    teller = Teller()
    teller.say(1, Kind.PROPOSAL, "beta-1", id="p1", title="Plan", text="All of it", turn=0)
    teller.turn(1, 2, "beta-1", "violation")
    agent = teller.board.agents["beta-1"]
    drafts = revoked(teller.board, agent, "a procedure violation", Violation("no"), Amount())
    teller.tell(2, drafts)
    html = drawn(teller.scene())
    assert "violations spent" in html
    left = 'Handed to <span class="mono">alpha-1</span>, with p1 open; take over what it left and solve the objective'
    assert f"Revoked: a procedure violation. {left}" in html


def test_a_replaced_agent_is_still_told_of_with_what_it_spent() -> None:
    teller = Teller(limits=replace(LIMITS, replacements=1))
    teller.turn(1, 2, "beta-1", "violation", tokens=321, cost=CENT)
    agent = teller.board.agents["beta-1"]
    teller.tell(2, revoked(teller.board, agent, "a procedure violation", Violation("no"), Amount()))
    context = shown(teller.scene())
    assert [account.agent.agent_id for account in context["accounts"]] == ["alpha-1", "beta-2"]
    assert [(name, spent.spent.tokens, cost) for name, spent, cost, _ in context["earlier"]] == [
        ("beta-1", 321, "$0.0100")
    ]
    assert 'Handed to <span class="mono">beta-2</span>' in drawn(teller.scene())


def test_a_budget_without_room_for_a_turn_says_so_before_it_is_spent() -> None:
    teller = Teller()
    teller.turn(0, 1, tokens=8_000)
    said = "alpha-1 has used 8,000 of its 10,000 tokens, too many for another turn"
    body = {"scope": "agent", "agent_id": "alpha-1", "of": "tokens", "limit": 10_000, "spent": 8_000, "percent": 80}
    teller.say(2, Kind.BUDGET, **body, verdict="stop", message=said)
    assert gauge_of(teller, "Tokens").warning == "no room for a turn"
    assert said in drawn(teller.scene())


def test_a_mandate_is_told_with_its_tier_its_end_and_what_it_allows() -> None:
    html = drawn(Teller().scene())
    assert "<dd>1, negotiates</dd>" in html
    assert "<dt>RUN</dt><dd>find, pass</dd>" in html
    assert "data-clock" in html


def test_before_there_are_agents_the_page_says_so() -> None:
    teller = Teller()
    teller.story.board.agents.clear()
    assert "No agent was spawned yet." in drawn(teller.scene())


@pytest.mark.parametrize(
    ("breaker", "words"),
    [
        (None, "endpoint: unknown"),
        (Breaker(state="closed", retry_at=None, failures=0), "endpoint answers"),
        (Breaker(state="closed", retry_at=None, failures=3), "endpoint: 3 failed in a row"),
        (
            Breaker(state="open", retry_at=at(12), failures=5),
            'next trial in <time datetime="2025-06-15T15:06:52.000Z" data-until>',
        ),
        (Breaker(state="open", retry_at=None, failures=5), "the next call is the trial"),
        (Breaker(state="trial", retry_at=at(9), failures=5), "trial call under way"),
    ],
)
def test_the_breaker_is_told_of_while_a_worker_needs_the_endpoint(breaker: Breaker | None, words: str) -> None:
    teller = Teller()
    assert words in drawn(teller.scene(5, leased=True, breaker=breaker))
    assert "endpoint" not in drawn(teller.scene(5, leased=False, breaker=breaker))


async def test_the_breaker_of_a_pipeline_is_the_one_that_its_calls_meet(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    services = (await driver_of(rehearsed)).services
    board = Teller().board
    assert await breaker_of(services, board) == Breaker(state="closed", retry_at=None, failures=0)
    endpoint = services.endpoint_of("openrouter", False)
    assert endpoint is not None
    settings = services.settings
    guard = services.live.breaker(endpoint, failures=settings.breaker_failures, open_seconds=30, trial_seconds=10)
    for _ in range(settings.breaker_failures):
        await guard.note(ok=False)
    found = await breaker_of(services, board)
    assert found is not None
    assert (found.state, found.failures) == ("open", settings.breaker_failures)
    assert found.retry_at is not None
