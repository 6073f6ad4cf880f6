"""An agent's error budget: when its errors revoke it (DESIGN section 3, first level of recovery)."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """How many errors an agent may make in a round before it is revoked."""

    in_all: int = 8
    of_one_fingerprint: int = 2
    violations: int = 1


def fingerprint(code: str, message: str) -> str:
    """Errors alike have one fingerprint: the code and the message without its quoted values and numbers, and without
    the advice behind a semicolon, which names what may be done on the board as it was."""
    normal = _VARIABLE.sub("…", message).partition(";")[0]
    return f"{code}:{hashlib.sha256(normal.encode()).hexdigest()[:12]}"


def breach(*, faults: Sequence[str], violated: bool, budget: ErrorBudget) -> str | None:
    """Why these errors revoke an agent, in one sentence; None while they do not."""
    if violated and budget.violations <= 1:
        return "a procedure violation"
    if len(faults) >= budget.in_all:
        return f"{len(faults)} errors"
    fault, count = max(Counter(faults).items(), key=lambda item: item[1], default=("", 0))
    if count >= budget.of_one_fingerprint:
        return f"{count} errors of one kind ({fault.split(':')[0]})"
    return None
