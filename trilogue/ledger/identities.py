"""Tenants, projects, keys and lines of the audit as values. Light to import, as `ledger.rows` is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from trilogue.clock import Micros
from trilogue.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from trilogue.identity import LOCAL, Access, ApiKey, Caller

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[T]):
    """Some of a list; `next` is the cursor of the page after, None on the last."""

    items: list[T]
    next: str | None


class TenantStatus(StrEnum):
    """What a tenant may do."""

    ACTIVE = "active"
    SUSPENDED = "suspended"  # its keys are refused, and nothing of it begins; what runs goes on
    DELETED = "deleted"  # for good: its record stays, its name is not given out again


@dataclass(frozen=True, kw_only=True)
class TenantRow:
    """A tenant.

    Attributes:
        shared_model_key: whether it may use the installation's key for models where it has none of its own.
        changed_at: when its status was changed last, or it was made.
    """

    tenant: str
    status: TenantStatus
    shared_model_key: bool
    created_at: Micros
    changed_at: Micros


@dataclass(frozen=True, kw_only=True)
class TenantFigures:
    """How much a tenant has.

    Attributes:
        open: pipelines that have not ended.
        keys: those that are good now.
    """

    pipelines: int
    open: int
    projects: int
    keys: int


@dataclass(frozen=True, kw_only=True)
class ProjectRow:
    """A project; one that was deleted keeps its pipelines and comes back with them when it is made again."""

    tenant: str
    project: str
    created_at: Micros
    deleted_at: Micros | None


class KeyState(StrEnum):
    """Whether a key opens anything."""

    GOOD = "good"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """An API key, without its secret.

    Attributes:
        project: the only one that it opens; None for all of the tenant.
        last_used_at: to the minute.
        replaced_by: the id of the key that it was rotated to.
        read_at: database time of the reading, by which it is good or not.
    """

    tenant: str
    key_id: str
    project: str | None
    name: str
    access: Access
    created_at: Micros
    expires_at: Micros | None
    revoked_at: Micros | None
    last_used_at: Micros | None
    replaced_by: str | None
    read_at: Micros

    @property
    def state(self) -> KeyState:
        """Whether it was good at `read_at`."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        expired = self.expires_at is not None and self.expires_at <= self.read_at
        return KeyState.EXPIRED if expired else KeyState.GOOD

    @property
    def caller(self) -> Caller:
        """Who shows it."""
        return Caller(tenant=self.tenant, access=self.access, key_id=self.key_id, project=self.project)


@dataclass(frozen=True, kw_only=True)
class KnownKey:
    """A key as it was found by its hash, and the status of its tenant."""

    row: KeyRow
    hash: str = field(repr=False)
    tenant_status: TenantStatus


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A key that was just made: the one time that its text is there to be shown."""

    row: KeyRow
    key: ApiKey


class Outcome(StrEnum):
    """What became of what somebody did."""

    OK = "ok"
    REFUSED = "refused"  # by a rule: the error's code tells which
    FAILED = "failed"  # something was out of reach or broke

    @classmethod
    def of(cls, error: BaseException) -> "Outcome":
        """What an error makes of it."""
        refusals = (Invalid, NotFound, Conflict, Denied, Exhausted)
        return cls.REFUSED if isinstance(error, refusals) else cls.FAILED


@dataclass(frozen=True, kw_only=True)
class By:
    """Who does something, and from where.

    Attributes:
        actor: a key's id, `local` or `installation` (`Caller.actor`).
        source: the address that it came from; None for this machine's terminal.
    """

    actor: str
    source: str | None = None


AT_THE_TERMINAL = By(actor=LOCAL)


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that somebody did or tried, as the audit is to have it.

    Attributes:
        action: dotted lowercase words, the thing first: `pipeline.stop`.
        object: what it was done to: an id or a name; a stranger's text is cut and made plain.
        code: the error's, where there was one.
        detail: JSON values; what has the shape of an API key is cut down to its id.
    """

    by: By
    action: str
    object: str
    outcome: Outcome = Outcome.OK
    code: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """A line of the audit; `seq` counts 1, 2, 3, … in each tenant, without gaps."""

    tenant: str
    seq: int
    at: Micros
    actor: str
    source: str | None
    action: str
    object: str
    outcome: Outcome
    code: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sought:
    """Which lines of an audit are wanted; what is left out narrows nothing.

    Attributes:
        since: not older than this.
        action: the whole of an action, or its first words: `key` finds `key.create`.
    """

    actor: str | None = None
    since: Micros | None = None
    action: str | None = None
    object: str | None = None
    outcome: Outcome | None = None
