"""A pipeline cut off after any commit goes on from there, to its end, and no finished turn is taken again."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import (
    MemoryRoom,
    Temper,
    carry,
    commits,
    in_virtual_time,
    random_model,
    rehearsal,
    rules,
    say,
    scripted,
    spawn,
)
from tests.test_rules_deliberation import check_whole
from trilogue.entry import Entry, Kind
from trilogue.models.rehearsal import SCENARIOS
from trilogue.pipeline import Status


def recorded(model: str) -> list[Entry]:
    async def run() -> list[Entry]:
        room = MemoryRoom(rehearsal(), rules=rules())
        await spawn(room, model=model)
        await carry(room)
        return room.entries

    return in_virtual_time(run())


def finished(entries: list[Entry], agent_id: str, phase: str) -> bool:
    """Whether an agent has a turn of a phase behind it that brought something."""
    ended = (entry.body for entry in entries if entry.kind is Kind.TURN_ENDED)
    return any(b["agent_id"] == agent_id and b["phase"] == phase and b["outcome"] == "acted" for b in ended)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_rehearsal_cut_off_after_any_commit_completes_and_asks_nobody_twice(scenario: str) -> None:
    whole = recorded(scenario)
    for cut in commits(whole)[:-1]:
        before = whole[:cut]

        async def go_on(before: list[Entry] = before) -> MemoryRoom:
            room = MemoryRoom(rehearsal(), entries=before, attempt=2, rules=rules())
            await carry(room)
            return room

        room = in_virtual_time(go_on())
        check_whole(room)
        assert room.board.status is Status.COMPLETED, cut
        for agent_id in ("alpha-1", "beta-1"):
            again = [offer for asked, _, offer in room.asked if asked == agent_id and offer.actions == {"find"}]
            assert len(again) == (0 if finished(before, agent_id, "RUN") else 1), cut
        for mediation in room.board.mediations:
            gamma = f"gamma-{mediation.number}"
            again = [offer for asked, _, offer in room.asked if asked == gamma]
            assert len(again) == (0 if finished(before, gamma, "ORCHESTRATE") else 1), cut


@settings(deadline=30_000, max_examples=40)
@given(seed=st.integers(0, 2**32), share=st.floats(0.01, 1), again=st.floats(0, 1))
def test_random_agents_cut_off_twice_come_to_a_legal_end(seed: int, share: float, again: float) -> None:
    random = Random(seed)
    temper = Temper(malformed=0.1, faults=0.1, violates=0.02)
    entries: list[Entry] = []
    for attempt, part in enumerate((share, again, 1.0), start=1):

        async def run(entries: list[Entry] = entries, attempt: int = attempt) -> MemoryRoom:
            room = MemoryRoom(random_model(random, temper), entries=entries, attempt=attempt, rules=rules())
            if not entries:
                await spawn(room)
            await carry(room)
            return room

        room = in_virtual_time(run())
        possible = commits(room.entries)
        entries = room.entries[: possible[round(part * (len(possible) - 1))]]
    check_whole(room)


def test_taken_up_after_its_deadline_no_turn_begins_and_none_is_left_open() -> None:
    whole = recorded("rehearsal/stuck")
    round_began = next(i for i, entry in enumerate(whole) if entry.kind is Kind.ROUND_STARTED)

    async def late() -> MemoryRoom:
        room = MemoryRoom(scripted({}, then=say()), entries=whole[: round_began + 8], attempt=2, rules=rules())
        room.sleep(10_000)
        await carry(room)
        return room

    room = in_virtual_time(late())
    check_whole(room)
    assert room.board.status is Status.TIMEOUT
    assert room.asked == []
    assert all(entry.kind is not Kind.TURN_BEGUN for entry in room.entries[round_began + 8 :])
