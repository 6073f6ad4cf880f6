"""Every agent acts through its mandate: who it is, what it may do and spend, and until when."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.driving import MakeDriver, asked, shown
from tests.fixtures.book import until
from tests.rooms import FINDING, MemoryRoom, bodies, in_virtual_time, played, rules, say, scripted, spawn
from tests.test_pipeline_faults import DECOMPOSES, NO_JSON, negotiating, when
from trilogue import phases
from trilogue.agent import AgentStatus, Role
from trilogue.board import NOTHING
from trilogue.clock import seconds
from trilogue.deliberation.turns import take_turn
from trilogue.entry import GENESIS, Draft, Entry, Kind
from trilogue.errors import EndpointFault
from trilogue.ledger import schema
from trilogue.ledger.chain import prepare, seal
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Phase, Status
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Hang, Ok, Seen, Step


async def test_every_agent_is_given_its_mandate_at_its_bootstrap_and_anew_with_each_round(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(model="rehearsal/conflict", max_tokens=50_000, errors="9/3/2", agent_timeout=7.0)
    given = course.bodies(Kind.MANDATE)
    assert [body["agent_id"] for body in given] == ["alpha-1", "beta-1", "alpha-1", "beta-1", "gamma-1"]
    first, *_ = given
    assert (first["role"], first["tier"], first["tokens"]) == ("ALPHA", 1, 50_000)
    assert first["errors"] == {"in_all": 9, "alike": 3, "violations": 2}
    assert first["actions"]["RUN"] == ["find", "pass"]
    assert "rule" not in first["actions"]["ORCHESTRATE"]
    spawned_at = next(entry.at for entry in course.entries if entry.kind is Kind.MANDATE)
    assert abs(first["expires_at"] - spawned_at - seconds(7)) < seconds(1)
    assert course.board.round is not None
    assert {body["expires_at"] for body in given[2:]} == {course.board.round.deadline}
    assert (given[-1]["tier"], given[-1]["actions"]) == (2, {"ORCHESTRATE": ["rule"]})


def test_what_a_turn_brings_after_its_mandate_expired_is_refused_and_charged() -> None:
    async def play() -> tuple[str, MemoryRoom]:
        room = MemoryRoom(scripted({"run-ALPHA": [say(FINDING, after=5.0)]}), rules=rules(agent_timeout=3.0))
        await spawn(room)
        models = dict.fromkeys(Role, "m")
        await room.append(lambda board: phases.enlisted(board, models, room.now()) + phases.running(board))
        return await take_turn(room, room.board.agents["alpha-1"], Phase.RUN), room

    outcome, room = in_virtual_time(play())
    assert outcome == "expired"
    assert not room.board.findings
    (ended,) = bodies(room, Kind.TURN_ENDED)
    assert (ended["outcome"], ended["actions"]) == ("expired", [])
    assert room.board.spending_of("alpha-1").spent != NOTHING


@pytest.mark.parametrize("step", [NO_JSON, DECOMPOSES], ids=["malformed twice", "a forbidden action"])
async def test_an_agent_that_is_taken_out_is_replaced_at_once_where_the_pipeline_says_so(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, step: Step
) -> None:
    rehearsed.plan = lambda seen: step if negotiating(Role.BETA)(seen) and "handoffs" not in shown(seen) else Ok()
    driver = await driver_of(rehearsed)
    course = await driver.run(replacements=1)
    assert course.board.status is Status.COMPLETED
    assert course.board.consensus is not None
    assert (course.board.consensus["uncontested"], course.board.consensus["decided_by"]) == (False, "vote")
    assert [vote["voter"] for vote in course.board.consensus["votes"]] == ["alpha-1", "beta-2"]
    (handoff,) = course.board.handoffs
    assert (handoff["agent_id"], handoff["to"]) == ("beta-1", "beta-2")
    assert course.board.agents["beta-1"].status is AgentStatus.REVOKED
    mandates = {body["agent_id"]: body for body in course.bodies(Kind.MANDATE)}
    before, after = mandates["beta-1"], mandates["beta-2"]
    assert after["tokens"] == 200_000 - course.board.spending_of("beta-1").spent.tokens
    assert {name: before[name] for name in ("tier", "actions", "expires_at")} == {
        name: after[name] for name in ("tier", "actions", "expires_at")
    }


async def test_a_replacement_that_fails_as_well_leaves_its_partner_alone(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = when(negotiating(Role.BETA), NO_JSON)
    course = await (await driver_of(rehearsed)).run(replacements=1)
    assert course.board.status is Status.COMPLETED
    assert course.board.consensus is not None
    assert course.board.consensus["uncontested"]
    assert [(h["agent_id"], h["to"]) for h in course.board.handoffs] == [("beta-1", "beta-2"), ("beta-2", "alpha-1")]


async def test_a_handoff_says_why_what_was_done_what_is_open_and_what_to_do_and_the_partner_is_shown_it(
    rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    turns = count()

    def plan(seen: Seen) -> Step:
        return NO_JSON if negotiating(Role.ALPHA)(seen) and next(turns) > 0 else Ok()

    rehearsed.plan = plan
    course = await (await driver_of(rehearsed)).run()
    assert course.board.status is Status.COMPLETED
    (handoff,) = course.board.handoffs
    assert handoff["reason"].startswith("2 errors of one kind")
    assert handoff["done"]["findings"] == ["f1", "f2"] or handoff["done"]["findings"] == ["f3", "f4"]
    assert handoff["done"]["proposals"] == handoff["open_proposals"] != []
    assert handoff["unanswered"], "BETA had asked it something"
    assert len(handoff["errors"]) == 2
    assert all(error.startswith("malformed_answer: ") for error in handoff["errors"])
    assert "alone" in handoff["next"]
    told = shown(rehearsed.chats[-1])["handoffs"]
    assert told == [{name: value for name, value in handoff.items() if name != "agent_id"}]


@pytest.mark.parametrize(("errors", "revoked"), [("8/2/1", True), ("8/2/2", False)])
async def test_how_many_violations_revoke_is_the_pipelines_to_say(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, errors: str, revoked: bool
) -> None:
    first = count()
    rehearsed.plan = lambda seen: DECOMPOSES if negotiating(Role.BETA)(seen) and next(first) == 0 else Ok()
    course = await (await driver_of(rehearsed)).run(errors=errors)
    assert course.board.status is Status.COMPLETED
    assert len(course.bodies(Kind.VIOLATION)) == 1
    assert course.board.agents["beta-1"].revoked is revoked
    assert not course.board.subtasks


MISTAKES: tuple[Any, ...] = (
    [],
    [{"action": "dance"}],
    [{"action": "vote", "proposal": "p9", "verdict": "approve", "reason": "no such proposal"}],
    [{"action": "message"}],
    [{"action": "message", "content": "to nobody", "to": "BOB"}],
    [{"action": "propose", "text": "no title"}],
    [{"action": "propose", "title": "no text"}],
    "no list",
)


@pytest.mark.parametrize(("mistakes", "revoked"), [(7, False), (8, True)])
async def test_eight_different_errors_revoke_and_seven_do_not(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, mistakes: int, revoked: bool
) -> None:
    calls = count()

    def plan(seen: Seen) -> Step:
        if negotiating(Role.BETA)(seen) and (made := next(calls) // 2) < mistakes:  # each comes again in its repair
            return Ok(text=json.dumps({"actions": MISTAKES[made]}))
        return Ok()

    rehearsed.plan = plan
    course = await (await driver_of(rehearsed)).run()
    assert course.board.status is Status.COMPLETED
    assert course.outcomes("beta-1").count("malformed") == mistakes
    assert course.board.agents["beta-1"].revoked is revoked
    assert course.board.consensus is not None
    assert course.board.consensus["uncontested"] is revoked
    if revoked:
        assert course.board.handoffs[0]["reason"] == "8 errors"


def test_an_outage_counts_to_an_agent_once_however_often_it_tried() -> None:

    away = [say(EndpointFault("503"), after=0.1)] * 5
    room = played(scripted({"ALPHA": away}))
    assert [body["outcome"] for body in bodies(room, Kind.TURN_ENDED)].count("endpoint") == 5
    assert room.board.agents["alpha-1"].outages == 1
    assert not room.board.agents["alpha-1"].revoked


SINCE_BUDGETS = {"fallbacks", "max_tokens", "reserved", "settled", "max_cost_nanousd", "errors", "replacements"}
TABLES = {
    "pipelines": "tenant, id, project, external_id, spec, status, phase, round, attempt, head_seq, head_hash, "
    "flow_run_id, stop_requested_at, orchestration_started_at, deadline_at, created_at, updated_at",
    "agents": "tenant, pipeline_id, agent_id, role, tier, runtime, model, status, spawned_at",
}


def as_before_mandates(ledger: Path, former: Path, entries: Sequence[Entry]) -> str:
    """A ledger at the first schema revision with a pipeline as it was written then; returns its URL."""
    url = f"sqlite:///{former}"
    schema.upgrade(url, "0001")
    with closing(sqlite3.connect(former)) as database, database:
        database.execute("ATTACH ? AS new", [str(ledger)])
        for table, columns in TABLES.items():
            database.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}")
        last = GENESIS
        for entry in entries:
            body = {name: value for name, value in entry.body.items() if name not in SINCE_BUDGETS}
            kind = entry.kind
            if kind in {Kind.MANDATE, Kind.BUDGET}:  # something in its place, so that every `seq` stays
                kind, body = Kind.CONTEXT, {"name": "notes", "text": "none"}
            draft = prepare(Draft(kind=kind, actor=entry.actor, body=body))
            place: dict[str, Any] = {"tenant": entry.tenant, "pipeline_id": entry.pipeline_id, "attempt": entry.attempt}
            (old,) = seal([draft], **place, at=entry.at, after=entry.seq - 1, prev_hash=last)
            last = old.hash
            row = (*place.values(), old.seq, old.kind, old.actor, old.at, draft.text, old.prev_hash, old.hash)
            database.execute(
                f"INSERT INTO entries ({', '.join(place)}, seq, kind, actor, at, body, prev_hash, hash) "
                f"VALUES ({', '.join('?' * len(row))})",
                row,
            )
        database.execute("UPDATE pipelines SET head_seq = ?, head_hash = ?", [len(entries), last])
    return url


@pytest.mark.parametrize("phase", [Phase.RUN, Phase.ORCHESTRATE])
async def test_a_pipeline_from_before_mandates_and_budgets_can_be_read_and_goes_on_under_both(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, tmp_path: Path, phase: Phase
) -> None:
    here, former = tmp_path / "here.db", tmp_path / "former.db"
    schema.upgrade(f"sqlite:///{here}")
    rehearsed.plan = when(lambda seen: asked(seen, Role.BETA, phase), Hang())
    driver = await driver_of(rehearsed, ledger_url=f"sqlite:///{here}")
    pipeline_id = await driver.spawn()
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: any(asked(seen, Role.BETA, phase) for seen in rehearsed.chats))
    entries = (await driver.course(pipeline_id)).entries
    url = as_before_mandates(here, former, entries)
    carrying.cancel()
    await asyncio.wait({carrying})

    schema.upgrade(url)
    rehearsed.plan = ()
    driver = await driver_of(rehearsed, ledger_url=url)
    read = await driver.course(pipeline_id)
    assert len(read.entries) == len(entries)
    assert not read.board.mandates
    course = await driver.carry(pipeline_id)
    assert course.board.status is Status.COMPLETED
    assert set(course.board.mandates) >= {"alpha-1", "beta-1"}
    kept = {row.agent_id: row for row in await driver.services.ledger.budgets(TENANT, pipeline_id)}
    for agent_id in course.board.agents:
        assert kept[agent_id].tokens_spent == course.board.spending_of(agent_id).spent.tokens
        assert kept[agent_id].tokens_reserved == 0
