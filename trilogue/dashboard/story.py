"""What a pipeline's entries tell a page: the board, and every turn with its times, calls and words.

The same fold live and in replay: `Story.told(entries[:seq])` is the page as it stood then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from trilogue.board import Board, apply
from trilogue.clock import Micros
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Phase


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn, as it stands or ended.

    Attributes:
        said: the entries that its actions became, in order.
        seq: of its latest entry.
        outcome: as `trilogue.deliberation.turns` names them; None while the turn is under way.
        calls: of its model, as far as somebody told.
        tokens: that it was charged with; None while it is under way.
        cost_nanousd: billionths of a dollar; None where nobody knows, which is not nothing.
        error: why it brought nothing, for people.
        undone: whether what it said was taken back by going on from an earlier checkpoint.
    """

    number: int
    agent_id: str
    phase: Phase
    round: int
    model: str
    begun_at: Micros
    seq: int
    said: tuple[Entry, ...] = ()
    ended_at: Micros | None = None
    outcome: str | None = None
    calls: int = 0
    tokens: int | None = None
    cost_nanousd: int | None = None
    estimated: bool = False
    error: str | None = None
    notes: tuple[str, ...] = ()
    undone: bool = False


@dataclass(kw_only=True)
class Story:
    """A pipeline up to `board.seq`; `turns` are by number."""

    board: Board = field(default_factory=Board)
    entries: list[Entry] = field(default_factory=list)
    turns: dict[int, Turn] = field(default_factory=dict)

    @classmethod
    def told(cls, entries: Iterable[Entry]) -> Self:
        """The story of a pipeline whose entries, from its first one on, are given."""
        story = cls()
        for entry in entries:
            story.add(entry)
        return story

    def add(self, entry: Entry) -> None:
        """Go on by the next entry. Raises `ValueError` when it does not follow."""
        apply(self.board, entry)
        self.entries.append(entry)
        match entry.kind:
            case Kind.TURN_BEGUN:
                self._begin(entry, entry.body)
            case Kind.TURN_ENDED:
                self._end(entry, entry.body)
            case Kind.STATUS | Kind.REWOUND:
                self._break_off(entry)
            case _ if (turn := self.turns.get(entry.body.get("turn", 0))) and turn.agent_id == entry.actor:
                self.turns[turn.number] = replace(turn, said=(*turn.said, entry), seq=entry.seq)

    def copy(self) -> Self:
        """A story that goes its own way; what it has told so far is frozen and shared."""
        board = self.board.forked()
        board.snapshots = dict(self.board.snapshots)
        return replace(self, board=board, entries=list(self.entries), turns=dict(self.turns))

    @property
    def created_at(self) -> Micros:
        return self.entries[0].at if self.entries else 0

    @property
    def ended_at(self) -> Micros | None:
        """When the pipeline came to the end that it is at."""
        return self.board.phases[-1].ended_at if self.board.phases and self.board.status.ended else None

    def _begin(self, entry: Entry, body: Mapping[str, Any]) -> None:
        self.turns[body["turn"]] = Turn(
            number=body["turn"],
            agent_id=body["agent_id"],
            phase=Phase(body["phase"]),
            round=body["round"],
            model=body["model"],
            begun_at=entry.at,
            seq=entry.seq,
        )

    def _end(self, entry: Entry, body: Mapping[str, Any]) -> None:
        turn = self.turns.get(body["turn"])
        if turn is None:
            return
        error, settled = body.get("error"), body.get("settled") or {}
        self.turns[turn.number] = replace(
            turn,
            seq=entry.seq,
            model=body.get("model") or turn.model,
            ended_at=turn.ended_at or entry.at,
            outcome=body["outcome"],
            calls=body.get("calls", 0),
            tokens=settled.get("tokens"),
            cost_nanousd=body.get("cost_nanousd"),
            estimated=bool(settled.get("estimated")),
            error=error["message"] if error else None,
            notes=tuple(body.get("notes", ())),
        )

    def _break_off(self, entry: Entry) -> None:
        """Nothing goes on beyond a pipeline's end; what became of its turns is told later, if ever."""
        if entry.kind is Kind.STATUS and not self.board.status.ended:
            return
        for turn in self.turns.values():
            if turn.ended_at is None:
                self.turns[turn.number] = replace(turn, ended_at=entry.at, outcome="cancelled", estimated=True)
        if entry.kind is Kind.REWOUND:
            then = self.entries[entry.body["to_seq"] - 1].at
            for turn in self.turns.values():
                self.turns[turn.number] = replace(turn, undone=turn.undone or turn.begun_at > then)
