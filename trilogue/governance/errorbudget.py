"""An agent's error budget: when its errors revoke it (DESIGN section 3, first level of recovery)."""

import hashlib
import re
from collections import Counter

from trilogue.agent import ErrorBudget
from trilogue.board import Agent

_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


def fingerprint(code: str, message: str) -> str:
    """Errors alike have one fingerprint: the code and the message without its quoted values and numbers, and without
    the advice behind a semicolon, which names what may be done on the board as it was."""
    normal = _VARIABLE.sub("…", message).partition(";")[0]
    return f"{code}:{hashlib.sha256(normal.encode()).hexdigest()[:12]}"


def breach(agent: Agent, budget: ErrorBudget) -> str | None:
    """Why an agent's errors revoke it, in one sentence; None while they do not.

    An outage of its endpoint counts once however long it lasts, and only towards the errors in all:
    that it comes again is not the agent's doing.
    """
    if agent.violations >= budget.violations:
        return "a procedure violation" if agent.violations == 1 else f"{agent.violations} procedure violations"
    if (errors := len(agent.faults) + agent.outages) >= budget.in_all:
        return f"{errors} errors"
    fault, count = max(Counter(agent.faults).items(), key=lambda item: item[1], default=("", 0))
    if count >= budget.alike:
        return f"{count} errors of one kind ({fault.split(':')[0]})"
    return None
