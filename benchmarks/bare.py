"""The bare asyncio loop beside which a pipeline is measured: the same calls, without Prefect and without a ledger.

The calls are those of a recorded pipeline. An agent is a function of what it can see, and the
ledger says what each turn saw, so each question can be put together again from the entries.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from trilogue.actions import Offer, read_turn, turn_schema
from trilogue.board import fold
from trilogue.deliberation.offers import offer
from trilogue.entry import Entry, Kind
from trilogue.models import prompts
from trilogue.models.gateway import Gateway
from trilogue.models.question import Question
from trilogue.pipeline import Phase


@dataclass(frozen=True, kw_only=True)
class Call:
    """One turn's question, with what its answer may be."""

    question: Question
    terms: Offer


Waves = Sequence[Sequence[Call]]
"""Calls that go out at the same time, one wave after the other; as many waves as the critical path has calls."""


def critical_path(entries: Sequence[Entry]) -> int:
    """How many calls a pipeline had to make one after the other."""
    return max(_depths(entries).values())


def waves_of(entries: Sequence[Entry], *, answer_tokens: int) -> Waves:
    """The calls of a recorded pipeline without mediation."""
    depths = _depths(entries)
    waves: list[list[Call]] = [[] for _ in range(max(depths.values()))]
    for entry in entries:
        if entry.kind is Kind.TURN_BEGUN:
            waves[depths[entry.body["turn"]] - 1].append(_call(entries, entry, answer_tokens))
    return waves


async def run(gateway: Gateway, waves: Waves) -> None:
    """Make all the calls. Raises the error of one that fails."""
    for wave in waves:
        await asyncio.gather(*(_made(gateway, call) for call in wave))


async def _made(gateway: Gateway, call: Call) -> None:
    reply = await gateway.complete(call.question, read=lambda value: read_turn(value, call.terms))
    if reply.error:
        raise reply.error


def _depths(entries: Sequence[Entry]) -> dict[int, int]:
    """For each turn its place on the longest chain of turns that saw each other's ends."""
    ended: dict[int, int] = {}
    depths: dict[int, int] = {}
    for entry in entries:
        match entry.kind:
            case Kind.TURN_BEGUN:
                seen = [depths[turn] for turn, seq in ended.items() if seq <= entry.body["seen"]]
                depths[entry.body["turn"]] = 1 + max(seen, default=0)
            case Kind.TURN_ENDED:
                ended[entry.body["turn"]] = entry.seq
            case _:
                pass
    return depths


def _call(entries: Sequence[Entry], begun: Entry, answer_tokens: int) -> Call:
    board = fold(entries[: begun.body["seen"]])
    agent, phase = board.agents[begun.actor], Phase(begun.body["phase"])
    terms = offer(board, agent, phase)
    question = Question(
        model=begun.body["model"],
        system=prompts.part(agent.role),
        prompt=prompts.prompt(board, agent, phase, terms),
        schema=turn_schema(terms),
        schema_name="turn",
        max_tokens=answer_tokens,
    )
    return Call(question=question, terms=terms)
