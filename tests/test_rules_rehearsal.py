"""The rehearsal plays its scenarios as named, the same for the same objective, and says on every text what it is."""

import asyncio
import json
from random import Random
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import MemoryRoom, carry, in_virtual_time, played, rehearsal, rules, spawn
from tests.test_rules_deliberation import check_whole
from tests.test_rules_rounds import go_on
from trilogue.models.rehearsal import SCENARIOS, RehearsalTransport
from trilogue.models.rehearsal.phrases import MARK
from trilogue.pipeline import Status

OUTCOMES = {
    "rehearsal": ([], "vote"),
    "rehearsal/conflict": (["CONFLICT"], "ruling of gamma-1"),
    "rehearsal/stuck": (["STUCK"], "vote"),
    "rehearsal/complex": (["COMPLEXITY"], "vote"),
    "rehearsal/faulty": ([], "vote"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
@settings(deadline=20_000, max_examples=20)
@given(seed=st.integers(0, 2**32), objective=st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=80))
def test_every_scenario_ends_as_named_whatever_takes_how_long(scenario: str, seed: int, objective: str) -> None:
    random = Random(seed)

    async def run() -> MemoryRoom:
        model = rehearsal(lambda: random.choice((0.0, 0.4, random.uniform(0, 4))))
        room = MemoryRoom(model, rules=rules(), commit_time=lambda: random.choice((0.0, 0.001, random.random() / 4)))
        await spawn(room, model=scenario, objective=f"Plan {objective}")
        await carry(room)
        return room

    room = in_virtual_time(run())
    check_whole(room)
    triggers, decided_by = OUTCOMES[scenario]
    board = room.board
    assert board.status is Status.COMPLETED
    assert board.consensus is not None
    assert [mediation.trigger for mediation in board.mediations] == triggers
    assert board.consensus["decided_by"].startswith(decided_by)
    assert bool(board.consensus["dissent"]) == (scenario == "rehearsal/conflict")
    assert board.open_subtasks() == ()
    assert {task.assignee for task in board.subtasks.values()} == (
        {"ALPHA", "BETA"} if scenario == "rehearsal/complex" else set()
    )
    assert not board.errors_of


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_objective_gives_the_same_words_and_another_gives_others(scenario: str) -> None:
    def words(objective: str) -> tuple[str, list[str]]:
        board = played(rehearsal(), model=scenario, objective=objective).board
        assert board.consensus is not None
        return board.consensus["text"], [finding.text for finding in board.findings.values()]

    assert words("Design a caching strategy") == words("Design a caching strategy")
    text, findings = words("Plan the move to a new office")
    assert text != words("Design a caching strategy")[0]
    assert findings != words("Design a caching strategy")[1]
    assert "new office" in text


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_text_says_that_no_language_model_was_used(scenario: str) -> None:
    board = played(rehearsal(), model=scenario).board
    texts = [f.text for f in board.findings.values()] + [s.text for s in board.solutions.values()]
    texts += [r.text for p in board.proposals.values() for r in p.revisions]
    texts += [m.content for m in board.messages] + [ruling.text for ruling in board.rulings]
    assert texts
    assert all(MARK in text for text in texts)
    assert board.report is not None
    assert "no language model was used" in board.report["markdown"]


def test_context_documents_are_named_in_the_findings_evidence() -> None:
    board = played(rehearsal(), model="rehearsal", context=[{"name": "load.md", "text": "9,000 a second"}]).board
    assert all("load.md" in finding.evidence for finding in board.findings.values())


def test_a_rehearsal_that_goes_on_after_an_agent_was_replaced_still_agrees() -> None:
    forbidden = [{"action": "decompose", "subtasks": []}]

    def breaks_a_rule(room: Any, agent: Any, turn: Any, prompt: str, offer: Any) -> Any:
        spoken = rehearsal()(room, agent, turn, prompt, offer)
        if agent.agent_id == "alpha-1" and room.board.proposals:
            return type(spoken)(says=forbidden, delay=0.1)
        if offer.actions == {"solve"}:
            return type(spoken)(says={"action": "pass"}, delay=0.1)
        return spoken

    first = played(breaks_a_rule, model="rehearsal")
    assert first.board.status is Status.ORCHESTRATION_FAILED
    assert first.board.agents["alpha-1"].revoked
    second = go_on(first, rehearsal())
    assert second.board.status is Status.COMPLETED
    assert second.board.consensus is not None
    assert second.board.consensus["decided_by"] == "vote"
    assert second.board.round_mediations() == ()


async def test_it_streams_in_pieces_refuses_unknown_scenarios_and_costs_nothing() -> None:
    async with httpx2.AsyncClient(transport=RehearsalTransport(0.01), base_url="http://rehearsal.invalid/v1") as client:
        asked: dict[str, Any] = {"model": "rehearsal", "messages": [{"role": "user", "content": "hello"}]}
        whole = (await client.post("/chat/completions", json=asked)).json()
        assert MARK in whole["choices"][0]["message"]["content"]
        assert whole["usage"]["cost"] == 0
        streamed = await asyncio.wait_for(client.post("/chat/completions", json={**asked, "stream": True}), 10)
        events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
        pieces = [event["choices"][0]["delta"].get("content", "") for event in events]
        assert "".join(pieces) == whole["choices"][0]["message"]["content"]
        assert len([piece for piece in pieces if piece]) > 5
        unknown = await client.post("/chat/completions", json={**asked, "model": "rehearsal/opera"})
        assert unknown.status_code == 404
        assert "rehearsal/stuck" in unknown.text
