"""Consensus for any sequence of turns: as an independent reading of the entries has it, and never by their order."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import (
    STEADY,
    MemoryRoom,
    Spoken,
    Temper,
    in_virtual_time,
    propose,
    random_model,
    rules,
    say,
    scripted,
    spawn,
    to_the_round,
    vote,
)
from tests.test_rules_deliberation import SEEDS
from trilogue.agent import NEGOTIATORS, Role
from trilogue.board import Board, apply
from trilogue.deliberation.rounds import round_end
from trilogue.deliberation.turns import take_turn
from trilogue.entry import Entry, Kind
from trilogue.errors import Exhausted
from trilogue.pipeline import Phase

TEMPERS = st.builds(
    Temper,
    malformed=st.sampled_from((0.0, 0.1)),
    violates=st.sampled_from((0.0, 0.1)),
    longest=st.sampled_from((0.0, 5.0)),
)


class Reading:
    """Who agrees on what, read from entries in the plainest way."""

    def __init__(self) -> None:
        self.voters: dict[str, str] = {}
        self.authors: dict[str, str] = {}
        self.latest: dict[str, tuple[int, int]] = {}
        self.votes: dict[tuple[str, str], tuple[int, str, int]] = {}
        self.begun: dict[int, int] = {}

    def read(self, entry: Entry) -> None:
        body = entry.body
        match entry.kind:
            case Kind.AGENT_SPAWNED if body["role"] in NEGOTIATORS:
                self.voters[body["role"]] = body["agent_id"]
            case Kind.AGENT_STATUS if body["status"] == "REVOKED":
                self.voters = {role: one for role, one in self.voters.items() if one != body["agent_id"]}
            case Kind.PROPOSAL:
                self.authors[body["id"]] = entry.actor
                self.latest[body["id"]] = (1, entry.seq)
            case Kind.REVISION:
                self.latest[body["proposal"]] = (body["revision"], entry.seq)
            case Kind.VOTE:
                self.votes[body["proposal"], entry.actor] = (body["revision"], body["verdict"], entry.seq)
            case Kind.TURN_BEGUN:
                self.begun[body["turn"]] = entry.seq
            case Kind.TURN_ENDED:
                del self.begun[body["turn"]]

    def agreed(self) -> dict[str, int]:
        """The agreed proposals, each with the `seq` that made it so."""
        found = {}
        for name, author in self.authors.items():
            number, since = self.latest[name]
            others = [self.votes.get((name, voter)) for voter in self.voters.values() if voter != author]
            if len(self.voters) == 2 and all(one and one[:2] == (number, "approve") for one in others):
                found[name] = max([since, *(one[2] for one in others if one)])
        return found

    def decided(self) -> set[str]:
        agreed = self.agreed()
        return set() if any(seq < max(agreed.values(), default=0) for seq in self.begun.values()) else set(agreed)


def restless(seed: int, temper: Temper) -> list[Entry]:
    """The entries of two random agents that go on turn by turn, whatever is agreed meanwhile."""

    async def run() -> MemoryRoom:
        room = MemoryRoom(random_model(Random(seed), temper), rules=rules())
        await spawn(room)
        with suppress(Exhausted):  # both were revoked before there was a round
            await to_the_round(room)
            await asyncio.gather(*(take(room, role, 10) for role in NEGOTIATORS))
        return room

    return in_virtual_time(run()).entries


async def take(room: MemoryRoom, role: Role, turns: int) -> None:
    """So many turns of an agent one after the other, as long as it is not revoked."""
    for _ in range(turns):
        for agent in room.board.voters():
            if agent.role is role:
                await take_turn(room, agent, Phase.ORCHESTRATE)


@settings(STEADY, max_examples=40)
@given(seed=SEEDS, temper=TEMPERS)
def test_what_is_agreed_and_decided_after_every_entry_is_what_a_plain_reading_says(seed: int, temper: Temper) -> None:
    board, reading = Board(), Reading()
    for entry in restless(seed, temper):
        apply(board, entry)
        reading.read(entry)
        assert {proposal.id for proposal in board.agreed()} == set(reading.agreed()), entry
        assert {proposal.id for proposal in board.decided()} == reading.decided(), entry
        assert len(board.voters()) == 2 or not board.agreed()


def test_the_random_agents_really_meet_every_case() -> None:
    undone = {f"undone by {kind.value}" for kind in (Kind.REVISION, Kind.VOTE, Kind.AGENT_STATUS)}
    missing = {"agreed", "pending", "rivals", *undone}
    for seed in range(200):
        reading, before = Reading(), set[str]()
        for entry in restless(seed, Temper(violates=0.05)):
            reading.read(entry)
            now, decided = set(reading.agreed()), reading.decided()
            missing -= {"agreed"} if now - before else set()
            missing -= {f"undone by {entry.kind.value}"} if before - now else set()
            missing -= {"pending"} if now and not decided else set()
            missing -= {"rivals"} if len(decided) > 1 else set()
            before = now
        if not missing:
            return
    pytest.fail(f"never met: {missing}")


Turns = dict[str, list[Spoken]]
VERDICTS = st.sampled_from(("approve", "reject", "none"))


async def voted(ours: int, theirs: int, turns: Turns) -> tuple[list[str], list[str], Any]:
    """What is agreed and decided, and how the round ends, after ALPHA and BETA took those turns side by side."""
    lines = {
        "ALPHA": [say(*(propose(f"alpha {n}") for n in range(ours))), *turns["ALPHA"]],
        "BETA": [say(*(propose(f"beta {n}") for n in range(theirs))), *turns["BETA"]],
    }
    room = MemoryRoom(scripted(lines), rules=rules())
    await spawn(room)
    await to_the_round(room)
    for role in NEGOTIATORS:
        await take(room, role, 1)
    await asyncio.gather(*(take(room, role, len(turns[role])) for role in NEGOTIATORS))
    end = round_end(room.board, room.rules)
    return (
        [proposal.id for proposal in room.board.agreed()],
        [proposal.id for proposal in room.board.decided()],
        end and (end.status, (end.consensus or {}).get("text"), (end.consensus or {}).get("votes")),
    )


def in_some_order(random: Random, votes: Sequence[tuple[str, str]]) -> list[Spoken]:
    """One agent's votes, in any order, in one turn or several, each as long as it likes."""
    left = random.sample(votes, len(votes))
    turns = []
    while left:
        count = random.randint(1, min(3, len(left)))
        turns.append(say(*(vote(*one) for one in left[:count]), after=random.choice((0.0, 0.1, random.random() * 3))))
        left = left[count:]
    return turns


@settings(STEADY, max_examples=40)
@given(
    alphas=st.lists(VERDICTS, min_size=1, max_size=3),
    betas=st.lists(VERDICTS, min_size=1, max_size=3),
    orders=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)),
)
def test_the_order_of_votes_and_turns_never_matters(
    alphas: list[str], betas: list[str], orders: tuple[int, int]
) -> None:
    """`alphas` and `betas` are what the other one votes on ALPHA's and on BETA's proposals."""
    by_beta = [(f"p{n}", verdict) for n, verdict in enumerate(alphas, start=1) if verdict != "none"]
    by_alpha = [(f"p{n}", verdict) for n, verdict in enumerate(betas, start=len(alphas) + 1) if verdict != "none"]
    outcomes = []
    for seed in orders:
        random = Random(seed)
        turns = {"ALPHA": in_some_order(random, by_alpha), "BETA": in_some_order(random, by_beta)}
        outcomes.append(in_virtual_time(voted(len(alphas), len(betas), turns)))
    assert outcomes[0] == outcomes[1]
    agreed, decided, _ = outcomes[0]
    assert agreed == decided == sorted(name for name, verdict in by_beta + by_alpha if verdict == "approve")
