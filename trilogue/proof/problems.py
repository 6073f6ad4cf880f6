"""What is not whole, and where: the first place of each pipeline or chain of anchors."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class UnreadableError(ValueError):
    """A file that is not what it should be: garbage, cut off, of another version. Says where and what to do."""


class What(StrEnum):
    """What became of a place in the record."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    OUT_OF_ORDER = "out_of_order"
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    HEAD_CHANGED = "head_changed"
    PIPELINE_MISSING = "pipeline_missing"
    ANCHOR_CHANGED = "anchor_changed"
    ANCHOR_MISSING = "anchor_missing"
    ANCHOR_TRUNCATED = "anchor_truncated"
    ANCHOR_REPLACED = "anchor_replaced"
    ANCHOR_FORGED = "anchor_forged"
    ANCHOR_UNTRUSTED = "anchor_untrusted"
    COPY_CHANGED = "copy_changed"
    BUNDLE_CHANGED = "bundle_changed"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not whole.

    Attributes:
        seq: the first entry that it concerns; None where it is about an anchor.
        anchor: the `seq` of the anchor that it is about, or that shows it.
        message: for people.
    """

    what: What
    message: str
    tenant: str
    pipeline_id: str | None = None
    seq: int | None = None
    anchor: int | None = None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "what": self.what.value}
