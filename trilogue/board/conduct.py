"""Agents on the board: their mandates, their turns, their mistakes, and what they spend."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from trilogue.agent import AgentStatus, Mandate, Role
from trilogue.board.items import (
    NOTHING,
    Agent,
    Amount,
    OpenTurn,
    Spending,
)
from trilogue.board.state import Board
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Phase

Body = Mapping[str, Any]

_SINCE_BUDGETS: Body = {
    "fallbacks": (),
    "max_tokens": 0,
    "reserved": NOTHING.as_json(),
    "settled": {**NOTHING.as_json(), "estimated": False},
}
"""What entries of turns lack that were made before there were budgets, when nothing was reserved or charged."""


def _agent_spawned(board: Board, _: Entry, body: Body) -> None:
    board.agents[body["agent_id"]] = Agent(
        agent_id=body["agent_id"],
        role=Role(body["role"]),
        tier=body["tier"],
        model=body["model"],
        runtime=body["runtime"],
    )
    if body.get("reason") == "replacement":
        role = Role(body["role"])
        board.replacements[role] = board.replacements.get(role, 0) + 1


def _mandate(board: Board, _: Entry, body: Body) -> None:
    board.mandates[body["agent_id"]] = Mandate.from_json(body)


def _agent_status(board: Board, _: Entry, body: Body) -> None:
    change(board, body["agent_id"], status=AgentStatus(body["status"]))


def change(board: Board, agent_id: str, **changes: Any) -> None:
    board.agents[agent_id] = replace(board.agents[agent_id], **changes)


def _turn_begun(board: Board, entry: Entry, body: Body) -> None:
    body = {**_SINCE_BUDGETS, **body}
    board.turns = body["turn"]
    board.open_turns[body["turn"]] = OpenTurn(
        turn=body["turn"],
        agent_id=body["agent_id"],
        phase=Phase(body["phase"]),
        round=body["round"],
        begun_seq=entry.seq,
        seen=body["seen"],
        models=(body["model"], *body["fallbacks"]),
        max_tokens=body["max_tokens"],
        reserved=Amount.from_json(body["reserved"]),
    )
    _spend(board, body["agent_id"], reserved=Amount.from_json(body["reserved"]))


def _spend(board: Board, agent_id: str, *, spent: Amount = NOTHING, reserved: Amount, estimated: bool = False) -> None:
    before = board.spending_of(agent_id)
    board.spending[agent_id] = Spending(
        spent=before.spent + spent,
        reserved=before.reserved + reserved,
        estimated=before.estimated or estimated,
    )


def _turn_ended(board: Board, _: Entry, body: Body) -> None:
    body = {**_SINCE_BUDGETS, **body}
    turn = board.open_turns.pop(body["turn"], None)
    agent = board.agents[body["agent_id"]]
    outcome, error = body["outcome"], body.get("error") or {}
    settled = body["settled"]
    _spend(
        board,
        agent.agent_id,
        spent=Amount.from_json(settled),
        reserved=NOTHING - Amount.from_json(body["reserved"]),
        estimated=settled["estimated"],
    )
    board.turns_of[agent.agent_id] = board.turns_of.get(agent.agent_id, 0) + 1
    if error:
        board.errors_of[agent.agent_id] = board.errors_of.get(agent.agent_id, 0) + 1
        change(board, agent.agent_id, complaints=(*agent.complaints, f"{error['code']}: {error['message']}"))
    match outcome:
        case "acted":
            seen = turn.seen if turn else agent.seen
            change(board, agent.agent_id, turns=agent.turns + 1, seen=seen, endpoint_fault=None)
        case "malformed" | "violation":
            faults = (*agent.faults, error["fingerprint"])
            violations = agent.violations + (outcome == "violation")
            changed = {"faults": faults, "violations": violations, "endpoint_fault": None}
            change(board, agent.agent_id, turns=agent.turns + 1, **changed)
        case "endpoint":
            outages = agent.outages + (agent.endpoint_fault is None)
            change(board, agent.agent_id, endpoint_fault=error["message"], outages=outages)
        case "refused":
            change(board, agent.agent_id, refused=error["message"])
        case "budget":
            change(board, agent.agent_id, out_of_budget=error["message"])


def _budget(board: Board, _: Entry, body: Body) -> None:
    if body["verdict"] == "stop":
        change(board, body["agent_id"], out_of_budget=body["message"])


def _stopped(board: Board, _: Entry, __: Body) -> None:
    """Nobody will learn what became of the calls in flight: they are charged whole, and their turns owe no more."""
    for turn in board.open_turns.values():
        _spend(board, turn.agent_id, spent=turn.reserved, reserved=NOTHING - turn.reserved, estimated=True)
        board.open_turns[turn.turn] = replace(turn, reserved=NOTHING)


FOLDS: Mapping[Kind, Callable[[Board, Entry, Body], None]] = {
    Kind.AGENT_SPAWNED: _agent_spawned,
    Kind.MANDATE: _mandate,
    Kind.AGENT_STATUS: _agent_status,
    Kind.TURN_BEGUN: _turn_begun,
    Kind.TURN_ENDED: _turn_ended,
    Kind.BUDGET: _budget,
    Kind.STOPPED: _stopped,
}
