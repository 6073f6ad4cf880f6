"""What lies between ALPHA and BETA: what is agreed, GAMMA when it was called, proposals with their votes, messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.agent import Role
from trilogue.board import Board, Mediation, Proposal, Revision, Ruling, Subtask
from trilogue.board.items import Critique, Message
from trilogue.dashboard.parts.lanes import Block, blocks
from trilogue.dashboard.scene import Scene

MOST_PROPOSALS = 30
MOST_MESSAGES = 60
"""The latest; those before are in the log."""

_WHY = {
    "STUCK": "nothing moved any more",
    "CONFLICT": "they stood against each other",
    "COMPLEXITY": "it is more than two can settle in one piece",
}
_OUTCOMES = {"merge": "a merged text holds", "choose": "it holds as it stands"}


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Where one voter stands on a proposal's latest revision: `author`, `approve`, `reject`, or `open`.

    Attributes:
        former: its vote was on an earlier revision and no longer counts.
    """

    role: Role
    agent_id: str
    verdict: str
    reason: str
    former: bool


@dataclass(frozen=True, kw_only=True)
class Card:
    """One proposal.

    Attributes:
        state: `agreed`, `chosen` (by a ruling), `unresolved` or `open`.
    """

    id: str
    author: str
    state: str
    latest: Revision
    earlier: tuple[Revision, ...]
    stands: tuple[Stand, ...]
    critiques: tuple[Critique, ...]
    round: int


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """One mediation: why GAMMA was called, what shows it, what it did."""

    mediation: Mediation
    why: str
    evidence: tuple[tuple[str, str], ...]
    ruling: Ruling | None
    ruled: str
    under_way: bool
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One subtask, and the solution that answers it."""

    subtask: Subtask
    solved_by: str


@dataclass(frozen=True, kw_only=True)
class Word:
    """One message: who to whom; `side` is where its sender's lane is."""

    message: Message
    sender: str
    side: str
    arrow: str


def shown(scene: Scene) -> Mapping[str, Any]:
    """Everything between the lanes."""
    board = scene.story.board
    unresolved = {proposal.id for proposal in board.unresolved()}
    agreed = {proposal.id for proposal in board.agreed()}
    proposals = list(board.proposals.values())
    return {
        "board": board,
        "consensus": board.consensus,
        "round": board.round.number if board.round else 0,
        "cards": [_card(board, p, agreed, unresolved) for p in reversed(proposals[-MOST_PROPOSALS:])],
        "more_proposals": max(0, len(proposals) - MOST_PROPOSALS),
        "meetings": [_meeting(scene, mediation) for mediation in board.mediations],
        "subtasks": [_part(board, subtask) for subtask in board.subtasks.values()],
        "solutions": list(board.solutions.values())[-MOST_PROPOSALS:],
        "words": [_word(board, message) for message in board.messages[-MOST_MESSAGES:]],
        "more_messages": max(0, len(board.messages) - MOST_MESSAGES),
        "guidance": board.guidance,
        "handoffs": board.handoffs,
    }


def _card(board: Board, proposal: Proposal, agreed: set[str], unresolved: set[str]) -> Card:
    return Card(
        id=proposal.id,
        author=board.role_of(proposal.author),
        state=_state(board, proposal, agreed, unresolved),
        latest=proposal.latest,
        earlier=proposal.revisions[:-1],
        stands=tuple(_stand(board, role, proposal) for role in (Role.ALPHA, Role.BETA) if board.agent_in(role)),
        critiques=tuple(one for one in board.critiques if one.proposal == proposal.id),
        round=proposal.round,
    )


def _state(board: Board, proposal: Proposal, agreed: set[str], unresolved: set[str]) -> str:
    if board.consensus:
        if board.consensus["proposal_id"] != proposal.id:
            return "open"
        return "agreed" if proposal.id in agreed else "chosen"
    if proposal.id in agreed:
        return "agreed"
    return "unresolved" if proposal.id in unresolved else "open"


def _stand(board: Board, role: Role, proposal: Proposal) -> Stand:
    agent = board.agent_in(role)
    assert agent is not None
    voter = agent.agent_id
    vote = board.votes.get((proposal.id, voter))
    counts = vote is not None and vote.revision == proposal.latest.number
    verdict = "author" if proposal.author == voter else vote.verdict if vote and counts else "open"
    return Stand(
        role=role,
        agent_id=voter,
        verdict=verdict,
        reason=vote.reason if vote else "",
        former=vote is not None and not counts and proposal.author != voter,
    )


def _meeting(scene: Scene, mediation: Mediation) -> Meeting:
    board = scene.story.board
    ruling = next((one for one in board.rulings if one.mediation == mediation.number), None)
    mediators = [agent.agent_id for agent in board.agents.values() if agent.role is Role.GAMMA]
    # GAMMA has a new agent for each mediation, in their order.
    own = mediators[mediation.number - 1 : mediation.number]
    turns = [turn for turn in scene.story.turns.values() if turn.agent_id in own and not turn.undone]
    return Meeting(
        mediation=mediation,
        why=_WHY.get(mediation.trigger, ""),
        evidence=tuple((name.replace("_", " "), _plain(value)) for name, value in mediation.evidence.items()),
        ruling=ruling,
        ruled=_OUTCOMES.get(ruling.outcome, ruling.outcome) if ruling else "",
        under_way=mediation.outcome is None and not board.status.ended,
        blocks=tuple(blocks(turns)),
    )


def _plain(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(str, value))
        case Mapping():
            return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
        case _:
            return str(value)


def _part(board: Board, subtask: Subtask) -> Part:
    found = next((s.id for s in board.solutions.values() if s.subtask == subtask.id), "")
    return Part(subtask=subtask, solved_by=found)


def _word(board: Board, message: Message) -> Word:
    sender = board.role_of(message.sender)
    side = {"ALPHA": "alpha", "BETA": "beta", "GAMMA": "gamma"}.get(sender, "person")
    return Word(message=message, sender=sender, side=side, arrow="←" if sender == "BETA" else "→")
