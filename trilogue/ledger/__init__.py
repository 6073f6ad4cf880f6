"""The ledger: the SQL record of everything, and the truth about every pipeline.

Rows are plain values and light to import. What opens a database is not, and is imported when
it is first asked for: commands that talk to a server know rows only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trilogue.ledger.rows import (
    AgentRow,
    CheckpointRow,
    Claim,
    Cost,
    DeliveryPage,
    DeliveryRow,
    DeliveryStatus,
    Fence,
    Head,
    Page,
    PipelineKey,
    PipelineRow,
    StoredError,
    UsageRow,
)

if TYPE_CHECKING:
    from trilogue.ledger.chain import canonical, verify
    from trilogue.ledger.engine import sqlite_url
    from trilogue.ledger.ledger import Ledger

_LATE = {
    "Ledger": "trilogue.ledger.ledger",
    "canonical": "trilogue.ledger.chain",
    "sqlite_url": "trilogue.ledger.engine",
    "verify": "trilogue.ledger.chain",
}

__all__ = [
    "AgentRow",
    "CheckpointRow",
    "Claim",
    "Cost",
    "DeliveryPage",
    "DeliveryRow",
    "DeliveryStatus",
    "Fence",
    "Head",
    "Ledger",
    "Page",
    "PipelineKey",
    "PipelineRow",
    "StoredError",
    "UsageRow",
    "canonical",
    "sqlite_url",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
