"""A pipeline with as many entries as one wants, written straight into a ledger: what pages and readers must bear.

Its agents' words are made up; everything else about the entries is what a worker would have recorded.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from trilogue import clock, interventions, phases
from trilogue.actions import Action, ActionKind, Critique, Find, Message, Offer, Pass, Propose, Revise, Vote
from trilogue.agent import NEGOTIATORS, AgentStatus, Role
from trilogue.board import Agent, Amount, Board, OpenTurn, Proposal, apply
from trilogue.clock import SECOND, Micros, seconds
from trilogue.deliberation.mediating import mediate
from trilogue.deliberation.room import Answer, Rules
from trilogue.deliberation.rounds import round_end
from trilogue.deliberation.turns import take_turn
from trilogue.entry import Draft, Kind
from trilogue.errors import EndpointFault, Malformed, TrilogueError
from trilogue.governance.budgets import Need, Price, Settlement
from trilogue.ledger import Fence, Ledger
from trilogue.limits import Limits
from trilogue.mediation import Due, Thresholds, Trigger
from trilogue.phases import model_of
from trilogue.pipeline import Phase
from trilogue.spec import PipelineSpec

OBJECTIVE = "Choose a message queue for our order service"
MODEL = "anthropic/claude-sonnet-4"
LEAST = 100
"""Entries that a story has at least."""

_NANOUSD = 10**9
_LIMITS = Limits(max_tokens=100_000_000, max_nanousd=10_000 * _NANOUSD)
_PRICE = Price(input=3_000, output=15_000)
_STUCK = 30.0
_RULES = Rules(
    thresholds=Thresholds(stuck=_STUCK, conflict=10**6, complexity=1.0, turn_limit=10**6), agent_timeout=86_400
)
_SECONDS_AN_ENTRY = 0.8
_MEDIATED_AT = 30
"""The turn after which nobody makes progress for a while, so that GAMMA comes."""
_FAULTS: dict[int, TrilogueError] = {
    21: EndpointFault("the endpoint answered 503: overloaded"),
    47: Malformed("the answer was no JSON"),
    90: EndpointFault("no answer within 60 s"),
}
_PROPOSALS = 6
_TEXTS = (
    "Take **one** queue per service.\n\n- start small\n- measure before you add a second\n- keep a way back",
    "What it costs is counted in _hours on call_, not in machines.\n\n1. weigh\n2. decide\n3. review in a quarter",
    "| option | effort | risk |\n|---|---|---|\n| keep | low | high |\n| move | high | low |\n\nMoving pays in a year.",
    "Redelivery must be safe: every consumer is idempotent, or keeps `message_id` for a week.",
)


async def write_long_story(
    ledger: Ledger, tenant: str, pipeline_id: str, *, entries: int = 2_000, completed: bool = False
) -> Board:
    """Write a pipeline of at least so many entries, and twenty more at most; returns its board.

    Args:
        completed: whether it has ended in agreement; else both agents are in the middle of a turn, under a lease
            that is good for an hour.
    """
    story = _Story(ledger, Fence(tenant=tenant, pipeline_id=pipeline_id, attempt=1))
    await story.begin(clock.now() - seconds(max(entries, LEAST) * _SECONDS_AN_ENTRY))
    await story.negotiate(until=max(entries, LEAST))
    await (story.agree() if completed else story.leave_turns_open())
    return story.board


class _Story:
    """A `trilogue.deliberation.room.Room` with a clock of its own, whose agents answer without a model."""

    def __init__(self, ledger: Ledger, fence: Fence) -> None:
        self.board = Board()
        self.rules = _RULES
        self._ledger = ledger
        self._fence = fence
        self._clock: Micros = 0
        self._lock = asyncio.Lock()
        self._begun: dict[str, Draft] = {}
        self._agreeing = False

    async def begin(self, at: Micros) -> None:
        """SPAWN, RUN, REPORT, and the beginning of the round."""
        self._clock = at
        spec = PipelineSpec(objective=OBJECTIVE, labels=("long",))
        first = phases.spawned(
            spec,
            mode="openrouter",
            rehearsal=False,
            model=MODEL,
            timeout=86_400,
            agent_timeout=86_400,
            limits=_LIMITS,
        )
        fence = self._fence
        for entry in await self._ledger.spawn(fence.tenant, fence.pipeline_id, first, at=at):
            apply(self.board, entry)
        await self._ledger.claim(fence.tenant, fence.pipeline_id, owner="story", lease_seconds=3600, flow_run_id=None)
        await self.append(lambda board: phases.enlisted(board, dict.fromkeys(Role, MODEL), self._clock))
        await self.append(phases.running)
        await self.append(lambda board: _all(board, AgentStatus.RUNNING))
        for _ in range(2):
            await self._side_by_side(Phase.RUN)
        await self.append(lambda board: _all(board, AgentStatus.COMPLETED))
        await self.append(lambda board: phases.reported(board, auto_orchestrate=True))
        await self.append(lambda board: interventions.first_round(board, self._clock))

    async def negotiate(self, until: int) -> None:
        """Turns of both at the same time until there are so many entries; once GAMMA has to help."""
        while self.board.seq < until:
            if self.board.turns >= _MEDIATED_AT and not self.board.mediations:
                self._clock += seconds(_STUCK + 1)
                await mediate(self, Due(trigger=Trigger.STUCK, evidence={}))
            await self._side_by_side(Phase.ORCHESTRATE)

    async def agree(self) -> None:
        """BETA approves what ALPHA proposed, and that is the end of it."""
        self._agreeing = True
        await take_turn(self, self._agent(Role.BETA), Phase.ORCHESTRATE)
        end = round_end(self.board, self.rules)
        assert end is not None
        await self.append(lambda board: phases.concluded(board, end))

    async def leave_turns_open(self) -> None:
        def begun_again(board: Board) -> list[Draft]:
            drafts = [self._begun[agent.agent_id] for agent in board.voters()]
            return [
                replace(draft, body={**draft.body, "turn": board.turns + number, "seen": board.seq})
                for number, draft in enumerate(drafts, 1)
            ]

        await self.append(begun_again)

    async def _side_by_side(self, phase: Phase) -> None:
        await asyncio.gather(*(take_turn(self, self._agent(role), phase) for role in NEGOTIATORS))

    def _agent(self, role: Role) -> Agent:
        agent = self.board.agent_in(role)
        assert agent is not None
        return agent

    # What `take_turn` and `mediate` need of a room

    def now(self) -> Micros:
        return self._clock

    def stood_still(self, _: Micros, /) -> Micros:
        return 0

    def fault(self) -> str | None:
        return None

    async def ready(self) -> None:
        pass

    def needs(self, agent: Agent, _: str, __: Offer, /) -> Sequence[Need]:
        return [Need(models=(agent.model,), input_tokens=900, answer_tokens=1_000, price=_PRICE)]

    async def append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        async with self._lock:
            self._clock += SECOND // 10
            if drafts := build(self.board):
                for entry in await self._ledger.append(self._fence, drafts, at=self._clock):
                    apply(self.board, entry)
                    if entry.kind is Kind.TURN_BEGUN:
                        self._begun[entry.actor] = Draft(kind=entry.kind, actor=entry.actor, body=entry.body)

    async def changed(self, after: int, until: Micros | None = None) -> None:
        pass

    def model_for(self, role: Role) -> str:
        return model_of(self.board, role)

    def compose(self, *_: object) -> str:
        return ""

    async def ask(self, agent: Agent, turn: OpenTurn, _: str, offer: Offer) -> Answer:
        self._clock += seconds(0.4 + turn.turn * 7 % 10 / 10)
        tokens_in, tokens_out = 800 + turn.turn * 37 % 400, 120 + turn.turn * 53 % 300
        nanousd = _PRICE.of(tokens_in, tokens_out)
        told = None if turn.turn % 50 == 0 else nanousd
        usage = {"input_tokens": tokens_in, "output_tokens": tokens_out, "cached_tokens": 0, "estimated": False}
        fault = _FAULTS.get(turn.turn)
        return Answer(
            actions=() if fault else self._actions(agent, turn, offer),
            error=fault,
            spent={"model": agent.model, "usage": usage, "cost_nanousd": told, "calls": 1, "repaired": False},
            settled=Settlement(amount=Amount(tokens=tokens_in + tokens_out, nanousd=nanousd)),
        )

    def cut_off(self, _: OpenTurn) -> Answer:
        return Answer(spent={"calls": 1})

    # What they say

    def _actions(self, agent: Agent, turn: OpenTurn, offer: Offer) -> tuple[Action, ...]:
        number, text = turn.turn, _TEXTS[turn.turn % len(_TEXTS)]
        find = Find(
            action=ActionKind.FIND,
            title=f"What {agent.role} learned in turn {number}",
            text=text,
            evidence="read in `orders.md`",
            confidence=0.5 + number % 5 / 10,
            complexity=0.4,
        )
        propose = Propose(action=ActionKind.PROPOSE, title=f"{agent.role}'s plan of turn {number}", text=text)
        message = Message(action=ActionKind.MESSAGE, content=f"In turn {number} I looked at it again. {text}")
        if turn.phase is Phase.RUN:
            return (find,)
        if agent.role is Role.GAMMA:
            return (message, propose)
        own, others = self._latest(offer.revisable), self._latest(offer.votable)
        if self._agreeing and others:
            return (self._vote(others, "approve"),)
        match number // 2 % 6:
            case 0 if len(offer.revisable) < _PROPOSALS:
                return (propose, message)
            case 1 if others:
                critique = Critique(action=ActionKind.CRITIQUE, proposal=others.id, text=f"It lacks a number. {text}")
                return (critique, self._vote(others, "reject"))
            case 2 if own:
                title = f"{own.latest.title} again"[:80]
                return (Revise(action=ActionKind.REVISE, proposal=own.id, title=title, text=text), message)
            case 3 if ActionKind.FIND in offer.actions:
                return (find, message)
            case 5:
                return (Pass(action=ActionKind.PASS, reason="nothing new"),)
        return (message, message)

    def _latest(self, ids: Sequence[str]) -> Proposal | None:
        """The latest of these that is no mediator's, on which nobody can agree by accident."""
        known = (self.board.proposals[proposal_id] for proposal_id in reversed(ids))
        return next((proposal for proposal in known if not proposal.author.startswith("gamma")), None)

    def _vote(self, proposal: Proposal, verdict: str) -> Vote:
        reason = "It has numbers, an owner and a way back." if verdict == "approve" else "No owner is named."
        return Vote.model_validate(
            {"action": ActionKind.VOTE, "proposal": proposal.id, "verdict": verdict, "reason": reason}
        )


def _all(board: Board, status: AgentStatus) -> list[Draft]:
    return [phases.agent_status(agent.agent_id, status) for agent in board.voters()]
