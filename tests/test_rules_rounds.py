"""Each way in which a round can end, and what costs an agent its place in it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.rooms import (
    FINDING,
    PASS,
    WORD,
    MemoryRoom,
    Spoken,
    bodies,
    carry,
    in_virtual_time,
    played,
    propose,
    rules,
    say,
    scripted,
    solve,
    vote,
)
from trilogue import interventions, phases
from trilogue.agent import AgentStatus, ErrorBudget, Role
from trilogue.board import Agent
from trilogue.entry import Kind
from trilogue.errors import Denied, EndpointFault
from trilogue.governance.errorbudget import breach, fingerprint
from trilogue.pipeline import Phase, Status
from trilogue.spec import RoundSpec

FAULT = EndpointFault("http://127.0.0.1:1/v1 answered 503: 'overloaded'")
FORBIDDEN = {"action": "rule", "outcome": "choose", "proposal": "p1", "reason": "I say so"}
RULING = {
    "action": "rule",
    "outcome": "choose",
    "proposal": "p2",
    "reason": "it is the shortest",
    "title": "",
    "text": "",
}
RIVALS = {
    "ALPHA": [say(propose("one"), propose("two")), say(vote("p3", "reject"))],
    "BETA": [say(propose("three"), after=0.2), say(vote("p1", "reject"), vote("p2", "reject"))],
}


def error_of(room: MemoryRoom) -> str:
    assert room.board.error is not None
    return str(room.board.error["code"])


def consensus_of(room: MemoryRoom) -> dict[str, Any]:
    assert room.board.consensus is not None
    return dict(room.board.consensus)


def test_a_ruling_binds_and_keeps_who_disagreed() -> None:
    room = played(scripted({**RIVALS, "GAMMA": [say(RULING)]}))
    consensus = consensus_of(room)
    assert room.board.status is Status.COMPLETED
    assert (consensus["proposal_id"], consensus["text"]) == ("p2", "two")
    assert consensus["decided_by"].startswith("ruling of gamma-1")
    assert [item["voter"] for item in consensus["dissent"]] == ["beta-1"]


def test_a_ruling_holds_for_the_text_that_the_mediator_saw() -> None:
    lines = {**RIVALS, "ALPHA": [*RIVALS["ALPHA"], say({**propose("late"), "action": "revise", "proposal": "p2"})]}
    late = {"action": "message", "to": "ALPHA", "content": "wait"}
    beta = [*RIVALS["BETA"], say(late, after=0.5)]
    room = played(scripted({**lines, "BETA": beta, "GAMMA": [say(RULING, after=20)]}))
    assert room.board.proposals["p2"].latest.text == "late"
    assert (consensus_of(room)["text"], consensus_of(room)["revision"]) == ("two", 1)


def test_a_lone_agent_solves_and_its_answer_is_uncontested() -> None:
    room = played(scripted({"BETA": [say(FORBIDDEN)], "ALPHA": [say(WORD), say(solve("my own answer"))]}))
    consensus = consensus_of(room)
    assert room.board.status is Status.COMPLETED
    assert (consensus["uncontested"], consensus["text"], consensus["decided_by"]) == (
        True,
        "my own answer",
        "alpha-1 alone",
    )
    (handoff,) = room.board.handoffs
    assert (handoff["agent_id"], handoff["to"], handoff["role"]) == ("beta-1", "alpha-1", "BETA")
    assert room.board.failures[0]["agent_id"] == "beta-1"


def test_a_partner_revoked_in_run_leaves_the_other_to_go_on_alone_until_a_person_continues() -> None:
    lines = {"run-BETA": [say(FORBIDDEN)], "ALPHA": [say(solve("alone"))]}
    room = played(scripted(lines))
    assert consensus_of(room)["uncontested"]
    assert list(room.board.agents) == ["alpha-1", "beta-1"]
    held = played(scripted(lines), auto_continue=False)
    assert held.board.status is Status.REPORT
    continued = go_on(held, scripted({"ALPHA": [say(propose("one"))], "BETA": [say(PASS), say(vote("p1"))]}))
    assert consensus_of(continued)["votes"][-1]["voter"] == "beta-2"


def test_a_lone_agent_that_never_solves_is_no_deadlock() -> None:
    room = played(scripted({"BETA": [say(FORBIDDEN)]}))
    assert (room.board.status, error_of(room)) == (Status.ORCHESTRATION_FAILED, "no_agreement")
    assert [mediation.trigger for mediation in room.board.mediations] == ["STUCK"]


def test_without_any_agent_left_the_pipeline_fails_with_a_checkpoint_of_the_details() -> None:
    room = played(scripted({"ALPHA": [say(FORBIDDEN)], "BETA": [say(FORBIDDEN, after=1)]}))
    assert (room.board.status, error_of(room)) == (Status.FAILED, "no_agent_left")
    details = bodies(room, Kind.CHECKPOINT)[-1]["details"]
    assert [agent["status"] for agent in details["agents"]] == ["REVOKED", "REVOKED"]
    assert len(details["failures"]) == 2


def test_turns_are_used_up_at_the_limit() -> None:
    room = played(scripted({}, then=say(WORD)), limits=rules(turn_limit=4))
    assert (room.board.status, error_of(room)) == (Status.ORCHESTRATION_FAILED, "turns_used_up")
    assert [agent.turns for agent in room.board.voters()] == [4, 4]


def test_when_all_wait_and_the_mediator_was_heard_the_round_ends() -> None:
    room = played(scripted({}))
    assert (room.board.status, error_of(room)) == (Status.ORCHESTRATION_FAILED, "no_agreement")
    (mediation,) = room.board.mediations
    assert (mediation.trigger, mediation.evidence["all_waiting"]) == ("STUCK", True)


def test_at_the_deadline_running_turns_are_cancelled_and_the_board_is_kept() -> None:
    room = played(scripted({"ALPHA": [say(propose("one"))], "BETA": [say(PASS, after=500)]}), timeout=10)
    assert (room.board.status, error_of(room)) == (Status.TIMEOUT, "orchestration_timeout")
    assert "cancelled" in [body["outcome"] for body in bodies(room, Kind.TURN_ENDED)]
    assert room.board.proposals["p1"].latest.text == "one"
    assert not room.board.open_turns
    assert room.board.round is not None
    assert room.board.at - room.board.round.started_at < 11_000_000


def test_an_agreement_pending_at_the_deadline_is_an_agreement() -> None:
    lines = {
        "ALPHA": [say(propose("one")), say(PASS, after=500)],
        "BETA": [say(WORD, after=0.2), say(vote("p1"), after=2)],
    }
    room = played(scripted(lines), timeout=10)
    assert consensus_of(room)["proposal_id"] == "p1"


def test_an_endpoint_that_stays_unusable_is_an_error_of_the_round_and_revokes_nobody() -> None:
    room = played(scripted({}, then=say(FAULT)), timeout=60)
    assert (room.board.status, error_of(room)) == (Status.ORCHESTRATION_ERROR, "endpoint_unavailable")
    assert len(bodies(room, Kind.TURN_BEGUN)) > 10
    assert {agent.status for agent in room.board.voters()} == {AgentStatus.COMPLETED}
    assert all(not agent.faults and not agent.turns for agent in room.board.voters())


def test_an_endpoint_that_comes_back_costs_nobody_anything() -> None:
    away = [say(FAULT)] * 9
    room = played(scripted({"ALPHA": [*away, say(propose("one"))], "BETA": [*away, say(PASS), say(vote("p1"))]}))
    assert consensus_of(room)["decided_by"] == "vote"


def test_an_endpoint_that_cannot_be_used_in_run_fails_the_pipeline() -> None:
    away = [say(FAULT)] * 1000
    room = played(scripted({"run-ALPHA": away, "run-BETA": away}), limits=rules(agent_timeout=20))
    assert (room.board.status, error_of(room)) == (Status.FAILED, "endpoint_unavailable")
    assert {agent.status for agent in room.board.agents.values()} == {AgentStatus.TIMED_OUT}


def test_a_model_that_is_refused_for_good_ends_the_round_as_an_error() -> None:
    refusal = Denied("https://openrouter.ai/api/v1 answered 401", code="key_refused")
    room = played(scripted({"BETA": [say(refusal)]}))
    assert (room.board.status, error_of(room)) == (Status.ORCHESTRATION_ERROR, "model_refused")
    assert not any(agent.revoked for agent in room.board.agents.values())


def test_a_mediator_whose_model_is_refused_or_who_breaks_the_rules_is_no_loss_to_the_round() -> None:
    for said in (
        Denied("no such model"),
        {"action": "vote", "proposal": "p1", "verdict": "approve"},
        {"action": "dance"},
    ):
        room = played(
            scripted({**RIVALS, "GAMMA": [say(said)] * 2, "BETA": [*RIVALS["BETA"], say(PASS), say(vote("p1"))]})
        )
        first = room.board.mediations[0]
        assert (first.trigger, str(first.outcome)[:7]) == ("CONFLICT", "failed:")
        assert room.board.status in {Status.COMPLETED, Status.ORCHESTRATION_FAILED}
        assert not room.board.consensus or not room.board.consensus["uncontested"]


@pytest.mark.parametrize(
    ("mistakes", "revoked"),
    [
        ([{"action": "dance"}, {"action": "sing"}], True),  # of one kind, whatever word it used
        ([{"action": "dance"}, {"actions": []}], False),
        ([{"action": "dance"}, {"actions": []}, "x", {"action": "find"}, vote("p9")], False),
        ([FORBIDDEN], True),
    ],
)
def test_an_error_budget_revokes_at_two_of_a_kind_or_one_violation(mistakes: list[Any], revoked: bool) -> None:
    said = [Spoken(says=mistake) for mistake in mistakes]
    room = played(scripted({"BETA": said, "ALPHA": [say(propose("one"))]}))
    beta = room.board.agents["beta-1"]
    assert beta.revoked is revoked
    assert len(beta.faults) == len(mistakes)


def test_eight_errors_of_any_kind_are_too_many_and_seven_are_not() -> None:
    kinds = tuple(fingerprint("malformed_answer", f"mistake {'x' * n}") for n in range(8))
    agent = Agent(agent_id="a", role=Role.ALPHA, tier=1, model="m", runtime="python")
    assert breach(replace(agent, faults=kinds[:7]), ErrorBudget()) is None
    assert breach(replace(agent, faults=kinds), ErrorBudget()) == "8 errors"
    assert breach(replace(agent, faults=kinds[:6], outages=1), ErrorBudget()) is None
    assert breach(replace(agent, faults=kinds[:6], outages=2), ErrorBudget()) == "8 errors"
    assert breach(replace(agent, outages=7), ErrorBudget()) is None
    assert breach(replace(agent, violations=1), ErrorBudget()) == "a procedure violation"
    assert breach(replace(agent, violations=1), ErrorBudget(violations=2)) is None
    assert breach(replace(agent, faults=kinds[:1] * 2), ErrorBudget(alike=3)) is None


def test_errors_that_differ_in_values_only_are_of_one_kind() -> None:
    assert fingerprint("malformed_answer", "names 'p7'; 3 of 5") == fingerprint(
        "malformed_answer", "names 'p12'; 9 of 10"
    )
    assert fingerprint("malformed_answer", "names 'a;b'; it may name: p1") == fingerprint(
        "malformed_answer", "names 'c'; it may name: p1, p2, p3"
    )
    assert fingerprint("malformed_answer", "x") != fingerprint("other", "x")


def go_on(room: MemoryRoom, model: Any, **asked: Any) -> MemoryRoom:
    """The room after a person continued the pipeline and it was carried to its end."""

    async def play() -> MemoryRoom:
        next_room = MemoryRoom(model, entries=room.entries, attempt=room.attempt + 1, rules=room.rules)
        models = {role: str(room.board.spec["model"]) for role in Role}
        await next_room.append(
            lambda board: interventions.round_begun(
                board, next_room.now(), models, asked=RoundSpec(**asked), mode="local", rehearsal=False, timeout=60
            )
        )
        await carry(next_room)
        return next_room

    return in_virtual_time(play())


def test_each_continue_is_a_round_in_which_everything_but_the_board_begins_anew() -> None:
    first = played(scripted({"BETA": [say(FORBIDDEN)], "ALPHA": [say(propose("one"))], "run-ALPHA": [say(FINDING)]}))
    assert error_of(first) == "no_agreement"
    second = go_on(first, scripted({"ALPHA": [say(PASS), say(vote("p1", "reject"))]}), guidance="mind the cost")
    assert second.board.round is not None
    assert second.board.round.number == 2
    assert second.board.guidance == ("mind the cost",)
    assert list(second.board.agents)[:4] == ["alpha-1", "beta-1", "gamma-1", "beta-2"]
    assert [m.trigger for m in second.board.round_mediations()] == ["STUCK"]
    assert not second.board.agents["beta-2"].faults
    third = go_on(second, scripted({"ALPHA": [say(PASS)], "BETA": [say(vote("p1"))]}))
    assert consensus_of(third)["proposal_id"] == "p1"
    assert [span.phase for span in third.board.phases].count(Phase.ORCHESTRATE) == 3


def test_a_mediation_left_open_by_an_earlier_round_is_none_of_the_next() -> None:
    whole = played(scripted({}, then=say(WORD)), limits=rules(turn_limit=3, stuck=0.2))
    opened = next(i for i, entry in enumerate(whole.entries) if entry.kind is Kind.MEDIATION_STARTED)

    async def broken_off() -> MemoryRoom:
        room = MemoryRoom(scripted({}), entries=whole.entries[: opened + 2], attempt=2, rules=rules())
        error = EndpointFault("gone")
        await room.append(lambda board: phases.failed(board, error))
        return room

    room = in_virtual_time(broken_off())
    assert room.board.mediations[-1].outcome is None
    continued = go_on(room, scripted({"ALPHA": [say(propose("one"))], "BETA": [say(PASS), say(vote("p1"))]}))
    assert continued.board.round_mediations() == ()
    assert {agent_id for agent_id, _, _ in continued.asked} == {"alpha-1", "beta-1"}
    assert consensus_of(continued)["proposal_id"] == "p1"
