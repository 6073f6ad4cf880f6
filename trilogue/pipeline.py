"""A pipeline's phases and statuses, and which status may follow which."""

import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum

from trilogue.errors import IllegalTransition


class Phase(StrEnum):
    """The five stations of a pipeline, in order."""

    SPAWN = "SPAWN"
    RUN = "RUN"
    REPORT = "REPORT"
    ORCHESTRATE = "ORCHESTRATE"
    COMPLETE = "COMPLETE"


class Status(StrEnum):
    """Where a pipeline is now (DESIGN section 3)."""

    SPAWNED = "SPAWNED"
    RUNNING = "RUNNING"
    REPORT = "REPORT"
    ORCHESTRATING = "ORCHESTRATING"
    COMPLETED = "COMPLETED"
    TIMEOUT = "TIMEOUT"
    ORCHESTRATION_FAILED = "ORCHESTRATION_FAILED"
    ORCHESTRATION_ERROR = "ORCHESTRATION_ERROR"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def ended(self) -> bool:
        """Whether no worker acts for the pipeline any more (it may still be taken up again)."""
        return self in ENDED

    @property
    def continuable(self) -> bool:
        """Whether `continue` may begin another round."""
        return Status.ORCHESTRATING in LEGAL[self] and self is not Status.ORCHESTRATING


ENDED = frozenset(
    {
        Status.COMPLETED,
        Status.TIMEOUT,
        Status.ORCHESTRATION_FAILED,
        Status.ORCHESTRATION_ERROR,
        Status.FAILED,
        Status.STOPPED,
    }
)

LEGAL: Mapping[Status, frozenset[Status]] = {
    Status.SPAWNED: frozenset({Status.RUNNING, Status.FAILED, Status.STOPPED}),
    Status.RUNNING: frozenset({Status.REPORT, Status.FAILED, Status.STOPPED}),
    Status.REPORT: frozenset({Status.ORCHESTRATING, Status.STOPPED}),
    Status.ORCHESTRATING: frozenset(
        {
            Status.COMPLETED,
            Status.TIMEOUT,
            Status.ORCHESTRATION_FAILED,
            Status.ORCHESTRATION_ERROR,
            Status.FAILED,
            Status.STOPPED,
        }
    ),
    Status.COMPLETED: frozenset(),
    Status.TIMEOUT: frozenset({Status.ORCHESTRATING}),
    Status.ORCHESTRATION_FAILED: frozenset({Status.ORCHESTRATING}),
    Status.ORCHESTRATION_ERROR: frozenset({Status.ORCHESTRATING}),
    Status.FAILED: frozenset(),
    Status.STOPPED: frozenset(),
}
"""What may follow by the pipeline's own course or by `continue`. FAILED and STOPPED are left
only by `resume`, back into the status of the phase they were in (`status_in`)."""

_STATUS_IN = {
    Phase.SPAWN: Status.SPAWNED,
    Phase.RUN: Status.RUNNING,
    Phase.REPORT: Status.REPORT,
    Phase.ORCHESTRATE: Status.ORCHESTRATING,
    Phase.COMPLETE: Status.ORCHESTRATING,
}


def status_in(phase: Phase) -> Status:
    """The status of a pipeline that is at work in `phase`; where `resume` leads back to."""
    return _STATUS_IN[phase]


def check_transition(present: Status, wanted: Status) -> None:
    """Raise `IllegalTransition` unless `wanted` may follow `present`."""
    if wanted not in LEGAL[present]:
        legal = ", ".join(sorted(LEGAL[present]))
        then = f"; what may follow: {legal}" if legal else ", for it has ended"
        raise IllegalTransition(f"a pipeline that is {present} cannot become {wanted}{then}")


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 12


def new_pipeline_id() -> str:
    """A fresh id such as `p-7k3m9q2xw4bd`: 60 random bits in Crockford's base 32."""
    return "p-" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


def pipeline_id_for(flow_run_id: str) -> str:
    """The id of the pipeline that a flow run starts by itself: the same for the same run, so a rerun finds it."""
    digest = hashlib.sha256(flow_run_id.encode()).digest()
    return "p-" + "".join(_ALPHABET[byte & 31] for byte in digest[:_ID_LENGTH])
