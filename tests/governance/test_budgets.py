"""Token and money budgets hold: reserved before a call, settled after it, in rows that tell what the board tells."""

import asyncio
from typing import Any

import pytest

from tests.driving import Course, Driver, MakeDriver, asked, shown
from tests.fixtures.book import until
from tests.test_pipeline_faults import negotiating, when
from trilogue.agent import Role
from trilogue.board import NOTHING, Amount
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.errors import Conflict
from trilogue.ledger.opening import TENANT
from trilogue.ledger.rows import BudgetRow
from trilogue.money import USD
from trilogue.pipeline import Phase, Status
from trilogue.spec import RoundSpec
from trilogue.testing.openrouter import USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN, OpenRouterServer
from trilogue.testing.plans import Drop, Hang, Ok, Raw, Seen, Step

PRICES = {"test/one": (USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN)}


async def rows(driver: Driver, pipeline_id: str) -> dict[str, BudgetRow]:
    """The budgets' rows: `tenant`, `pipeline`, and the agents'."""
    found = await driver.services.ledger.budgets(TENANT, pipeline_id)
    return {row.agent_id or ("pipeline" if row.pipeline_id else "tenant"): row for row in found}


def spent(row: BudgetRow) -> Amount:
    return Amount(tokens=row.tokens_spent, nanousd=row.nanousd_spent)


def reserved(row: BudgetRow) -> Amount:
    return Amount(tokens=row.tokens_reserved, nanousd=row.nanousd_reserved)


async def tell_the_same(driver: Driver, course: Course) -> None:
    """The rows are what the entries come to, and nothing is left reserved."""
    kept = await rows(driver, course.pipeline_id)
    for agent_id in course.board.agents:
        assert spent(kept[agent_id]) == course.board.spending_of(agent_id).spent
    assert spent(kept["pipeline"]) == course.board.spending_in_all().spent
    assert {reserved(row) for row in kept.values()} == {NOTHING} == {course.board.spending_in_all().reserved}


def told(course: Course, verdict: str) -> list[Any]:
    return [body for body in course.bodies(Kind.BUDGET) if body["verdict"] == verdict]


async def test_what_is_reserved_and_settled_is_what_the_server_counted(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str
) -> None:
    rehearsed.prices = PRICES
    driver = await driver_of(rehearsed, ledger_url=ledger_url)
    course = await driver.run()
    assert course.board.status is Status.COMPLETED
    for begun, ended in zip(
        sorted(course.bodies(Kind.TURN_BEGUN), key=lambda body: body["turn"]),
        sorted(course.bodies(Kind.TURN_ENDED), key=lambda body: body["turn"]),
        strict=True,
    ):
        assert begun["reserved"] == ended["reserved"]
        assert begun["reserved"]["tokens"] > begun["max_tokens"] == 4096
        assert begun["reserved"]["cost_nanousd"] > 4096 * USD_PER_OUTPUT_TOKEN * USD
        took = ended["usage"]["input_tokens"] + ended["usage"]["output_tokens"]
        assert ended["settled"] == {"tokens": took, "cost_nanousd": ended["cost_nanousd"], "estimated": False}
    await tell_the_same(driver, course)
    kept = await rows(driver, course.pipeline_id)
    assert (kept["alpha-1"].tokens_limit, kept["pipeline"].nanousd_limit) == (200_000, 2 * USD)
    usage = await driver.services.ledger.usage(TENANT, course.pipeline_id)
    assert kept["pipeline"].nanousd_spent == sum(row.cost_nanousd or 0 for row in usage) > 0


async def test_an_agent_near_its_limit_is_warned_then_cut_short_then_stopped_and_continue_can_raise_the_limit(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(max_tokens=3_000)
    assert course.board.status is Status.ORCHESTRATION_FAILED
    assert course.board.error is not None
    assert course.board.error["code"] == "budget_spent"
    stopped = {body["agent_id"] for body in told(course, "stop")}
    assert stopped
    for body in told(course, "stop"):
        assert (body["scope"], body["of"], body["limit"]) == ("agent", "tokens", 3_000)
    assert 75 in {body["percent"] for body in told(course, "allow")}
    assert told(course, "degrade")
    assert all(seen.body["max_tokens"] >= 256 for seen in rehearsed.chats)
    for agent_id in course.board.agents:
        overrun = sum(
            max(0, body["settled"]["tokens"] - body["reserved"]["tokens"])
            for body in course.bodies(Kind.TURN_ENDED)
            if body["agent_id"] == agent_id
        )
        assert course.board.spending_of(agent_id).spent.tokens <= 3_000 + overrun
    await tell_the_same(driver, course)

    again = await driver.carry_on(course.pipeline_id, max_tokens=100_000)
    assert again.board.status is Status.COMPLETED, again.board.error
    assert again.board.spending_in_all().spent.tokens > course.board.spending_in_all().spent.tokens
    assert (await rows(driver, course.pipeline_id))["alpha-1"].tokens_limit == 100_000


async def test_each_level_warns_once_for_the_agents_tokens_and_for_the_pipelines_money(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    shares = iter((70, 8, 13))  # percent of ALPHA's tokens and of the pipeline's money, turn by turn

    def plan(seen: Seen) -> Ok:
        if seen.path != "/chat/completions" or shown(seen)["you"] != "ALPHA":
            return Ok(usage={"cost": 0.0})
        share = next(shares, 0)
        return Ok(usage={"prompt_tokens": share * 1_000, "completion_tokens": 0, "cost": share / 100})

    rehearsed.plan = plan
    driver = await driver_of(rehearsed)
    course = await driver.run(max_tokens=100_000, max_cost=1.0)
    said = [(body["scope"], body["of"], body["percent"]) for body in told(course, "allow")]
    levels = [("agent", "tokens", 75), ("pipeline", "cost", 75), ("agent", "tokens", 90), ("pipeline", "cost", 90)]
    assert said == levels
    assert {body["agent_id"] for body in told(course, "allow")} == {"alpha-1"}


async def test_a_pipeline_out_of_money_asks_the_cheaper_fallback_and_stops_when_that_is_too_dear(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.prices = {**PRICES, "test/cheap": (USD_PER_INPUT_TOKEN / 100, USD_PER_OUTPUT_TOKEN / 100)}
    driver = await driver_of(rehearsed, fallback_models="test/cheap")
    course = await driver.run(max_cost=0.01)  # one answer of 4,096 tokens may cost six cents
    assert course.board.status is Status.COMPLETED
    assert {seen.body["model"] for seen in rehearsed.chats} == {"test/cheap"}
    assert {body["model"] for body in course.bodies(Kind.TURN_BEGUN)} == {"test/cheap"}
    assert {(body["scope"], body["of"]) for body in told(course, "degrade")} == {("pipeline", "cost")}
    await tell_the_same(driver, course)

    rehearsed.requests.clear()
    poor = await driver.run(max_cost=0.00001)
    assert poor.board.status is Status.FAILED
    assert poor.board.error is not None
    assert poor.board.error["code"] == "budget_spent"
    assert not rehearsed.chats
    assert {body["scope"] for body in told(poor, "stop")} == {"pipeline"}


async def test_tokens_that_run_out_in_the_middle_of_a_turn_leave_no_room_for_its_repair(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(
        negotiating(Role.BETA), Ok(text="no JSON", usage={"prompt_tokens": 9_000, "completion_tokens": 1_000})
    )
    driver = await driver_of(rehearsed)
    course = await driver.run(max_tokens=10_000)
    ended = [body for body in course.bodies(Kind.TURN_ENDED) if body["agent_id"] == "beta-1"]
    assert [(body["outcome"], body["calls"]) for body in ended] == [("acted", 1), ("budget", 1)]
    assert ended[-1]["error"]["code"] == "budget_spent"
    assert not course.board.agents["beta-1"].faults, "a budget is no mistake of the agent's"
    assert sum(negotiating(Role.BETA)(seen) for seen in rehearsed.chats) == 1
    assert course.board.error is not None
    assert course.board.error["code"] == "budget_spent"
    await tell_the_same(driver, course)


async def test_money_that_runs_out_in_the_middle_of_a_turn_leaves_no_room_for_its_repair(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    dear = Ok(text="no JSON", usage={"prompt_tokens": 10, "completion_tokens": 10, "cost": 1.0})
    rehearsed.plan = when(negotiating(Role.BETA), dear)
    driver = await driver_of(rehearsed)
    course = await driver.run(max_cost=0.5)
    ended = [body for body in course.bodies(Kind.TURN_ENDED) if body["agent_id"] == "beta-1"]
    assert [(body["outcome"], body["calls"]) for body in ended] == [("acted", 1), ("budget", 1)]
    assert course.board.error is not None
    assert course.board.error["code"] == "budget_spent"
    await tell_the_same(driver, course)


async def test_calls_that_break_off_one_after_the_other_are_charged_whole_each_and_stop_at_the_limit(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda seen: seen.path == "/chat/completions", Drop(after=1))
    driver = await driver_of(rehearsed)
    course = await driver.run(max_tokens=10_000)
    assert course.outcomes() == ["budget", "budget"]
    assert [body["calls"] for body in course.bodies(Kind.TURN_ENDED)] == [2, 2]
    for body in course.bodies(Kind.TURN_ENDED):
        assert body["settled"]["tokens"] == 2 * body["reserved"]["tokens"] <= 10_000
    await tell_the_same(driver, course)


async def test_a_repair_that_is_cut_off_is_charged_beside_the_answer_that_it_was_to_mend(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    useless = Ok(text="no JSON", usage={"prompt_tokens": 5_000, "completion_tokens": 5_000, "cost": 0.25})

    def plan(seen: Seen) -> Step:
        if not asked(seen, Role.BETA, Phase.ORCHESTRATE):
            return Ok()
        return useless if len(seen.body["messages"]) == 2 else Hang()

    rehearsed.plan = plan
    rehearsed.prices = PRICES
    driver = await driver_of(rehearsed)
    course = await driver.run(timeout=1.0)
    (cut,) = [body for body in course.bodies(Kind.TURN_ENDED) if body["outcome"] == "cancelled"]
    assert (cut["calls"], cut["settled"]["estimated"]) == (2, True)
    assert cut["settled"]["tokens"] == cut["reserved"]["tokens"] + 10_000
    assert cut["settled"]["cost_nanousd"] == cut["reserved"]["cost_nanousd"] + USD // 4
    await tell_the_same(driver, course)


async def test_a_fallback_too_dear_for_the_budget_is_left_out_before_the_answer_is_cut_short(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.prices = {**PRICES, "test/dear": (USD_PER_INPUT_TOKEN * 100, USD_PER_OUTPUT_TOKEN * 100)}
    driver = await driver_of(rehearsed, fallback_models="test/dear")
    course = await driver.run(max_cost=0.5)
    assert course.board.status is Status.COMPLETED
    assert {seen.body.get("models") for seen in rehearsed.chats} == {None}
    assert {seen.body["max_tokens"] for seen in rehearsed.chats} == {4_096}
    assert all("alone" in body["message"] for body in told(course, "degrade"))


@pytest.mark.parametrize("price", ["9" * 400, '"1e-320"', "NaN", "-1", "true", "null"])
@pytest.mark.parametrize("pricing", ['{"prompt": X, "completion": 0}', '{"prompt": 0, "completion": X}'])
async def test_whatever_the_price_list_says_nothing_breaks(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, pricing: str, price: str
) -> None:
    listed = f'{{"data": [{{"id": "test/one", "pricing": {pricing.replace("X", price)}}}]}}'
    rehearsed.plan = lambda seen: Raw(body=listed.encode()) if seen.path == "/models" else Ok()
    driver = await driver_of(rehearsed)
    course = await driver.run()
    assert course.board.status is Status.COMPLETED
    await tell_the_same(driver, course)


@pytest.mark.parametrize("cut_off", ["hangs", "drops"])
async def test_a_call_of_unknown_outcome_is_charged_whole_and_marked_estimated(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, cut_off: str
) -> None:
    rehearsed.prices = PRICES
    betas: list[int] = []

    def first_of_beta(seen: Seen) -> bool:
        if asked(seen, Role.BETA, Phase.ORCHESTRATE):
            betas.append(seen.number)
        return betas[:1] == [seen.number]

    rehearsed.plan = when(first_of_beta, Hang() if cut_off == "hangs" else Drop(after=1))
    driver = await driver_of(rehearsed)
    course = await driver.run(timeout=1.0 if cut_off == "hangs" else 20.0)
    (unknown,) = [body for body in course.bodies(Kind.TURN_ENDED) if body["settled"]["estimated"]]
    assert unknown["agent_id"] == "beta-1"
    if cut_off == "hangs":
        assert unknown["outcome"] == "cancelled"
        assert unknown["settled"] == {**unknown["reserved"], "estimated": True}
    else:  # the call that broke off whole, and the one that went well as counted
        assert unknown["outcome"] == "acted"
        assert unknown["settled"]["tokens"] > unknown["reserved"]["tokens"]
        assert unknown["settled"]["cost_nanousd"] > unknown["reserved"]["cost_nanousd"]
    assert course.board.spending_of("beta-1").estimated
    assert not course.board.spending_of("alpha-1").estimated
    await tell_the_same(driver, course)


async def test_a_stop_charges_whatever_was_in_flight_and_a_resume_charges_none_of_it_again(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str
) -> None:
    rehearsed.plan = when(lambda _: True, Hang())
    driver = await driver_of(rehearsed, ledger_url=ledger_url)
    pipeline_id = await driver.spawn()
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: len(rehearsed.chats) == 2)
    held = await rows(driver, pipeline_id)
    assert all(reserved(held[name]).tokens > 4_096 for name in ("alpha-1", "beta-1"))
    await local(driver.services).stop(pipeline_id, "enough")
    with pytest.raises(Conflict):
        await carrying
    stopped = await driver.course(pipeline_id)
    await tell_the_same(driver, stopped)
    charged = stopped.board.spending_in_all()
    assert charged.spent == reserved(held["pipeline"])
    assert charged.estimated

    rehearsed.plan = ()
    await local(driver.services).resume(pipeline_id, RoundSpec(reason="go on"))
    course = await driver.carry(pipeline_id)
    assert course.board.status is Status.COMPLETED
    lost = [body for body in course.bodies(Kind.TURN_ENDED) if body["outcome"] == "lost"]
    assert [body["settled"]["tokens"] for body in lost] == [0, 0]
    await tell_the_same(driver, course)


async def test_a_call_that_was_never_sent_gives_its_reservation_back(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(agent_timeout=0.000_001)  # over before any turn can be sent
    assert not rehearsed.chats
    assert course.board.spending_in_all().spent == NOTHING
    await tell_the_same(driver, course)


async def test_all_pipelines_of_a_tenant_together_stay_within_its_limit_and_wait_for_each_other(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str
) -> None:
    rehearsed.latency = 0.02
    driver = await driver_of(rehearsed, ledger_url=ledger_url)
    before = (await rows(driver, await driver.spawn()))["tenant"].tokens_spent
    # Room for three calls of some 5,000 tokens at a time, and for what four pipelines really take.
    limit = before + 45_000
    await driver.services.ledger.limit_tenant(TENANT, tokens=limit, nanousd=None)
    highest = 0

    async def look() -> None:
        nonlocal highest
        while True:
            row = (await driver.services.ledger.budgets(TENANT, ""))[0]
            highest = max(highest, row.tokens_spent + row.tokens_reserved)
            await asyncio.sleep(0.002)

    looking = asyncio.create_task(look())
    try:
        courses = await asyncio.gather(*(driver.run() for _ in range(4)))
    finally:
        looking.cancel()
        await driver.services.ledger.limit_tenant(TENANT, tokens=None, nanousd=None)
    assert {course.board.status for course in courses} == {Status.COMPLETED}
    assert limit - 10_000 < highest <= limit
    assert not [body for course in courses for body in told(course, "stop")]


async def test_a_tenant_whose_budget_is_spent_begins_no_other_turn(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed, tenant_max_tokens=1)
    course = await driver.run()
    assert course.board.status is Status.FAILED
    assert course.board.error is not None
    assert course.board.error["code"] == "budget_spent"
    assert not rehearsed.chats
    assert {body["scope"] for body in told(course, "stop")} == {"tenant"}
    for settings, ends in (({}, Status.FAILED), ({"tenant_max_tokens": "none"}, Status.COMPLETED)):
        assert (await (await driver_of(rehearsed, **settings)).run()).board.status is ends
