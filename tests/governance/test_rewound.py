"""A pipeline can go on from any of its checkpoints: what came after is undone, what it cost stays."""

import asyncio
import json

import pytest
from redis.asyncio import Redis

from tests.driving import Course, Driver, MakeDriver
from tests.fixtures.book import until
from tests.test_pipeline_faults import negotiating, when
from trilogue.agent import Role
from trilogue.board import NOTHING, apply, fold
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.errors import Conflict, NotFound
from trilogue.ledger.chain import verify
from trilogue.ledger.opening import TENANT
from trilogue.live import keys
from trilogue.pipeline import Phase, Status
from trilogue.spec import RoundSpec
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Hang, Ok


async def timed_out(driver: Driver) -> Course:
    driver.server.plan = when(negotiating(Role.BETA), Hang())
    course = await driver.run(timeout=0.7)
    assert course.board.status is Status.TIMEOUT
    driver.server.plan = ()
    return course


def seq_of(course: Course, name: str) -> int:
    return next(int(body["to_seq"]) for body in course.bodies(Kind.CHECKPOINT) if body["name"] == name)


@pytest.mark.parametrize("name", ["spawned", "report", "timeout"])
async def test_a_pipeline_goes_on_from_a_checkpoint_and_what_it_cost_is_not_undone(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str, name: str
) -> None:
    driver = await driver_of(rehearsed, ledger_url=ledger_url)
    before = await timed_out(driver)
    at = await local(driver.services).rewind(before.pipeline_id, seq_of(before, name), name, "once more")
    former = fold(before.entries[: seq_of(before, name)])
    assert (at.status, at.phase, at.agents, at.proposals) == (
        former.status,
        former.phase,
        former.agents,
        former.proposals,
    )
    assert at.spending == before.board.spending
    row = await driver.services.ledger.get_pipeline(TENANT, before.pipeline_id)
    assert (row.status, row.phase) == (former.status, former.phase)
    agents = await driver.services.ledger.agents(TENANT, before.pipeline_id)
    assert {agent.agent_id: agent.status for agent in agents} == {a.agent_id: a.status for a in former.agents.values()}

    if name == "timeout":
        course = await driver.carry_on(before.pipeline_id, timeout=20.0)
    else:
        course = await driver.carry(before.pipeline_id)
        assert course.board.round is not None
        assert course.board.round.number == 1
    assert course.board.status in {Status.COMPLETED, Status.TIMEOUT}  # the spec's own round of 0.7 s may be over
    assert verify(course.entries) is None
    assert course.entries[: len(before.entries)] == before.entries
    assert course.board.spending_in_all().spent.tokens > before.board.spending_in_all().spent.tokens
    assert course.board.spending_in_all().reserved == NOTHING
    kept = await driver.services.ledger.budgets(TENANT, course.pipeline_id)
    (pipeline,) = [one for one in kept if one.pipeline_id and not one.agent_id]
    assert pipeline.tokens_spent == course.board.spending_in_all().spent.tokens
    turns = [body["turn"] for body in course.bodies(Kind.TURN_BEGUN)]
    assert turns == sorted(set(turns)), "no turn's number is given twice"
    for kind in (Kind.FINDING, Kind.PROPOSAL, Kind.MESSAGE, Kind.CRITIQUE):
        ids = [body["id"] for body in course.bodies(kind)]
        assert len(ids) == len(set(ids)), "no id is given twice, though what bore it was undone"


async def test_the_board_is_the_same_wherever_one_begins_to_fold(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed)
    before = await timed_out(driver)
    await local(driver.services).rewind(before.pipeline_id, seq_of(before, "report"), "report", "")
    await local(driver.services).rewind(before.pipeline_id, seq_of(before, "timeout"), "timeout", "forward again")
    course = await driver.carry_on(before.pipeline_id, timeout=20.0)
    assert course.board.status is Status.COMPLETED
    for cut in range(1, len(course.entries)):
        board = fold(course.entries[:cut])
        for entry in course.entries[cut:]:
            apply(board, entry)
        assert board == course.board


async def test_the_live_board_in_redis_forgets_what_was_undone(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, redis_url: str
) -> None:
    driver = await driver_of(rehearsed)
    before = await timed_out(driver)
    assert before.board.proposals
    place = keys.of_pipeline(TENANT, before.pipeline_id)
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        await until(lambda: _has(redis, place.proposals))
        at = await local(driver.services).rewind(before.pipeline_id, seq_of(before, "report"), "report", "")

        async def rewound() -> bool:
            state = await redis.hgetall(place.state)
            return bool(state.get("seq") == str(at.seq))

        await until(rewound)
        state = await redis.hgetall(place.state)
        assert json.loads(state["status"]) == "REPORT"
        assert not await redis.exists(place.proposals)
        course = await driver.carry_on(before.pipeline_id, timeout=20.0)
        assert course.board.status is Status.COMPLETED
        assert set(await redis.hgetall(place.proposals)) == set(course.board.proposals)


async def _has(redis: Redis, name: str) -> bool:
    return bool(await redis.exists(name))


async def test_what_cannot_be_rewound_says_so_and_changes_nothing(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run()
    with pytest.raises(Conflict, match="COMPLETED goes on from no checkpoint"):
        await local(driver.services).rewind(course.pipeline_id, seq_of(course, "report"), "report", "")
    with pytest.raises(NotFound, match="no pipeline"):
        await local(driver.services).rewind("p-nobody", 1, "report", "")
    out = await timed_out(driver)
    with pytest.raises(NotFound, match="no checkpoint at seq 3"):
        await local(driver.services).rewind(out.pipeline_id, 3, "x", "")
    async with driver.services.attempt(
        TENANT, (await timed_out_at_report(driver)).pipeline_id, flow_run_id=None
    ) as attempt:
        with pytest.raises(Conflict, match="being worked on"):
            await local(driver.services).rewind(attempt.fence.pipeline_id, 5, "spawned", "")
    assert (await driver.course(out.pipeline_id)).entries == out.entries
    held = await timed_out_at_report(driver)
    await local(driver.services).stop(held.pipeline_id, "enough")
    with pytest.raises(Conflict, match="only with a reason"):
        await local(driver.services).rewind(held.pipeline_id, seq_of(held, "report"), "report", " ")


async def timed_out_at_report(driver: Driver) -> Course:
    course = await driver.run(auto_continue=False)
    assert (course.board.status, course.board.phase) == (Status.REPORT, Phase.REPORT)
    return course


async def test_from_a_stop_that_was_rewound_to_the_time_left_at_the_stop_counts(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(negotiating(Role.BETA), Hang())
    driver = await driver_of(rehearsed)
    pipeline_id = await driver.spawn(timeout=2.0)
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: any(negotiating(Role.BETA)(seen) for seen in rehearsed.chats))
    await local(driver.services).stop(pipeline_id, "a look at it")
    with pytest.raises(Conflict):
        await carrying
    await asyncio.sleep(2.0)  # longer than the round may take: what passes while it stands still does not count
    rehearsed.plan = ()
    await local(driver.services).rewind(
        pipeline_id, seq_of(await driver.course(pipeline_id), "stopped"), "stopped", "on"
    )
    await local(driver.services).resume(pipeline_id, RoundSpec(reason="on"))
    assert (await driver.carry(pipeline_id)).board.status is Status.COMPLETED


async def test_a_role_cannot_spend_twice_what_a_replacement_spent_that_was_undone(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    useless = Ok(text="no JSON", usage={"prompt_tokens": 1_000, "completion_tokens": 500})
    rehearsed.plan = lambda seen: (
        Ok() if not negotiating(Role.ALPHA)(seen) else useless if len(rehearsed.chats) < 12 else Hang()
    )
    driver = await driver_of(rehearsed)
    before = await driver.run(replacements=3, timeout=1.5)
    assert before.board.status is Status.TIMEOUT
    gone = [agent_id for agent_id in before.board.agents if agent_id not in {"alpha-1", "beta-1", "gamma-1"}]
    assert gone
    rehearsed.plan = ()
    await local(driver.services).rewind(before.pipeline_id, seq_of(before, "report"), "report", "once more")
    course = await driver.carry(before.pipeline_id)
    assert course.board.status is Status.COMPLETED
    assert gone[0] not in course.board.agents
    spent = sum(course.board.spending_of(agent_id).spent.tokens for agent_id in gone)
    assert course.board.mandates["alpha-1"].tokens == 200_000 - spent < 200_000
