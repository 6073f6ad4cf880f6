"""A pipeline's course through its phases and rounds, as it went: also what a rewinding made undone on the board."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from trilogue.clock import Micros
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Phase, Status

MarkKind = Literal["continue", "stop", "resume", "rewind", "replacement", "end"]

_TOLD = frozenset(
    {
        Kind.PHASE_STARTED,
        Kind.STATUS,
        Kind.ROUND_STARTED,
        Kind.RESUMED,
        Kind.REWOUND,
        Kind.STOPPED,
        Kind.AGENT_SPAWNED,
        Kind.MEDIATION_STARTED,
        Kind.MEDIATION_ENDED,
    }
)


@dataclass(frozen=True, kw_only=True)
class Band:
    """A phase from its start to its end; `ended_at` None while the pipeline is in it."""

    phase: Phase
    round: int
    started_at: Micros
    ended_at: Micros | None = None


@dataclass(frozen=True, kw_only=True)
class Mediated:
    """A mediation from its trigger to its outcome; None while it is under way."""

    number: int
    trigger: str
    started_at: Micros
    ended_at: Micros | None = None
    outcome: str | None = None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment at which something came from outside a pipeline's own course, or ended it; `said` for people."""

    kind: MarkKind
    at: Micros
    said: str


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """Until when a round may last, and until when it did; None while it is under way."""

    round: int
    at: Micros
    ended_at: Micros | None = None


class Course:
    """What the entries of a pipeline tell of its course.

    Attributes:
        bands: one after the other, without overlaps.
        deadlines: one a round, as it was set last.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.bands: list[Band] = []
        self.mediations: list[Mediated] = []
        self.marks: list[Mark] = []
        self.deadlines: list[Deadline] = []
        for entry in entries:
            if entry.seq == 1:
                self.bands.append(Band(phase=Phase.SPAWN, round=0, started_at=entry.at))
            elif entry.kind in _TOLD:
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        at, body = entry.at, entry.body
        match entry.kind:
            case Kind.PHASE_STARTED:
                self._break_off(at, rounds=False)
                number = self.deadlines[-1].round if self.deadlines else 0
                self.bands.append(Band(phase=Phase(body["phase"]), round=number, started_at=at))
            case Kind.STATUS if (status := Status(body["status"])).ended:
                self._break_off(at)
                if status is not Status.STOPPED:
                    error = body.get("error")
                    self._mark("end", at, f"{status}: {error['message']}" if error else status.value)
            case Kind.ROUND_STARTED:
                self._round(at, body["round"], body["deadline"], body["reason"])
            case Kind.RESUMED:
                if self.deadlines and body["deadline"]:
                    self.deadlines[-1] = replace(self.deadlines[-1], at=body["deadline"], ended_at=None)
                self._mark("resume", at, _because("resumed", body["reason"]))
            case Kind.REWOUND:
                self._break_off(at)
                self._mark("rewind", at, _because(f"rewound to checkpoint {body['checkpoint']}", body["reason"]))
                if not Status(body["status"]).ended:
                    self.bands.append(Band(phase=Phase(body["phase"]), round=body["round"], started_at=at))
                    if body["deadline"]:
                        self.deadlines.append(Deadline(round=body["round"], at=body["deadline"]))
            case Kind.STOPPED:
                self._mark("stop", at, _because("stopped", body["reason"]))
            case Kind.AGENT_SPAWNED if body.get("reason") == "replacement":
                self._mark("replacement", at, f"{body['agent_id']} takes over as {body['role']}")
            case Kind.MEDIATION_STARTED:
                started = Mediated(number=body["mediation"], trigger=body["trigger"], started_at=at)
                self.mediations.append(started)
            case Kind.MEDIATION_ENDED:
                self._mediated(at, body["mediation"], body["outcome"])

    def _round(self, at: Micros, number: int, deadline: Micros, reason: str) -> None:
        if self.bands[-1].phase is Phase.ORCHESTRATE:  # which started in the same commit, before its round
            self.bands[-1] = replace(self.bands[-1], round=number)
        if number > 1:
            self._mark("continue", at, _because(f"continued as round {number}", reason))
        self.deadlines.append(Deadline(round=number, at=deadline))

    def _mediated(self, at: Micros, number: int, outcome: str | None) -> None:
        self.mediations = [
            replace(m, ended_at=at, outcome=outcome) if m.number == number and m.ended_at is None else m
            for m in self.mediations
        ]

    def _break_off(self, at: Micros, *, rounds: bool = True) -> None:
        """Whatever is under way goes on no longer; with `rounds=False` only the present phase ends."""
        if self.bands and self.bands[-1].ended_at is None:
            self.bands[-1] = replace(self.bands[-1], ended_at=at)
        if not rounds:
            return
        if self.deadlines and self.deadlines[-1].ended_at is None:
            self.deadlines[-1] = replace(self.deadlines[-1], ended_at=at)
        if self.mediations and self.mediations[-1].ended_at is None:
            self.mediations[-1] = replace(self.mediations[-1], ended_at=at)

    def _mark(self, kind: MarkKind, at: Micros, said: str) -> None:
        self.marks.append(Mark(kind=kind, at=at, said=said))


def _because(what: str, reason: str | None) -> str:
    return f"{what}: {reason}" if reason else what
