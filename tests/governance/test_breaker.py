"""The circuit breaker at work: an endpoint that is down holds everybody up, and costs no agent anything."""

import asyncio

from tests.driving import MakeDriver
from tests.fixtures.book import until
from trilogue.board import NOTHING
from trilogue.entry import Kind
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.testing.openrouter import OpenRouterServer, serving
from trilogue.testing.plans import Drop, Ok, Seen, Step
from trilogue.testing.plans import Status as Answers


async def test_an_endpoint_down_for_a_while_is_left_alone_and_everything_goes_on(driver_of: MakeDriver) -> None:
    down = False

    def plan(seen: Seen) -> Step:
        return Answers(code=503) if down and seen.path == "/chat/completions" else Ok()

    async with serving(rehearse, plan=plan, latency=0.05) as server:
        one, other = [await driver_of(server, key="unused", breaker_seconds=0.4) for _ in range(2)]
        carrying = [
            asyncio.create_task(driver.carry(await driver.spawn(f"Objective {number}")))
            for number, driver in enumerate([one, other] * 3)
        ]
        await until(lambda: len(server.chats) > 12)
        down = True
        before = list(server.chats)
        await until(lambda: all(seen.ended is not None for seen in before))  # their answers begin the count anew
        failed_from = len(server.chats)
        await asyncio.sleep(1.0)  # two open periods, in which nothing but their trials may come
        on_the_way = len(carrying) * 2
        assert len(server.chats) <= failed_from + 5 + on_the_way + 4
        down = False
        courses = await asyncio.gather(*carrying)
    for course in courses:
        assert course.board.status is Status.COMPLETED
        assert course.bodies(Kind.HANDOFF) == []
        assert course.bodies(Kind.MEDIATION_STARTED) == []
        assert not any(agent.faults for agent in course.board.agents.values())


async def test_an_endpoint_down_to_the_end_of_the_round_is_its_error_and_the_stuck_clock_stands_still(
    driver_of: MakeDriver,
) -> None:
    down = False

    def plan(seen: Seen) -> Step:
        return Answers(code=503) if down and seen.path == "/chat/completions" else Ok()

    async with serving(rehearse, plan=plan, latency=0.05) as server:
        driver = await driver_of(
            server, key="unused", breaker_seconds=0.5, stuck_threshold=0.8, orchestration_timeout=2.5
        )
        carrying = asyncio.create_task(driver.carry(await driver.spawn()))
        await until(lambda: len(server.chats) >= 3)
        down = True
        course = await carrying
        assert course.board.status is Status.ORCHESTRATION_ERROR
        assert course.bodies(Kind.MEDIATION_STARTED) == []
        down = False
        again = await driver.carry_on(course.pipeline_id, timeout=20.0)
    assert again.board.status is Status.COMPLETED
    assert again.bodies(Kind.HANDOFF) == []


async def test_a_trial_that_breaks_off_leaves_nothing_in_the_next_answer_and_is_charged(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = [Drop(after=3)] * 4  # the first one or two open the breaker, the others are its trials
    driver = await driver_of(rehearsed, breaker_failures=1)
    course = await driver.run()
    assert course.board.status is Status.COMPLETED
    ended = course.bodies(Kind.TURN_ENDED)
    assert not any(body["repaired"] or body["error"] for body in ended)
    assert course.calls == len(rehearsed.chats)
    assert sum(body["settled"]["tokens"] // 4_096 for body in ended) == 4, "each at its turn's whole reservation"


async def test_an_agent_that_only_waited_for_a_refusing_endpoint_is_charged_nothing(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = lambda seen: Answers(code=503) if seen.path == "/chat/completions" else Ok()
    driver = await driver_of(rehearsed, agent_timeout=0.5, breaker_seconds=30.0)
    course = await driver.run()
    assert course.board.status is Status.FAILED
    assert course.calls == len(rehearsed.chats)
    assert course.board.spending_in_all().spent == NOTHING
