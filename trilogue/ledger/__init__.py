"""The ledger: the SQL record of everything, and the truth about every pipeline."""

from trilogue.ledger.chain import canonical, verify
from trilogue.ledger.engine import sqlite_url
from trilogue.ledger.ledger import Ledger
from trilogue.ledger.rows import (
    AgentRow,
    CheckpointRow,
    Claim,
    Fence,
    Head,
    Page,
    PipelineKey,
    PipelineRow,
    StoredError,
    UsageRow,
)

__all__ = [
    "AgentRow",
    "CheckpointRow",
    "Claim",
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
