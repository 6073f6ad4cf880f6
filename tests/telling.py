"""Stories told entry by entry, each at a second of its own: what a page's parts are given in tests."""

from collections.abc import Sequence
from typing import Any

from trilogue import interventions, phases
from trilogue.agent import ErrorBudget, Role
from trilogue.board import Board
from trilogue.clock import SECOND, Micros, seconds
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import GENESIS, SYSTEM, Draft, Entry, Kind
from trilogue.ledger import PipelineRow
from trilogue.limits import Limits
from trilogue.money import USD
from trilogue.pipeline import Phase, Status
from trilogue.spec import PipelineSpec, RoundSpec

BEGAN: Micros = 1_750_000_000 * SECOND
MODEL = "anthropic/claude-sonnet-4"
PIPELINE = "p-told"
LIMITS = Limits(max_tokens=10_000, max_nanousd=USD, errors=ErrorBudget(in_all=8, alike=2, violations=1), replacements=0)


class Teller:
    """A pipeline in RUN at second 0, on which a test goes on; every `after` counts seconds from there."""

    def __init__(self, *, limits: Limits = LIMITS, timeout: float = 120) -> None:
        self.story = Story()
        spec = PipelineSpec(objective="Choose a queue")
        first = phases.spawned(
            spec, mode="openrouter", rehearsal=False, model=MODEL, timeout=timeout, agent_timeout=120, limits=limits
        )
        self.tell(0, first)
        self.tell(0, phases.enlisted(self.board, dict.fromkeys(Role, MODEL), BEGAN))
        self.tell(0, phases.running(self.board))

    @property
    def board(self) -> Board:
        return self.story.board

    def tell(self, after: float, drafts: Sequence[Draft]) -> None:
        """Entries as the ledger would give them back."""
        for draft in drafts:
            seq = self.story.board.seq + 1
            entry = Entry(
                tenant="default",
                pipeline_id=PIPELINE,
                seq=seq,
                attempt=1,
                kind=draft.kind,
                actor=draft.actor,
                at=at(after),
                body=draft.body,
                prev_hash=GENESIS,
                hash=GENESIS,
            )
            self.story.add(entry)

    def say(self, after: float, kind: Kind, actor: str = SYSTEM, /, **body: Any) -> None:
        self.tell(after, [Draft(kind=kind, actor=actor, body=body)])

    def begin(self, after: float, agent_id: str, *, reserved: int = 1_000, nanousd: int = 0) -> int:
        """A turn begins; its number."""
        board = self.board
        number = board.turns + 1
        body = {
            "turn": number,
            "agent_id": agent_id,
            "phase": board.phase.value,
            "round": board.round.number if board.round else 0,
            "seen": board.seq,
            "model": MODEL,
            "fallbacks": [],
            "max_tokens": 500,
            "reserved": {"tokens": reserved, "cost_nanousd": nanousd},
        }
        self.tell(after, [Draft(kind=Kind.TURN_BEGUN, actor=agent_id, body=body)])
        return number

    def end(
        self,
        after: float,
        number: int,
        outcome: str = "acted",
        *,
        tokens: int = 100,
        cost: int | None = 0,
        estimated: bool = False,
        calls: int = 1,
        model: str = MODEL,
    ) -> None:
        """A turn ends; `cost` None where nobody told it, and nothing is charged."""
        turn = self.board.open_turns[number]
        error = {"code": outcome, "message": f"it was {outcome}", "fingerprint": f"{outcome}:1"}
        settled = {"tokens": tokens, "cost_nanousd": cost or 0, "estimated": estimated}
        self.say(
            after,
            Kind.TURN_ENDED,
            turn.agent_id,
            turn=number,
            agent_id=turn.agent_id,
            outcome=outcome,
            model=model,
            usage=None,
            calls=calls,
            cost_nanousd=cost,
            reserved=turn.reserved.as_json(),
            settled=settled,
            actions=[],
            notes=[],
            error=None if outcome in {"acted", "cancelled", "lost"} else error,
        )

    def turn(self, begun: float, ended: float, agent_id: str = "alpha-1", outcome: str = "acted", **ending: Any) -> int:
        """A whole turn; its number."""
        number = self.begin(begun, agent_id)
        self.end(ended, number, outcome, **ending)
        return number

    def find(self, after: float) -> None:
        """The least that there is to negotiate."""
        finding = {"id": "f1", "title": "A", "text": "B", "evidence": "C", "confidence": 0.5, "complexity": 0.1}
        self.say(after, Kind.FINDING, "alpha-1", **finding, turn=0)

    def report(self, after: float) -> None:
        self.find(after)
        self.tell(after, phases.reported(self.board, auto_orchestrate=True))

    def round(self, after: float, **asked: Any) -> None:
        """A round begins: from REPORT, or by a person's `continue`."""
        board, now = self.board, at(after)
        models = dict.fromkeys(Role, MODEL)
        timeout = board.spec["timeout"]
        drafts = interventions.round_begun(
            board, now, models, asked=RoundSpec(**asked), mode="openrouter", rehearsal=False, timeout=timeout
        )
        self.tell(after, drafts)

    def status(self, after: float, status: Status, message: str = "") -> None:
        error = {"code": status.lower(), "message": message} if message else None
        self.say(after, Kind.STATUS, status=status.value, error=error)

    def stop(self, after: float, reason: str = "") -> None:
        board = self.board
        round_ = board.round.number if board.round else 0
        drafts = interventions.stopped(
            status=board.status, phase=board.phase, round_=round_, head_seq=board.seq, reason=reason
        )
        self.tell(after, drafts)

    def scene(self, now: float = 0, *, leased: bool = False, **more: Any) -> Scene:
        """The present, at second `now`; `leased` while a worker acts for the pipeline."""
        return Scene(story=self.story, row=row_of(self.board, at(now), leased=leased), now=at(now), **more)


def at(after: float) -> Micros:
    return BEGAN + seconds(after)


def row_of(board: Board, now: Micros, *, leased: bool = False) -> PipelineRow:
    """The ledger's row of a pipeline whose board this is."""
    return PipelineRow(
        tenant="default",
        pipeline_id=PIPELINE,
        project=None,
        external_id=None,
        spec=board.spec,
        status=board.status,
        phase=board.phase if board.phases else Phase.SPAWN,
        round=board.round.number if board.round else 0,
        attempt=1,
        head_seq=board.seq,
        head_hash=GENESIS,
        flow_run_id=None,
        lease_owner="worker" if leased else None,
        lease_until=now + 15 * SECOND if leased else None,
        stop_requested_at=None,
        orchestration_started_at=None,
        deadline_at=board.round.deadline if board.round else None,
        error=None,
        ended_at=None,
        created_at=BEGAN,
        updated_at=now,
        queued_at=None,
        released_at=None if leased else now,
        read_at=now,
    )
