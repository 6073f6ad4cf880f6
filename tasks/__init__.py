"""Thin Prefect tasks: names, retries, timeouts, artifacts and events around what `trilogue` does.

The flows use what is re-exported here.
"""

from tasks.agents import negotiation, research
from tasks.naming import run_name
from tasks.options import FLOW_OPTIONS
from tasks.phases import begin_round, complete, report, spawn
from tasks.session import continued, started
from tasks.upkeep import (
    anchor,
    end_overdue,
    expire_boards,
    kept_up,
    maintaining,
    outcome_of,
    prune_checkpoints,
    take_up,
)

__all__ = [
    "FLOW_OPTIONS",
    "anchor",
    "begin_round",
    "complete",
    "continued",
    "end_overdue",
    "expire_boards",
    "kept_up",
    "maintaining",
    "negotiation",
    "outcome_of",
    "prune_checkpoints",
    "report",
    "research",
    "run_name",
    "spawn",
    "started",
    "take_up",
]
