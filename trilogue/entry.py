"""Entries: the immutable lines of which the ledger consists.

A `Draft` is an entry before the ledger gave it its place; `Kind` says what it
records. Everything else (board, tables of pipelines, agents, usage and
checkpoints, events, log lines) is derived from entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from trilogue.clock import Micros

SYSTEM = "system"
"""The actor of what Trilogue itself records; agents act under their agent id, people as `person`."""
PERSON = "person"

GENESIS = "0" * 64
"""`prev_hash` of a pipeline's first entry."""


class Kind(StrEnum):
    """What an entry records, and the keys of its body."""

    PIPELINE_SPAWNED = "pipeline_spawned"  # objective, mode, model, models, rehearsal, timeout, agent_timeout, ...
    CONTEXT = "context"  # name, text, sha256
    PHASE_STARTED = "phase_started"  # phase
    STATUS = "status"  # status, error: {code, message} | null
    AGENT_SPAWNED = "agent_spawned"  # agent_id, role, tier, runtime, model
    MANDATE = "mandate"  # agent_id, role, tier, actions, tokens | null, errors, expires_at
    AGENT_STATUS = "agent_status"  # agent_id, status, reason
    TURN_BEGUN = "turn_begun"  # turn, agent_id, phase, round, seen, model, fallbacks, max_tokens, reserved
    TURN_ENDED = "turn_ended"  # turn, agent_id, outcome, usage, cost_nanousd, reserved, settled, actions, notes, error
    BUDGET = "budget"  # scope, agent_id, of, limit, spent, percent, verdict, message
    FINDING = "finding"  # id, title, text, evidence, confidence, complexity, turn
    PROPOSAL = "proposal"  # id, title, text, turn
    CRITIQUE = "critique"  # id, proposal, revision, text, turn
    REVISION = "revision"  # proposal, revision, title, text, turn
    VOTE = "vote"  # proposal, revision, verdict, reason, turn
    SOLUTION = "solution"  # id, title, text, subtask, turn
    MESSAGE = "message"  # id, to, content, turn
    RULING = "ruling"  # mediation, trigger, proposal, revision, outcome, title, text, reason, turn
    SUBTASK = "subtask"  # id, title, text, assignee, turn
    VIOLATION = "violation"  # agent_id, action, reason, turn
    HANDOFF = "handoff"  # agent_id, role, to, reason, done, open_proposals, unanswered, errors, next
    FAILURE = "failure"  # agent_id | null, code, message
    REPORT = "report"  # markdown, findings, complexity, continuation
    ROUND_STARTED = "round_started"  # round, mode, model, timeout, deadline, reason
    GUIDANCE = "guidance"  # text
    MEDIATION_STARTED = "mediation_started"  # mediation, trigger, evidence
    MEDIATION_ENDED = "mediation_ended"  # mediation, trigger, outcome
    STOPPED = "stopped"  # reason
    RESUMED = "resumed"  # reason, from, deadline | null
    REWOUND = "rewound"  # to_seq, checkpoint, reason, status, phase, round, deadline, error, agents, gone
    CONSENSUS = "consensus"  # proposal_id, revision, title, text, votes, decided_by, dissent, uncontested
    CHECKPOINT = "checkpoint"  # name, to_seq, status, phase, round, details


NEWS = frozenset(
    {
        Kind.FINDING,
        Kind.PROPOSAL,
        Kind.CRITIQUE,
        Kind.REVISION,
        Kind.VOTE,
        Kind.SOLUTION,
        Kind.MESSAGE,
        Kind.RULING,
        Kind.SUBTASK,
        Kind.HANDOFF,
        Kind.GUIDANCE,
    }
)
"""What ends an agent's waiting, when somebody else committed it."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An entry that wants to be appended.

    Attributes:
        body: JSON values only; no secret ever.
    """

    kind: Kind
    actor: str = SYSTEM
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        seq: 1, 2, 3, … within the pipeline, without gaps.
        at: microseconds UTC.
        prev_hash, hash: lowercase hex SHA-256; `trilogue.ledger.chain` says over what.
    """

    tenant: str
    pipeline_id: str
    seq: int
    attempt: int
    kind: Kind
    actor: str
    at: Micros
    body: Mapping[str, Any]
    prev_hash: str
    hash: str
