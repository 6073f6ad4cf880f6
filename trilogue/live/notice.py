"""What travels on the bus, and its JSON.

A notice says that something was committed; it is no proof of it. Whoever needs the entry
itself reads the ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from trilogue.clock import Micros
from trilogue.entry import Entry

TURN_DELTA = "turn_delta"
"""The kind of a notice that bears streamed text; all others are `trilogue.entry.Kind`."""


class Signal(Enum):
    """What a subscription says about itself. Each one replaces the notices that were waiting."""

    LOST = "lost"  # no notices come until RESUMED: poll the ledger
    RESUMED = "resumed"  # notices come from here on; what came before may be missing: read the ledger
    LAGGED = "lagged"  # the reader was too slow and notices were dropped: read the ledger


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something was committed (`seq`), or a running turn produced text (`seq` is None).

    After an outage notices may come again: who counts them must look at `seq`.
    """

    pipeline_id: str
    seq: int | None
    at: Micros
    kind: str
    actor: str
    attempt: int | None
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Streamed text: from character `offset` on, the text of this turn so far is `text`.

    Offset 0 therefore begins anew, as when a call is tried again.
    """

    turn: int
    agent_id: str
    offset: int
    text: str

    def followed_by(self, later: "Delta") -> "Delta | None":
        """Both as one delta; None when there is a hole between them."""
        if later.offset < self.offset:
            return later
        kept = later.offset - self.offset
        if kept > len(self.text):
            return None
        return Delta(turn=later.turn, agent_id=later.agent_id, offset=self.offset, text=self.text[:kept] + later.text)


def plain(value: object) -> object:
    """For `json.dumps`: a read-only mapping as a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def dumps(value: object) -> str:
    """Compact JSON in ASCII: whatever a model wrote, it can be encoded."""
    return json.dumps(value, separators=(",", ":"), default=plain)


def entry_message(entry: Entry) -> str:
    """The message that announces `entry`."""
    return dumps(
        {
            "pipeline_id": entry.pipeline_id,
            "seq": entry.seq,
            "at": entry.at,
            "kind": entry.kind.value,
            "actor": entry.actor,
            "attempt": entry.attempt,
            "body": entry.body,
        }
    )


def delta_message(pipeline_id: str, delta: Delta, at: Micros) -> str:
    """The message that bears streamed text."""
    return dumps(
        {
            "pipeline_id": pipeline_id,
            "seq": None,
            "at": at,
            "kind": TURN_DELTA,
            "actor": delta.agent_id,
            "attempt": None,
            "body": {"turn": delta.turn, "agent_id": delta.agent_id, "offset": delta.offset, "text": delta.text},
        }
    )


def parse(message: str) -> Notice | None:
    """The notice that `message` holds; None when it is none of ours."""
    try:
        fields = json.loads(message)
        return Notice(
            pipeline_id=str(fields["pipeline_id"]),
            seq=None if fields["seq"] is None else int(fields["seq"]),
            at=int(fields["at"]),
            kind=str(fields["kind"]),
            actor=str(fields["actor"]),
            attempt=None if fields["attempt"] is None else int(fields["attempt"]),
            body=dict(fields["body"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def delta_of(notice: Notice) -> Delta | None:
    """The streamed text that `notice` bears, if that is what it is."""
    if notice.kind != TURN_DELTA:
        return None
    try:
        return Delta(
            turn=int(notice.body["turn"]),
            agent_id=str(notice.body["agent_id"]),
            offset=int(notice.body["offset"]),
            text=str(notice.body["text"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
