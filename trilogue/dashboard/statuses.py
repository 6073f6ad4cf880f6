"""How a pipeline stands, in one tone and a few words: the same on every page."""

from dataclasses import dataclass
from typing import Literal

from trilogue.dashboard.scene import Scene
from trilogue.ledger import PipelineRow
from trilogue.pipeline import Status

Tone = Literal["fine", "busy", "held", "bad", "stopped", "idle"]
"""A class of `style.css`."""

_PLAIN: dict[Status, tuple[Tone, str]] = {
    Status.SPAWNED: ("idle", "Spawned"),
    Status.RUNNING: ("busy", "Running"),
    Status.REPORT: ("held", "Report"),
    Status.ORCHESTRATING: ("busy", "Orchestrating"),
    Status.COMPLETED: ("fine", "Completed"),
    Status.TIMEOUT: ("held", "Timed out"),
    Status.ORCHESTRATION_FAILED: ("bad", "Orchestration failed"),
    Status.ORCHESTRATION_ERROR: ("bad", "Orchestration error"),
    Status.FAILED: ("bad", "Failed"),
    Status.STOPPED: ("stopped", "Stopped"),
}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What `templates/status.html` shows.

    Attributes:
        word: the status.
        note: what else must be known, such as that no worker acts for it.
        live: whether somebody acts for the pipeline at this moment.
    """

    status: Status
    tone: Tone
    word: str
    note: str | None = None
    live: bool = False


def plain(status: Status) -> Standing:
    """A status by itself, such as one of the past, when nobody can tell who acted for the pipeline."""
    tone, word = _PLAIN[status]
    return Standing(status=status, tone=tone, word=word)


def standing(row: PipelineRow, status: Status | None = None) -> Standing:
    """How a pipeline stands now; `status` where its entries tell of a later one than its row."""
    status = status or row.status
    tone, word = _PLAIN[status]
    note: str | None = None
    waits = row.queued_at is not None
    live = row.leased and not status.ended
    if status.ended:
        note = "the last calls are being ended" if row.still_since is None and row.status.ended else None
    elif row.orphaned:
        tone, note = "bad", "no worker acts for it"
    elif live:
        tone, note = "busy", "going on" if status is Status.REPORT else None
    elif waits:
        note = "waiting for a worker"
    elif status is Status.REPORT:
        note = "held"
    elif status is Status.SPAWNED:
        note = "no worker acts for it"
    return Standing(status=status, tone=tone, word=word, note=note, live=live)


def standing_in(scene: Scene) -> Standing:
    """How the pipeline of a page stands, or stood."""
    status = scene.story.board.status
    return plain(status) if scene.replay else standing(scene.row, status)
