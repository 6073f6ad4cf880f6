"""Every entry is told as exactly one event, in the documented shape, whatever became of the pipeline."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from tests.driving import Course, MakeDriver
from tests.test_pipeline_faults import NO_JSON, negotiating, when
from trilogue.agent import Role
from trilogue.board import Board, apply
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.events import DATA, Event, delta_event, event_of
from trilogue.live import Delta
from trilogue.pipeline import Status
from trilogue.spec import checked_round
from trilogue.testing.openrouter import OpenRouterServer

ADAPTERS = {
    type_: TypeAdapter(with_config(ConfigDict(extra="forbid", strict=False))(shape)) for type_, shape in DATA.items()
}


def told(course: Course) -> list[Event]:
    board, events = Board(), []
    for entry in course.entries:
        apply(board, entry)
        events.append(event_of(board, entry))
    return events


def checked(events: Sequence[Event]) -> set[str]:
    """Check each event's shape; which types there were."""
    for event in events:
        assert set(event) == {"type", "pipeline_id", "seq", "at", "data"}
        assert event["data"]["pipeline_id"] == event["pipeline_id"]
        ADAPTERS[event["type"]].validate_python(event["data"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return {event["type"] for event in events}


def one(events: Sequence[Event], type_: str) -> dict[str, Any]:
    return next(dict(event["data"]) for event in events if event["type"] == type_)


def in_order(events: Sequence[Event], *wanted: str) -> bool:
    """Whether the types come in this order, with others between them."""
    rest = iter(event["type"] for event in events)
    return all(type_ in rest for type_ in wanted)


async def test_a_pipeline_is_told_from_its_spawn_to_its_consensus_and_end(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    context = [{"name": "design.md", "text": "# Orders"}]
    events = told(await (await driver_of(rehearsed)).run(context=context))
    checked(events)
    assert in_order(
        events,
        "pipeline_status",
        "context",
        "agent_spawned",
        "agent_spawned",
        "pipeline_status",
        "turn_begun",
        "finding",
        "turn_ended",
        "report",
        "orchestration_started",
        "proposal",
        "vote",
        "consensus_reached",
        "pipeline_status",
        "orchestration_complete",
    )
    assert events[-1]["type"] == "orchestration_complete"
    assert sum(event["type"] == "orchestration_complete" for event in events) == 1
    assert one(events, "pipeline_status")["objective"] == "Design a caching strategy"
    assert one(events, "context") == {
        "pipeline_id": events[0]["pipeline_id"],
        "name": "design.md",
        "characters": 8,
        "sha256": one(events, "context")["sha256"],
    }
    started, consensus = one(events, "orchestration_started"), one(events, "consensus_reached")
    assert [agent["role"] for agent in started["agents"]] == ["ALPHA", "BETA"]
    assert started["model"] == "test/one"
    assert {vote["verdict"] for vote in consensus["votes"]} == {"approve"}
    assert consensus["proposal_id"] == one(events, "proposal")["proposal_id"]
    end = one(events, "orchestration_complete")
    assert (end["status"], end["round"], end["error"]) == ("COMPLETED", 1, None)
    assert end["results"]["consensus"]["title"] == consensus["title"]


@pytest.mark.parametrize(
    ("model", "types"),
    [
        ("rehearsal/conflict", {"gamma_spawned", "mediation_started", "ruling", "mediation_ended"}),
        ("rehearsal/complex", {"gamma_spawned", "subtask", "solution"}),
        ("rehearsal/stuck", {"gamma_spawned", "agent_message"}),
    ],
)
async def test_a_mediation_is_told(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, model: str, types: set[str]
) -> None:
    events = told(await (await driver_of(rehearsed, stuck_threshold=0.2)).run(model=model))
    assert types <= checked(events)
    assert one(events, "gamma_spawned")["reason"] in {"CONFLICT", "COMPLEXITY", "STUCK"}
    if "agent_message" in types:
        message = one(events, "agent_message")
        assert message["from"] in {"ALPHA", "BETA", "GAMMA"}


async def test_what_goes_wrong_is_told_and_every_round_has_its_end(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(negotiating(Role.ALPHA), NO_JSON)
    driver = await driver_of(rehearsed, orchestration_timeout=1.0)
    held = await driver.run(errors="8/2/1", auto_continue=False, max_tokens=200_000)
    assert one(told(held), "report")["continuation"]["auto"] is False
    course = await driver.carry_on(held.pipeline_id, guidance="We run on one machine")
    events = told(course)
    assert {"guidance", "failure", "handoff", "agent_status"} <= checked(events)
    assert events[-1]["type"] == "orchestration_complete"
    failed = next(event["data"] for event in events if event["type"] == "turn_ended" and event["data"]["error"])
    assert set(failed["error"]) == {"code", "message"}


async def test_a_stop_a_resumption_and_a_way_back_are_told(rehearsed: OpenRouterServer, driver_of: MakeDriver) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(auto_continue=False)
    await local(driver.services).stop(course.pipeline_id, "wrong objective")
    await local(driver.services).resume(course.pipeline_id, checked_round(reason="it was right"))
    report = next(body for body in course.bodies(Kind.CHECKPOINT) if body["name"] == "report")
    await local(driver.services).rewind(course.pipeline_id, report["to_seq"], "report", "once more")
    events = told(await driver.course(course.pipeline_id))
    assert {"stopped", "resumed"} <= checked(events)
    assert in_order(events, "report", "checkpoint", "stopped", "orchestration_complete", "resumed", "pipeline_status")
    assert one(events, "orchestration_complete")["status"] == Status.STOPPED
    assert one(events, "resumed")["from"] == "STOPPED"
    assert (events[-1]["data"]["status"], events[-1]["data"]["checkpoint"]) == ("REPORT", "report")


def test_streamed_text_is_told_with_its_place_and_is_not_recorded() -> None:
    event = delta_event(Board(), "p-1", Delta(turn=3, agent_id="alpha-1", offset=5, text="hé"), 0)
    ADAPTERS["turn_delta"].validate_python(event["data"])
    assert (event["type"], event["seq"]) == ("turn_delta", None)
    assert (event["data"]["turn"], event["data"]["offset"], event["data"]["text"]) == (3, 5, "hé")


def test_every_type_is_documented() -> None:
    assert all((shape.__doc__ or "").strip() for shape in DATA.values())
