"""The marks above the replay's slider: where phases began, and who proposed, ruled or stopped when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trilogue.api.loglines import line
from trilogue.dashboard.scene import Scene
from trilogue.entry import Entry, Kind
from trilogue.pipeline import Phase, Status

MOST_MARKS = 80
"""The latest of what was proposed; everything else is few, and always marked."""
_ENDLESS = 10**7
"""The last phase goes on as far as the strip is wide."""

_TONES: Mapping[Kind, str] = {
    Kind.ROUND_STARTED: "busy",
    Kind.MEDIATION_STARTED: "gamma",
    Kind.RULING: "gamma",
    Kind.GUIDANCE: "held",
    Kind.HANDOFF: "bad",
    Kind.CONSENSUS: "fine",
    Kind.STOPPED: "stopped",
    Kind.RESUMED: "held",
    Kind.REWOUND: "held",
}
_SAID = {Kind.PROPOSAL: "proposes", Kind.REVISION: "revises"}
_ENDS: Mapping[str, str] = {
    Status.TIMEOUT.value: "held",
    Status.ORCHESTRATION_FAILED.value: "bad",
    Status.ORCHESTRATION_ERROR.value: "bad",
    Status.FAILED.value: "bad",
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One moment worth finding: `tall` ones are more than one of many."""

    seq: int
    tone: str
    words: str
    tall: bool = True


@dataclass(frozen=True, kw_only=True)
class Band:
    """One phase, from its first entry on; `width` in entries."""

    phase: Phase
    seq: int
    width: int


def shown(scene: Scene) -> Mapping[str, Any]:
    """Marks and bands of the whole pipeline, also while an earlier moment is shown."""
    entries = scene.whole or scene.story.entries
    marks = _marks(entries)
    said = [mark for mark in marks if not mark.tall]
    latest = set(said[-MOST_MARKS:])
    return {
        "marks": [mark for mark in marks if mark.tall or mark in latest],
        "left_out": len(said) - len(latest),
        "bands": _bands(entries),
    }


def told(entry: Entry, role: str | None) -> str:
    """What happened at an entry, and in which role somebody did it, in one line."""
    return f"{role} · {line(entry).message}" if role else line(entry).message


def _marks(entries: Sequence[Entry]) -> list[Mark]:
    roles, marks = dict[str, str](), list[Mark]()
    for entry in entries:
        body = entry.body
        match entry.kind:
            case Kind.AGENT_SPAWNED:
                roles[body["agent_id"]] = body["role"]
            case Kind.PROPOSAL | Kind.REVISION:
                role = roles.get(entry.actor, "")
                which = body["id"] if entry.kind is Kind.PROPOSAL else body["proposal"]
                words = f"{role} {_SAID[entry.kind]} {which}: {body['title']}"
                marks.append(Mark(seq=entry.seq, tone=role.lower() or "idle", words=words, tall=False))
            case Kind.PHASE_STARTED:
                marks.append(Mark(seq=entry.seq, tone="idle", words=f"{body['phase']} begins"))
            case Kind.STATUS if body["status"] in _ENDS:
                marks.append(Mark(seq=entry.seq, tone=_ENDS[body["status"]], words=line(entry).message))
            case kind if kind in _TONES:
                marks.append(Mark(seq=entry.seq, tone=_TONES[kind], words=told(entry, roles.get(entry.actor))))
    return marks


def _bands(entries: Sequence[Entry]) -> list[Band]:
    begun = [(Phase.SPAWN, 1)]
    begun += [(Phase(entry.body["phase"]), entry.seq) for entry in entries if entry.kind is Kind.PHASE_STARTED]
    ends = [seq for _, seq in begun[1:]] + [_ENDLESS]
    return [Band(phase=phase, seq=seq, width=end - seq) for (phase, seq), end in zip(begun, ends, strict=True)]
