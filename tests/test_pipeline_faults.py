"""A model endpoint that misbehaves: what passes is waited out, what lasts ends the pipeline with its reason."""

import json
import math
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.driving import Course, MakeDriver, asked, shown
from tests.fixtures.book import until
from trilogue.agent import AgentStatus, Role
from trilogue.entry import Kind
from trilogue.ledger.chain import verify
from trilogue.ledger.opening import TENANT
from trilogue.models.question import nanousd
from trilogue.models.rehearsal import rehearse
from trilogue.pipeline import Phase, Status
from trilogue.testing.openrouter import USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN, OpenRouterServer
from trilogue.testing.plans import Drop, ErrorInBody, ErrorInStream, Hang, Ok, Plan, Seen, Step
from trilogue.testing.plans import Status as Answers

NO_JSON = Ok(text="Certainly! Here is what I think, in plain words.")
DECOMPOSES = Ok(
    text=json.dumps(
        {
            "actions": [
                {
                    "action": "decompose",
                    "subtasks": [{"title": "a", "text": "b", "assignee": "ALPHA"}] * 2,
                }
            ]
        }
    )
)


def when(condition: Callable[[Seen], bool], step: Step) -> Plan:
    """`step` for the chat requests that meet the condition, an answer for all others."""
    return lambda seen: step if seen.path == "/chat/completions" and condition(seen) else Ok()


def negotiating(role: Role) -> Callable[[Seen], bool]:
    return lambda seen: asked(seen, role, Phase.ORCHESTRATE)


async def test_an_endpoint_that_stumbles_in_every_way_still_gets_an_agreement(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str
) -> None:
    faults: list[Step] = [
        Answers(code=429, headers={"retry-after": "0.2"}),
        Answers(code=502),
        Drop(),
        Drop(after=2),
        ErrorInBody(code=502),
        ErrorInStream(code=502),
    ]
    rehearsed.plan = [step for fault in faults for step in (fault, Ok())]  # each seen once, whoever meets it
    course = await (await driver_of(rehearsed, ledger_url=ledger_url)).run()

    assert course.board.status is Status.COMPLETED
    assert course.board.consensus is not None
    assert course.board.consensus["decided_by"] == "vote"
    assert set(course.outcomes()) == {"acted"}
    assert course.calls == len(rehearsed.chats) == len(course.outcomes()) + len(faults)
    assert not course.board.errors_of
    assert verify(course.entries) is None
    waited = rehearsed.chats[0]
    again = next(s for s in rehearsed.chats[1:] if s.body["messages"] == waited.body["messages"])
    assert again.began - waited.began >= 0.2


async def test_tokens_and_cost_in_the_ledger_are_what_the_server_counted(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    said: list[tuple[int, int]] = []

    def brain(body: Mapping[str, Any]) -> str:
        text = rehearse(body)
        said.append((math.ceil(len(json.dumps(body["messages"])) / 4), math.ceil(len(text) / 4)))
        return text

    rehearsed.brain = brain
    driver = await driver_of(rehearsed)
    course = await driver.run()
    usage = await driver.services.ledger.usage(TENANT, course.pipeline_id)
    assert sum(row.input_tokens or 0 for row in usage) == sum(given for given, _ in said)
    assert sum(row.output_tokens or 0 for row in usage) == sum(made for _, made in said)
    charged = [round(given * USD_PER_INPUT_TOKEN + made * USD_PER_OUTPUT_TOKEN, 9) for given, made in said]
    assert sum(row.cost_nanousd or 0 for row in usage) == sum(nanousd(cost) or 0 for cost in charged) > 0


async def test_a_malformed_answer_that_its_repair_mends_counts_nothing(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda seen: len(seen.body["messages"]) == 2, NO_JSON)
    course = await (await driver_of(rehearsed)).run()
    assert course.board.status is Status.COMPLETED
    assert course.calls == len(rehearsed.chats) == 2 * len(course.outcomes())
    assert all(body["repaired"] for body in course.bodies(Kind.TURN_ENDED))
    assert not course.board.errors_of
    assert all(not agent.faults for agent in course.board.agents.values())


@pytest.mark.parametrize(
    ("step", "calls", "code"),
    [(NO_JSON, 4, "malformed_answer"), (DECOMPOSES, 1, "procedure_violation")],
    ids=["malformed twice", "a forbidden action"],
)
async def test_an_agent_that_is_out_hands_over_and_its_partner_ends_it_uncontested(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, step: Step, calls: int, code: str
) -> None:
    rehearsed.plan = when(negotiating(Role.BETA), step)
    course = await (await driver_of(rehearsed)).run()
    board = course.board

    assert board.status is Status.COMPLETED
    assert board.consensus is not None
    assert (board.consensus["uncontested"], board.consensus["decided_by"]) == (True, "alpha-1 alone")
    assert board.agents["beta-1"].status is AgentStatus.REVOKED
    assert sum(asked(seen, Role.BETA, Phase.ORCHESTRATE) for seen in rehearsed.chats) == calls
    assert [(f["agent_id"], f["code"]) for f in board.failures] == [("beta-1", code)]
    (handoff,) = board.handoffs
    assert (handoff["agent_id"], handoff["to"]) == ("beta-1", "alpha-1")
    assert handoff["done"]["findings"] == [f.id for f in board.findings.values() if f.author == "beta-1"] != []
    assert not board.subtasks
    assert shown(rehearsed.chats[-1])["handoffs"][0]["role"] == "BETA"
    assert len(course.bodies(Kind.VIOLATION)) == (1 if code == "procedure_violation" else 0)


@pytest.mark.parametrize("phase", [Phase.RUN, Phase.ORCHESTRATE])
async def test_without_any_agent_left_the_pipeline_fails_and_keeps_the_details(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, phase: Phase
) -> None:
    rehearsed.plan = when(lambda seen: shown(seen)["phase"] == phase, NO_JSON)
    driver = await driver_of(rehearsed)
    course = await driver.run()
    board = course.board

    assert board.status is Status.FAILED
    assert board.error is not None
    assert board.error["code"] == "no_agent_left"
    assert board.consensus is None
    assert {agent.status for agent in board.agents.values()} == {AgentStatus.REVOKED}
    (checkpoint,) = [b for b in course.bodies(Kind.CHECKPOINT) if b["name"] == "failed"]
    assert checkpoint["phase"] == phase
    assert [len(agent["faults"]) for agent in course.details["agents"]] == [2, 2]
    assert {failure["code"] for failure in course.details["failures"]} >= {"malformed_answer"}
    kept = (await driver.services.ledger.checkpoints(TENANT, course.pipeline_id))[-1]
    assert kept.details == course.details


async def test_an_endpoint_that_is_away_at_the_start_fails_at_once_and_leaves_nothing_half_written(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, ledger_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    driver = await driver_of(rehearsed, ledger_url=ledger_url, model_url=f"http://127.0.0.1:{port}/api/v1")
    began = time.monotonic()
    course = await driver.run()
    assert time.monotonic() - began < 3
    assert course.board.status is Status.FAILED
    assert course.board.error is not None
    assert course.board.error["code"] == "endpoint_unreachable"
    assert f"127.0.0.1:{port}" in course.board.error["message"]
    assert [e.kind for e in course.entries] == [Kind.PIPELINE_SPAWNED, Kind.FAILURE, Kind.STATUS, Kind.CHECKPOINT]
    row = await driver.services.ledger.get_pipeline(TENANT, course.pipeline_id)
    assert (row.status, row.lease_owner, row.head_seq) == (Status.FAILED, None, 4)


async def test_an_endpoint_that_goes_in_the_middle_of_run_fails_the_pipeline_and_counts_to_agents_once_a_turn(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda _: True, Drop(after=1))
    course = await (await driver_of(rehearsed, agent_timeout=1.0, call_tries=2)).run()
    assert course.board.status is Status.FAILED
    assert course.board.error is not None
    assert course.board.error["code"] == "endpoint_unavailable"
    assert "127.0.0.1" in course.board.error["message"]
    assert {agent.status for agent in course.board.agents.values()} == {AgentStatus.TIMED_OUT}
    assert set(course.outcomes()) <= {"endpoint", "cancelled"}
    told = [body for body in course.bodies(Kind.TURN_ENDED) if body["outcome"] == "endpoint"]
    assert told
    assert course.calls == len(rehearsed.chats), "an open breaker's trials are nobody's tries, but calls all the same"
    assert all(body["cost_nanousd"] is None for body in told if body["calls"])  # unknown, never zero
    assert all(body["usage"] is None or body["usage"]["estimated"] for body in told)
    assert not any(agent.faults for agent in course.board.agents.values())


async def test_an_endpoint_that_goes_in_orchestrate_is_an_error_that_continue_takes_up_with_guidance(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda seen: shown(seen)["phase"] == "ORCHESTRATE", Answers(code=503))
    driver = await driver_of(rehearsed, orchestration_timeout=1.0, call_tries=2)
    course = await driver.run()
    assert course.board.status is Status.ORCHESTRATION_ERROR
    assert course.board.error is not None
    assert course.board.error["code"] == "endpoint_unavailable"
    assert "503" in course.board.error["message"]
    assert len(course.board.findings) == 4

    rehearsed.plan = ()
    before = len(rehearsed.chats)
    guided = await driver.carry_on(course.pipeline_id, guidance="Cheap before fast.", timeout=20.0)
    assert guided.board.status is Status.COMPLETED
    assert guided.board.error is None
    assert guided.board.round is not None
    assert guided.board.round.number == 2
    later = [shown(seen) for seen in rehearsed.chats[before:]]
    assert {situation["you"] for situation in later} == {"ALPHA", "BETA"}
    assert all(situation["guidance"] == ["Cheap before fast."] for situation in later)
    assert all(len(situation["findings"]) == 4 for situation in later)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    code: str
    chats: int
    key: str | None = None
    limit_remaining: float | None = None
    plan: Plan = ()
    models: tuple[str, ...] = ()


REFUSALS = {
    "a wrong key": Refusal(code="key_refused", chats=0, key="sk-or-v1-wrong"),
    "nothing left": Refusal(code="credit_spent", chats=0, limit_remaining=0.0),
    "401 at the call": Refusal(code="model_refused", chats=2, plan=when(lambda _: True, Answers(code=401))),
    "402 at the call": Refusal(code="model_refused", chats=2, plan=when(lambda _: True, Answers(code=402))),
    "an unknown model": Refusal(code="model_refused", chats=2, models=("test/other",)),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_trying_again_cannot_help_fails_at_once(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, name: str
) -> None:
    refusal = REFUSALS[name]
    rehearsed.plan, rehearsed.limit_remaining, rehearsed.models = refusal.plan, refusal.limit_remaining, refusal.models
    driver = await driver_of(rehearsed, **({"key": refusal.key} if refusal.key else {}))
    began = time.monotonic()
    course = await driver.run()
    assert time.monotonic() - began < 3
    assert course.board.status is Status.FAILED
    assert course.board.error is not None
    assert course.board.error["code"] == refusal.code
    assert rehearsed.url in course.board.error["message"]
    # A mute "bad request" to a model is asked once more without the schema; nothing else is asked twice.
    structured = [seen for seen in rehearsed.chats if seen.structure == "json_schema"]
    assert len(structured) == refusal.chats
    assert "sk-or" not in repr(course.entries)


async def test_a_slow_model_ends_in_timeout_on_time_with_the_board_kept_and_can_be_continued(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(negotiating(Role.BETA), Hang())
    driver = await driver_of(rehearsed)
    course = await driver.run(timeout=1.5)
    board = course.board
    assert board.status is Status.TIMEOUT
    assert board.error is not None
    assert board.error["code"] == "orchestration_timeout"
    began, ended = (next(s for s in board.phases if s.phase is Phase.ORCHESTRATE).started_at, board.at)
    assert 1.5 <= (ended - began) / 1e6 < 3.5
    assert len(board.findings) == 4
    assert board.proposals
    assert not board.open_turns
    assert course.outcomes("beta-1") == ["acted", "cancelled"]
    await until(lambda: all(seen.ended for seen in rehearsed.chats), seconds=2)
    assert sum(seen.gone for seen in rehearsed.chats) == 1

    rehearsed.plan = ()
    again = await driver.carry_on(course.pipeline_id, timeout=20.0)
    assert again.board.status is Status.COMPLETED
    assert again.board.proposals.keys() >= board.proposals.keys()


async def test_an_agent_whose_time_in_run_is_up_does_not_stop_its_partner(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda seen: asked(seen, Role.BETA, Phase.RUN), Hang())
    course = await (await driver_of(rehearsed)).run(agent_timeout=1.0)
    statuses = [(b["agent_id"], b["status"]) for b in course.bodies(Kind.AGENT_STATUS)]
    assert statuses[:2] == [("alpha-1", "COMPLETED"), ("beta-1", "TIMED_OUT")]
    assert {finding.author for finding in course.board.findings.values()} == {"alpha-1"}
    assert course.board.status is Status.COMPLETED
    assert course.board.consensus is not None
    assert [vote["verdict"] for vote in course.board.consensus["votes"]] == ["approve", "approve"]


async def test_models_by_role_and_fallbacks_reach_the_server_and_the_one_that_answered_is_recorded(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(lambda seen: seen.model == "test/beta", Ok(model="test/spare"))
    driver = await driver_of(rehearsed, fallback_models="test/spare, test/last")
    course = await driver.run(models={"BETA": "test/beta"})
    assert course.board.status is Status.COMPLETED
    by_role = {(shown(seen)["you"], tuple(seen.body["models"])) for seen in rehearsed.chats}
    assert by_role == {
        ("ALPHA", ("test/one", "test/spare", "test/last")),
        ("BETA", ("test/beta", "test/spare", "test/last")),
    }
    answered = {(body["agent_id"], body["model"]) for body in course.bodies(Kind.TURN_ENDED)}
    assert answered == {("alpha-1", "test/one"), ("beta-1", "test/spare")}


async def test_an_interrupted_call_costs_something_that_nobody_knows(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(negotiating(Role.BETA), Hang())
    driver = await driver_of(rehearsed)
    course: Course = await driver.run(timeout=0.7)
    cancelled = [body for body in course.bodies(Kind.TURN_ENDED) if body["outcome"] == "cancelled"]
    (body,) = [body for body in cancelled if body["agent_id"] == "beta-1"]
    assert (body["calls"], body["usage"], body["cost_nanousd"]) == (1, None, None)
    usage = {row.agent_id: row for row in await driver.services.ledger.usage(TENANT, course.pipeline_id)}
    assert usage["beta-1"].cost_nanousd is None
    assert usage["beta-1"].input_tokens  # what the finished turn took is known all the same
