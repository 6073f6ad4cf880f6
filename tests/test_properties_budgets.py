"""Whatever agents do and whatever calls come to, budgets hold: decided on the board, for any course of turns."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rooms import MemoryRoom, Temper, carry, in_virtual_time, random_model, rules, spawn
from trilogue.actions import Offer
from trilogue.agent import Role
from trilogue.board import NOTHING, Agent, Amount, OpenTurn
from trilogue.deliberation.room import Answer
from trilogue.entry import Kind
from trilogue.governance.budgets import LEAST_ANSWER, Need, Price, Settlement
from trilogue.money import USD
from trilogue.pipeline import Status

PRICE = Price(input=3_000, output=15_000)
CHEAP = Price(input=30, output=150)


class SpendingRoom(MemoryRoom):
    """A room whose calls take any share of what they reserved, or nobody knows how much."""

    random: Random
    fallback: bool
    overruns: dict[str, Amount]
    needed: dict[str, list[Need]]

    def needs(self, agent: Agent, prompt: str, _: Offer) -> list[Need]:
        own = Need(models=("m",), input_tokens=len(prompt) // 20, answer_tokens=1_000, price=PRICE)
        spare = replace(own, models=("c",), price=CHEAP)
        self.needed[agent.agent_id] = [own, spare] if self.fallback else [own]
        return self.needed[agent.agent_id]

    async def ask(self, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Answer:
        answer = await super().ask(agent, turn, prompt, offer)
        if (share := self.random.choice((None, 0.0, 0.1, 0.5, 1.0, 1.3))) is None:
            share, charged = 1.0, None
        else:
            took = Amount(tokens=int(turn.reserved.tokens * share), nanousd=int(turn.reserved.nanousd * share))
            charged = Settlement(amount=took)
        if share > 1 and charged:
            self.overruns[agent.agent_id] = self.overruns.get(agent.agent_id, NOTHING) + charged.amount - turn.reserved
        return replace(answer, settled=charged)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    max_tokens=st.integers(200, 30_000),
    cents=st.integers(1, 40),
    fallback=st.booleans(),
    replacements=st.integers(0, 2),
    temper=st.builds(Temper, malformed=st.sampled_from((0.0, 0.3)), faults=st.sampled_from((0.0, 0.2))),
)
def test_no_course_of_turns_spends_more_than_its_limits_and_what_calls_in_flight_took_beyond_their_reservation(
    seed: int, max_tokens: int, cents: int, fallback: bool, replacements: int, temper: Temper
) -> None:
    random = Random(seed)
    limit = cents * USD // 100

    def watch(room: MemoryRoom) -> None:
        assert isinstance(room, SpendingRoom)
        _within(room, limit)

    async def play() -> SpendingRoom:
        room = SpendingRoom(random_model(random, temper), rules=rules(), watch=watch)
        room.random, room.fallback, room.overruns, room.needed = random, fallback, {}, {}
        await spawn(room, max_tokens=max_tokens, max_cost=cents / 100, replacements=replacements)
        await carry(room)
        return room

    room = in_virtual_time(play())
    board = room.board
    assert board.status.ended or board.status is Status.REPORT
    assert board.spending_in_all().reserved == NOTHING
    settled = [entry.body["settled"] for entry in room.entries if entry.kind is Kind.TURN_ENDED]
    assert board.spending_in_all().spent.tokens == sum(body["tokens"] for body in settled)
    assert board.spending_in_all().spent.nanousd == sum(body["cost_nanousd"] for body in settled)


def _within(room: SpendingRoom, limit: int) -> None:
    board = room.board
    for role in Role:
        ids = [agent.agent_id for agent in board.agents.values() if agent.role is role]
        if not ids:
            continue
        spent = sum((board.spending_of(name).spent + board.spending_of(name).reserved for name in ids), NOTHING)
        beyond = sum((room.overruns.get(name, NOTHING) for name in ids), NOTHING)
        assert board.max_tokens is not None
        assert spent.tokens <= board.max_tokens + beyond.tokens
    in_all = board.spending_in_all()
    beyond = sum(room.overruns.values(), NOTHING)
    assert (in_all.spent + in_all.reserved).nanousd <= limit + beyond.nanousd
    assert min(in_all.reserved.tokens, in_all.reserved.nanousd) >= 0
    if room.entries[-1].kind is Kind.BUDGET and room.entries[-1].body["verdict"] == "stop":
        _had_no_room(room, room.entries[-1].body["agent_id"], limit)


def _had_no_room(room: SpendingRoom, agent_id: str, limit: int) -> None:
    """Nobody is stopped while there is room for an answer of some use, counted here by hand."""
    board, mandate = room.board, room.board.mandates[agent_id]
    assert mandate.tokens is not None
    tokens = mandate.tokens - board.spending_of(agent_id).spent.tokens
    money = limit - board.spending_in_all().spent.nanousd
    for need in room.needed[agent_id]:
        assert need.price is not None
        affordable = (money - need.price.input * need.input_tokens) / need.price.output
        assert min(tokens - need.input_tokens, affordable) < LEAST_ANSWER
