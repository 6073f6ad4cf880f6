"""What deliberation needs from the world: the board as committed, an append, a wait, and a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from trilogue.actions import Action, Offer
from trilogue.agent import Role
from trilogue.board import Agent, Board, OpenTurn
from trilogue.clock import Micros
from trilogue.entry import Draft
from trilogue.errors import TrilogueError
from trilogue.governance.budgets import Need, Settlement
from trilogue.mediation import Thresholds, Trigger
from trilogue.pipeline import Phase


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits under which a pipeline's agents work. Durations are seconds."""

    thresholds: Thresholds
    agent_timeout: float
    fault_wait: float = 1.0
    longest_fault_wait: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a turn's call: actions or an error, and what it took.

    Attributes:
        spent: the keys `model`, `usage`, `cost_nanousd`, `calls`, `repaired` of a `turn_ended` body.
        settled: what the call is charged with; None where its outcome is unknown, which charges its reservation.
    """

    actions: tuple[Action, ...] = ()
    error: TrilogueError | None = None
    spent: Mapping[str, Any] = field(default_factory=dict)
    settled: Settlement | None = None


class Room(Protocol):
    """One attempt at one pipeline, as its agents see it."""

    board: Board
    rules: Rules

    def now(self) -> Micros:
        """The present, in microseconds UTC."""

    def stood_still(self, since: Micros, /) -> Micros:
        """How long, since then, calls were held up by their endpoint's open circuit breaker."""

    def fault(self) -> str | None:
        """What the last call to the model endpoint failed of; None where it answered."""

    async def ready(self) -> None:
        """Know what the round's models cost; called before each turn, and cheap after the first time."""

    def needs(self, agent: Agent, prompt: str, offer: Offer, /) -> Sequence[Need]:
        """What the agent's next turn would take: with its own model, then with each cheaper one that may stand in."""

    async def append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        """Append what `build` makes of the board as committed at that moment; ids come from there.

        Raises:
            Fenced: another attempt took over, or the pipeline was stopped.
            Unavailable: the ledger is out of reach.
        """

    async def changed(self, after: int, until: Micros | None = None) -> None:
        """Return when something was committed after `seq` `after`, or when `until` has come."""

    def model_for(self, role: Role) -> str:
        """The model that agents of a role call in the present round."""

    def compose(self, agent: Agent, phase: Phase, offer: Offer, trigger: Trigger | None) -> str:
        """What the agent is shown of the board as it is now, with what it may do."""

    async def ask(self, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Answer:
        """One call of the agent's model; failures come back as `Answer.error`."""

    def cut_off(self, turn: OpenTurn) -> Answer:
        """What the calls of a turn took whose `ask` was cancelled."""
