"""Whatever agents say and people ask for, at whatever moment: no illegal state, nothing raised but a clear refusal,
and the entries alone are the board."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import STEADY, MemoryRoom, Temper, carry, commits, in_virtual_time, random_model, rules, spawn
from tests.test_rules_deliberation import SEEDS
from trilogue import interventions
from trilogue.agent import Role
from trilogue.board import apply, fold
from trilogue.board.view import as_json
from trilogue.entry import Entry, Kind
from trilogue.errors import Conflict, IllegalTransition
from trilogue.ledger.chain import verify
from trilogue.pipeline import LEGAL, Phase, Status, check_transition, status_in
from trilogue.spec import RoundSpec

COMMANDS = ("stop", "continue", "resume", "resume without a reason")
TEMPERS = st.builds(
    Temper,
    malformed=st.sampled_from((0.0, 0.1)),
    violates=st.sampled_from((0.0, 0.05)),
    faults=st.sampled_from((0.0, 0.2)),
    refused=st.sampled_from((0.0, 0.02)),
    confused=st.sampled_from((0.0, 0.1, 0.5)),
    longest=st.sampled_from((1.0, 40.0)),
)


Watch = Callable[[MemoryRoom], None]


def follows(room: MemoryRoom) -> None:
    """Live, after each commit: the board is what a replay of its entries comes to."""
    assert room.board == fold(room.entries)


def check_turns(entries: list[Entry]) -> None:
    """Each turn begins once, in order, and ends at most once."""
    begun = [entry.body["turn"] for entry in entries if entry.kind is Kind.TURN_BEGUN]
    ended = [entry.body["turn"] for entry in entries if entry.kind is Kind.TURN_ENDED]
    assert begun == list(range(1, len(begun) + 1))
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(begun)


def check_statuses(entries: list[Entry]) -> None:
    """Each status follows by the table, or leads back by `resume` into the phase that FAILED or STOPPED broke off."""
    present, phase = Status.SPAWNED, Phase.SPAWN
    for entry in entries:
        if entry.kind is Kind.PHASE_STARTED:
            phase = Phase(entry.body["phase"])
        elif entry.kind is Kind.STATUS:
            wanted = Status(entry.body["status"])
            if entry.body.get("resumed"):
                assert present in {Status.FAILED, Status.STOPPED}
                assert wanted is status_in(phase)
            else:
                assert wanted in LEGAL[present]
            present = wanted


async def command(room: MemoryRoom, asked: str) -> bool:
    """Do what a person asks for; whether it could be done. A refusal leaves nothing behind."""
    before = list(room.entries)
    models = dict.fromkeys(Role, "a-model")
    try:
        match asked:
            case "stop":
                await room.append(
                    lambda board: interventions.stopped(
                        status=board.status,
                        phase=board.phase,
                        round_=board.round.number if board.round else 0,
                        head_seq=board.seq,
                        reason="",
                    )
                )
            case "continue":
                await room.append(
                    lambda board: interventions.round_begun(
                        board,
                        room.now(),
                        models,
                        asked=RoundSpec(guidance="mind the cost"),
                        mode="local",
                        rehearsal=False,
                        timeout=60.0,
                    )
                )
            case _:
                reason = "" if asked.endswith("without a reason") else "looked at it"
                await room.append(
                    lambda board: interventions.resumed(board, room.now(), models, RoundSpec(reason=reason))
                )
    except Conflict:
        assert room.entries == before
        return False
    return True


def life(
    seed: int, temper: Temper, commands: list[str], watch: Watch = lambda _: None
) -> tuple[list[Entry], list[str]]:
    """A pipeline that is cut off at any commit, and for which people ask this and that before it is taken up again."""
    random = Random(seed)
    model = random_model(random, temper)
    entries: list[Entry] = []
    done: list[str] = []
    for attempt, asked in enumerate([*commands, ""], start=1):

        async def run(entries: list[Entry] = entries, attempt: int = attempt, asked: str = asked) -> MemoryRoom:
            limits = rules(turn_limit=4, stuck=5.0, agent_timeout=60.0)
            room = MemoryRoom(model, entries=entries, attempt=attempt, rules=limits, watch=watch)
            if not entries:
                await spawn(room, timeout=60.0, auto_continue=random.random() < 0.8)
            if not room.board.status.ended:
                await carry(room)
            if asked:
                possible = commits(room.entries)
                cut = possible[-1] if random.random() < 0.5 else random.choice(possible)
                room = MemoryRoom(model, entries=room.entries[:cut], attempt=attempt, rules=limits, watch=watch)
                if await command(room, asked):
                    done.append(asked)
            return room

        entries = in_virtual_time(run()).entries
    return entries, done


@settings(STEADY, max_examples=60)
@given(seed=SEEDS, temper=TEMPERS, commands=st.lists(st.sampled_from(COMMANDS), max_size=4))
def test_no_life_of_a_pipeline_reaches_an_illegal_state(seed: int, temper: Temper, commands: list[str]) -> None:
    entries, _ = life(seed, temper, commands, watch=follows)
    board = fold(entries)
    check_statuses(entries)
    check_turns(entries)
    assert verify(entries) is None
    assert board.status.ended or board.status is Status.REPORT
    assert (board.status is Status.COMPLETED) == (board.consensus is not None)
    if board.status is not Status.STOPPED:
        assert not board.open_turns
    assert all(agent.role is not Role.GAMMA for agent in board.voters())
    rounds = [entry.body["round"] for entry in entries if entry.kind is Kind.ROUND_STARTED]
    assert rounds == list(range(1, len(rounds) + 1))


def test_the_lives_really_hold_every_command_and_every_end() -> None:
    done: set[str] = set()
    ends: set[Status] = set()
    for seed in range(100):
        random = Random(seed)
        wrong, slow = random.choice((0.0, 0.3)), random.choice((5.0, 100.0))
        temper = Temper(violates=wrong, faults=random.choice((0.0, 0.9)), confused=0.1, longest=slow)
        entries, carried_out = life(seed, temper, random.choices(COMMANDS, k=4))
        done |= set(carried_out)
        ends |= {Status(entry.body["status"]) for entry in entries if entry.kind is Kind.STATUS}
        if done == set(COMMANDS) and ends >= set(Status) - {Status.SPAWNED}:
            return
    pytest.fail(f"only {sorted(done)} and {sorted(ends)}")


@settings(STEADY, max_examples=12)
@given(seed=SEEDS, temper=TEMPERS, commands=st.lists(st.sampled_from(COMMANDS), max_size=3))
def test_folding_any_number_of_entries_and_then_the_rest_is_folding_all(
    seed: int, temper: Temper, commands: list[str]
) -> None:
    entries, _ = life(seed, temper, commands)
    whole = fold(entries)
    for cut in range(len(entries) + 1):
        board = fold(entries[:cut])
        earlier = as_json(board)
        for entry in entries[cut:]:
            apply(board, entry)
        assert board == whole
        assert as_json(fold(entries[:cut])) == earlier


@settings(STEADY, max_examples=200)
@given(wanted=st.lists(st.sampled_from(Status), max_size=30))
def test_whatever_statuses_are_asked_for_those_taken_are_a_course_that_the_design_knows(wanted: list[Status]) -> None:
    course = [Status.SPAWNED]
    for status in wanted:
        if status in LEGAL[course[-1]]:
            check_transition(course[-1], status)
            course.append(status)
        else:
            with pytest.raises(IllegalTransition):
                check_transition(course[-1], status)
    assert course.count(Status.SPAWNED) == 1
    assert all(status not in course[:-1] for status in (Status.COMPLETED, Status.FAILED, Status.STOPPED))
    assert course[:4] == [Status.SPAWNED, Status.RUNNING, Status.REPORT, Status.ORCHESTRATING][: len(course)] or any(
        status in {Status.FAILED, Status.STOPPED} for status in course[:4]
    )
    for present, following in pairwise(course):
        assert not present.ended or (present.continuable and following is Status.ORCHESTRATING)
