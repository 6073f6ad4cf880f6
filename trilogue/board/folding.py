"""Entries into a board: what each kind of entry changes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from trilogue.agent import AgentStatus, Mandate, Role
from trilogue.board.items import (
    NOTHING,
    Agent,
    Amount,
    Critique,
    Finding,
    Mediation,
    Message,
    OpenTurn,
    PhaseSpan,
    Proposal,
    Revision,
    Round,
    Ruling,
    Solution,
    Spending,
    Subtask,
    Vote,
)
from trilogue.board.state import Board
from trilogue.clock import Micros
from trilogue.entry import NEWS, Entry, Kind
from trilogue.pipeline import Phase, Status

Body = Mapping[str, Any]


def fold(entries: Iterable[Entry]) -> Board:
    """The board that `entries`, from the pipeline's first one on, come to."""
    board = Board()
    for entry in entries:
        apply(board, entry)
    return board


def apply(board: Board, entry: Entry) -> None:
    """Advance `board` by the next entry. Raises `ValueError` when it does not follow."""
    if entry.seq != board.seq + 1:
        raise ValueError(f"entry {entry.seq} does not follow {board.seq} on the board of {entry.pipeline_id}")
    board.seq, board.at, board.attempt = entry.seq, entry.at, entry.attempt
    if fold_one := _FOLDS.get(entry.kind):
        fold_one(board, entry, entry.body)
    if entry.kind in NEWS:
        board.last_news[entry.actor] = entry.seq


def _spawned(board: Board, entry: Entry, body: Body) -> None:
    board.spec = body
    board.max_tokens, board.max_nanousd = body.get("max_tokens"), body.get("max_cost_nanousd")
    board.phases = (PhaseSpan(phase=Phase.SPAWN, started_at=entry.at),)


def _context(board: Board, _: Entry, body: Body) -> None:
    board.contexts[body["name"]] = body["text"]


def _phase(board: Board, entry: Entry, body: Body) -> None:
    _close_phase(board, entry.at)
    board.phases = (*board.phases, PhaseSpan(phase=Phase(body["phase"]), started_at=entry.at))


def _close_phase(board: Board, at: Micros) -> None:
    if board.phases and board.phases[-1].ended_at is None:
        board.phases = (*board.phases[:-1], replace(board.phases[-1], ended_at=at))


def _status(board: Board, entry: Entry, body: Body) -> None:
    board.status = Status(body["status"])
    error = body.get("error")
    board.error = {**error, "at": entry.at} if error else None
    if board.status.ended:
        _close_phase(board, entry.at)


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
    _change(board, body["agent_id"], status=AgentStatus(body["status"]))


def _change(board: Board, agent_id: str, **changes: Any) -> None:
    board.agents[agent_id] = replace(board.agents[agent_id], **changes)


def _turn_begun(board: Board, entry: Entry, body: Body) -> None:
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
        _change(board, agent.agent_id, complaints=(*agent.complaints, f"{error['code']}: {error['message']}"))
    match outcome:
        case "acted":
            seen = turn.seen if turn else agent.seen
            _change(board, agent.agent_id, turns=agent.turns + 1, seen=seen, endpoint_fault=None)
        case "malformed" | "violation":
            faults = (*agent.faults, error["fingerprint"])
            violations = agent.violations + (outcome == "violation")
            changed = {"faults": faults, "violations": violations, "endpoint_fault": None}
            _change(board, agent.agent_id, turns=agent.turns + 1, **changed)
        case "endpoint":
            outages = agent.outages + (agent.endpoint_fault is None)
            _change(board, agent.agent_id, endpoint_fault=error["message"], outages=outages)
        case "refused":
            _change(board, agent.agent_id, refused=error["message"])
        case "budget":
            _change(board, agent.agent_id, out_of_budget=error["message"])


def _budget(board: Board, _: Entry, body: Body) -> None:
    if body["verdict"] == "stop":
        _change(board, body["agent_id"], out_of_budget=body["message"])


def _stopped(board: Board, _: Entry, __: Body) -> None:
    """Nobody will learn what became of the calls in flight: they are charged whole, and their turns owe no more."""
    for turn in board.open_turns.values():
        _spend(board, turn.agent_id, spent=turn.reserved, reserved=NOTHING - turn.reserved, estimated=True)
        board.open_turns[turn.turn] = replace(turn, reserved=NOTHING)


def _given(board: Board, letter: str) -> None:
    board.ids[letter] = board.ids.get(letter, 0) + 1


def _finding(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "f")
    board.findings[body["id"]] = Finding(
        id=body["id"],
        author=entry.actor,
        title=body["title"],
        text=body["text"],
        evidence=body["evidence"],
        confidence=body["confidence"],
        complexity=body["complexity"],
    )


def _proposal(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "p")
    first = Revision(number=1, title=body["title"], text=body["text"], seq=entry.seq)
    number = board.round.number if board.round else 0
    board.proposals[body["id"]] = Proposal(id=body["id"], author=entry.actor, round=number, revisions=(first,))
    board.last_progress = entry.at


def _revision(board: Board, entry: Entry, body: Body) -> None:
    proposal = board.proposals[body["proposal"]]
    revision = Revision(number=body["revision"], title=body["title"], text=body["text"], seq=entry.seq)
    board.proposals[proposal.id] = replace(proposal, revisions=(*proposal.revisions, revision))
    board.last_progress = entry.at


def _critique(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "c")
    critique = Critique(
        id=body["id"],
        author=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        text=body["text"],
        seq=entry.seq,
    )
    board.critiques = (*board.critiques, critique)


def _vote(board: Board, entry: Entry, body: Body) -> None:
    key = (body["proposal"], entry.actor)
    former = board.votes.get(key)
    board.votes[key] = Vote(
        voter=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        verdict=body["verdict"],
        reason=body["reason"],
        seq=entry.seq,
    )
    if former is None or former.verdict != body["verdict"]:
        board.last_progress = entry.at


def _message(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "m")
    message = Message(id=body["id"], sender=entry.actor, to=body["to"], content=body["content"], seq=entry.seq)
    board.messages = (*board.messages, message)


def _solution(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "x")
    board.solutions[body["id"]] = Solution(
        id=body["id"],
        author=entry.actor,
        round=board.round.number if board.round else 0,
        title=body["title"],
        text=body["text"],
        subtask=body["subtask"],
    )
    board.last_progress = entry.at


def _subtask(board: Board, entry: Entry, body: Body) -> None:
    _given(board, "s")
    board.subtasks[body["id"]] = Subtask(
        id=body["id"],
        title=body["title"],
        text=body["text"],
        assignee=Role(body["assignee"]),
        author=entry.actor,
    )


def _ruling(board: Board, entry: Entry, body: Body) -> None:
    ruling = Ruling(
        mediation=body["mediation"],
        trigger=body["trigger"],
        author=entry.actor,
        proposal=body["proposal"],
        revision=body["revision"],
        outcome=body["outcome"],
        title=body["title"],
        text=body["text"],
        reason=body["reason"],
        round=board.round.number if board.round else 0,
        seq=entry.seq,
    )
    board.rulings = (*board.rulings, ruling)


def _round(board: Board, entry: Entry, body: Body) -> None:
    board.round = Round(
        number=body["round"],
        mode=body["mode"],
        rehearsal=body["rehearsal"],
        models=body["models"],
        started_at=entry.at,
        deadline=body["deadline"],
        timeout=body["timeout"],
    )
    board.last_progress = entry.at
    board.replacements.clear()
    _raise_limits(board, body)
    for agent in board.agents.values():
        model = body["models"].get(agent.role.value, agent.model)
        _change(board, agent.agent_id, model=model, turns=0, seen=-1, **_ERRORS_ANEW)


def _raise_limits(board: Board, body: Body) -> None:
    board.max_tokens = body.get("max_tokens", board.max_tokens)
    board.max_nanousd = body.get("max_cost_nanousd", board.max_nanousd)


_ERRORS_ANEW: Mapping[str, Any] = {
    "faults": (),
    "violations": 0,
    "outages": 0,
    "complaints": (),
    "endpoint_fault": None,
    "refused": None,
    "out_of_budget": None,
}


def _resumed(board: Board, _: Entry, body: Body) -> None:
    if board.round and body["deadline"]:
        board.round = replace(board.round, deadline=body["deadline"])
    board.replacements.clear()
    _raise_limits(board, body)
    for agent in board.agents.values():
        _change(board, agent.agent_id, **_ERRORS_ANEW)


def _guidance(board: Board, _: Entry, body: Body) -> None:
    board.guidance = (*board.guidance, body["text"])


def _mediation_started(board: Board, _: Entry, body: Body) -> None:
    mediation = Mediation(
        number=body["mediation"],
        trigger=body["trigger"],
        evidence=body["evidence"],
        round=board.round.number if board.round else 0,
    )
    board.mediations = (*board.mediations, mediation)


def _mediation_ended(board: Board, entry: Entry, body: Body) -> None:
    board.mediations = tuple(
        replace(m, outcome=body["outcome"]) if m.number == body["mediation"] else m for m in board.mediations
    )
    board.last_mediation = entry.at


def _handoff(board: Board, _: Entry, body: Body) -> None:
    board.handoffs = (*board.handoffs, body)


def _failure(board: Board, _: Entry, body: Body) -> None:
    board.failures = (*board.failures, body)


def _report(board: Board, _: Entry, body: Body) -> None:
    board.report = body


def _consensus(board: Board, _: Entry, body: Body) -> None:
    board.consensus = body


def _checkpoint(board: Board, _: Entry, body: Body) -> None:
    board.snapshots[body["to_seq"]] = board.forked()
    board.checkpoints = (*board.checkpoints, body["name"])


_NEVER_REWOUND = (
    "seq",
    "at",
    "attempt",
    "spending",
    "max_tokens",
    "max_nanousd",
    "turns",
    "turns_of",
    "errors_of",
    "checkpoints",
    "ids",
    "snapshots",
)
"""What was spent, counted and given out stays, wherever the pipeline goes on from."""


def _rewound(board: Board, _: Entry, body: Body) -> None:
    former = board.snapshots[body["to_seq"]].forked()
    for name, value in vars(former).items():
        if name not in _NEVER_REWOUND:
            setattr(board, name, value)
    board.open_turns = {}


_FOLDS: Mapping[Kind, Callable[[Board, Entry, Body], None]] = {
    Kind.PIPELINE_SPAWNED: _spawned,
    Kind.CONTEXT: _context,
    Kind.PHASE_STARTED: _phase,
    Kind.STATUS: _status,
    Kind.AGENT_SPAWNED: _agent_spawned,
    Kind.MANDATE: _mandate,
    Kind.AGENT_STATUS: _agent_status,
    Kind.BUDGET: _budget,
    Kind.STOPPED: _stopped,
    Kind.TURN_BEGUN: _turn_begun,
    Kind.TURN_ENDED: _turn_ended,
    Kind.FINDING: _finding,
    Kind.PROPOSAL: _proposal,
    Kind.REVISION: _revision,
    Kind.CRITIQUE: _critique,
    Kind.VOTE: _vote,
    Kind.MESSAGE: _message,
    Kind.SOLUTION: _solution,
    Kind.SUBTASK: _subtask,
    Kind.RULING: _ruling,
    Kind.ROUND_STARTED: _round,
    Kind.RESUMED: _resumed,
    Kind.GUIDANCE: _guidance,
    Kind.MEDIATION_STARTED: _mediation_started,
    Kind.MEDIATION_ENDED: _mediation_ended,
    Kind.HANDOFF: _handoff,
    Kind.FAILURE: _failure,
    Kind.REPORT: _report,
    Kind.CONSENSUS: _consensus,
    Kind.CHECKPOINT: _checkpoint,
    Kind.REWOUND: _rewound,
}
