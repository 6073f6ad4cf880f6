"""The board's state, and what follows from it: who waits, what is agreed, what is unresolved.

Only `trilogue.board.folding` changes a `Board`; what follows from it is computed, never stored.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from trilogue.agent import NEGOTIATORS, Mandate, Role
from trilogue.board.items import (
    NOTHING,
    Agent,
    Critique,
    Finding,
    Mediation,
    Message,
    OpenTurn,
    PhaseSpan,
    Proposal,
    Round,
    Ruling,
    Solution,
    Spending,
    Subtask,
    Vote,
)
from trilogue.clock import Micros
from trilogue.pipeline import Phase, Status


@dataclass(kw_only=True)
class Board:
    """What all entries up to `seq` come to.

    Attributes:
        ids: how many ids of a letter (`f`, `p`, `c`, …) were given out, so that none is given twice.
        snapshots: the board as it stood at each checkpoint's `to_seq`, for `rewound`.
    """

    spec: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0
    at: Micros = 0
    attempt: int = 0
    status: Status = Status.SPAWNED
    error: Mapping[str, Any] | None = None
    phases: tuple[PhaseSpan, ...] = ()
    round: Round | None = None
    agents: dict[str, Agent] = field(default_factory=dict)
    mandates: dict[str, Mandate] = field(default_factory=dict)
    replacements: dict[Role, int] = field(default_factory=dict)
    spending: dict[str, Spending] = field(default_factory=dict)
    max_tokens: int | None = None
    max_nanousd: int | None = None
    contexts: dict[str, str] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    proposals: dict[str, Proposal] = field(default_factory=dict)
    critiques: tuple[Critique, ...] = ()
    votes: dict[tuple[str, str], Vote] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    solutions: dict[str, Solution] = field(default_factory=dict)
    subtasks: dict[str, Subtask] = field(default_factory=dict)
    rulings: tuple[Ruling, ...] = ()
    mediations: tuple[Mediation, ...] = ()
    guidance: tuple[str, ...] = ()
    handoffs: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    report: Mapping[str, Any] | None = None
    consensus: Mapping[str, Any] | None = None
    checkpoints: tuple[str, ...] = ()
    open_turns: dict[int, OpenTurn] = field(default_factory=dict)
    turns: int = 0
    turns_of: dict[str, int] = field(default_factory=dict)
    errors_of: dict[str, int] = field(default_factory=dict)
    last_progress: Micros = 0
    last_mediation: Micros = 0
    last_news: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    snapshots: "dict[int, Board]" = field(default_factory=dict)

    @property
    def phase(self) -> Phase:
        return self.phases[-1].phase if self.phases else Phase.SPAWN

    def forked(self) -> "Board":
        """A board that goes its own way; what lies on it is frozen and shared."""
        other = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict):
                setattr(other, name, dict(value))
        other.snapshots = {}
        return other

    # Who takes part

    def agent_in(self, role: Role) -> Agent | None:
        """The latest agent of a role, revoked or not."""
        return next((agent for agent in reversed(self.agents.values()) if agent.role is role), None)

    def voters(self) -> tuple[Agent, ...]:
        """The unrevoked ALPHA and BETA."""
        found = (self.agent_in(role) for role in NEGOTIATORS)
        return tuple(agent for agent in found if agent and not agent.revoked)

    def role_of(self, agent_id: str) -> str:
        """ALPHA, BETA or GAMMA for an agent's id; any other actor as it is."""
        agent = self.agents.get(agent_id)
        return agent.role.value if agent else agent_id

    def spending_of(self, agent_id: str) -> Spending:
        """What an agent has spent and reserved."""
        return self.spending.get(agent_id, Spending())

    def spending_in_all(self) -> Spending:
        """What the pipeline has spent and reserved."""
        every = self.spending.values()
        return Spending(
            spent=sum((one.spent for one in every), NOTHING),
            reserved=sum((one.reserved for one in every), NOTHING),
            estimated=any(one.estimated for one in every),
        )

    def turn_of(self, agent_id: str) -> OpenTurn | None:
        """The agent's turn that has begun and not ended."""
        return next((turn for turn in self.open_turns.values() if turn.agent_id == agent_id), None)

    def waiting(self, agent: Agent) -> bool:
        """Whether everything that others committed was seen by the agent's last turn of this round."""
        if agent.seen < 0 or self.turn_of(agent.agent_id):
            return False
        return all(seq <= agent.seen for actor, seq in self.last_news.items() if actor != agent.agent_id)

    # What they agree on

    def latest_vote(self, voter: str, proposal: Proposal) -> Vote | None:
        """The voter's latest vote, if it is on the proposal's latest revision."""
        vote = self.votes.get((proposal.id, voter))
        return vote if vote and vote.revision == proposal.latest.number else None

    def approved_by(self, voter: str, proposal: Proposal) -> bool:
        """An author approves by authorship; anyone else by the latest vote on the latest revision."""
        if proposal.author == voter:
            return True
        vote = self.latest_vote(voter, proposal)
        return vote is not None and vote.approves

    def open_proposals(self) -> tuple[Proposal, ...]:
        """Proposals that can still be agreed."""
        return tuple(self.proposals.values())

    def agreed(self) -> tuple[Proposal, ...]:
        """Proposals that every voter approves; none while there are fewer than two voters."""
        voters = [agent.agent_id for agent in self.voters()]
        if len(voters) < len(NEGOTIATORS):
            return ()
        return tuple(p for p in self.open_proposals() if all(self.approved_by(voter, p) for voter in voters))

    def deciding_seq(self, proposal: Proposal) -> int:
        """Where an agreed proposal became agreed: its last needed vote, or its revision."""
        votes = (self.latest_vote(agent.agent_id, proposal) for agent in self.voters())
        return max([proposal.latest.seq, *(vote.seq for vote in votes if vote)])

    def decided(self) -> tuple[Proposal, ...]:
        """The agreed proposals once all turns begun before the deciding vote have ended; until then none."""
        agreed = self.agreed()
        if not agreed:
            return ()
        deciding = max(self.deciding_seq(proposal) for proposal in agreed)
        return () if any(turn.begun_seq < deciding for turn in self.open_turns.values()) else agreed

    def unresolved(self) -> tuple[Proposal, ...]:
        """Open proposals, not agreed, on which every other voter has ended a turn since the last revision."""
        agreed = {proposal.id for proposal in self.agreed()}
        voters = self.voters()
        return tuple(
            proposal
            for proposal in self.open_proposals()
            if proposal.id not in agreed
            and all(v.seen >= proposal.latest.seq for v in voters if v.agent_id != proposal.author)
        )

    def ruling(self) -> Ruling | None:
        """The ruling of this round, if GAMMA made one."""
        number = self.round.number if self.round else 0
        return next((ruling for ruling in reversed(self.rulings) if ruling.round == number), None)

    def open_subtasks(self) -> tuple[Subtask, ...]:
        """Subtasks that nobody has solved."""
        solved = {solution.subtask for solution in self.solutions.values()}
        return tuple(subtask for subtask in self.subtasks.values() if subtask.id not in solved)

    def mediation(self) -> Mediation | None:
        """The mediation of the present round that is under way."""
        return next((m for m in self.round_mediations() if m.outcome is None), None)

    def round_mediations(self) -> tuple[Mediation, ...]:
        """Mediations of the present round, oldest first."""
        number = self.round.number if self.round else 0
        return tuple(m for m in self.mediations if m.round == number)
