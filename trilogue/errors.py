"""Every error Trilogue raises on purpose.

    TrilogueError
    ├── Invalid        what was given cannot be used
    │   └── Malformed      a model's answer that its repair did not mend
    ├── NotFound       no such pipeline, checkpoint, secret, …
    ├── Conflict       not in this state
    │   ├── IllegalTransition
    │   ├── Fenced         another attempt has taken over, or the pipeline was stopped
    │   └── RevisionMismatch   a database at another schema revision
    ├── Denied         known, but not allowed
    │   ├── Unauthenticated   no key, or none that is good (any more)
    │   └── Violation      an agent's action outside its mandate
    ├── Exhausted      a budget or quota is spent
    │   └── BudgetSpent    of an agent, a pipeline or a tenant: no room for another turn
    └── Unavailable    something out of reach
        └── EndpointFault  a model endpoint that failed or did not answer

Families are what callers match on; `code` is the stable name that users, JSON and
the ledger see. `retryable` says whether the same call may succeed later.
Messages show the offending value with `!r`, say what to do, and never hold a secret.
"""

from typing import ClassVar


class TrilogueError(Exception):
    """Base of all deliberate errors.

    Args:
        message: one line: what was wrong, with the value, and what to do.
        code: stable snake_case name; the class's own when not given.
    """

    default_code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class Invalid(TrilogueError):
    """What was given cannot be used as it is."""

    default_code = "invalid"


class Malformed(Invalid):
    """A model's answer that is not what its turn asked for, also after its repair turn."""

    default_code = "malformed_answer"


class NotFound(TrilogueError):
    """The thing named does not exist (for this tenant)."""

    default_code = "not_found"


class Conflict(TrilogueError):
    """The thing exists, but not in a state that allows this."""

    default_code = "conflict"


class IllegalTransition(Conflict):
    """A status that may not follow the present one."""

    default_code = "illegal_transition"


class Fenced(Conflict):
    """The ledger refused an append: the attempt is not the current one, or the pipeline was stopped."""

    default_code = "fenced"


class RevisionMismatch(Conflict):
    """The database's schema revision is not one that this version can use."""

    default_code = "database_revision"


class Denied(TrilogueError):
    """The caller is known but not allowed to do this."""

    default_code = "denied"


class Unauthenticated(Denied):
    """Nobody knows who calls: there is no key, or it is not, or no longer, good."""

    default_code = "unauthenticated"


class Violation(Denied):
    """An agent's action outside its tier, phase or identity."""

    default_code = "procedure_violation"


class Exhausted(TrilogueError):
    """A budget or quota has nothing left."""

    default_code = "exhausted"


class BudgetSpent(Exhausted):
    """A token or money budget has no room for what was asked.

    Args:
        passing: only the reservations of calls under way stand in the way; there may be room later.
    """

    default_code = "budget_spent"

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Unavailable(TrilogueError):
    """A server or store that could not be reached or did not answer."""

    default_code = "unavailable"
    retryable = True


class EndpointFault(Unavailable):
    """A model endpoint failed after the gateway's last retry: the endpoint's fault, not the agent's."""

    default_code = "endpoint_unavailable"
