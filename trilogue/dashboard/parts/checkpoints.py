"""The checkpoints: what they are, which two to compare, and whether the pipeline may go on from them."""

from collections.abc import Mapping
from typing import Any, Final

from trilogue.dashboard.possible import no_rewind
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.statuses import plain
from trilogue.entry import Kind
from trilogue.pipeline import Status

MOST_SHOWN: Final = 50
"""Each round, stop and failure leaves one; the latest are shown, and the first of all to compare with."""


def shown(scene: Scene) -> Mapping[str, Any]:
    """Oldest first; by default the last two are compared."""
    every = [entry for entry in scene.story.entries if entry.kind is Kind.CHECKPOINT]
    stopped = scene.story.board.status is Status.STOPPED
    latest = every[-MOST_SHOWN:]
    items = [
        {
            "name": entry.body["name"],
            "seq": entry.body["to_seq"],
            "standing": plain(Status(entry.body["status"])),
            "phase": entry.body["phase"],
            "round": entry.body["round"],
            "at": entry.at,
            "obstacle": no_rewind(scene, entry.body["to_seq"]),
            "reason_needed": stopped or entry.body["status"] == Status.STOPPED.value,
        }
        for entry in (latest if len(every) <= MOST_SHOWN else [every[0], *latest[1:]])
    ]
    chosen = [item["seq"] for item in items[-2:]] if len(items) > 1 else [None, None]
    return {"items": items, "left_out": len(every) - len(items), "first": chosen[0], "second": chosen[1]}
