"""Answers kept for requests that come again under the same key (`Idempotency-Key`).

A row is in one of three states: at work (no status; its body is the plan of the work), given up (status 0; the
plan is kept, since nobody knows how far it came), answered. Who finds work given up, or at work for so long that
its process must be gone, takes it over with its plan.
"""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, delete, select, update

from trilogue.clock import SECOND, Micros
from trilogue.errors import Conflict, Invalid
from trilogue.ledger.engine import database_now, insert_unless_present
from trilogue.ledger.tables import idempotency

KEPT_SECONDS = 86_400
"""How long an answer is kept."""

ABANDONED_SECONDS = 60
"""After which work that has no answer counts as given up."""

_GIVEN_UP = 0


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """What to do for a request: give its answer again (`status` and `body`), or do it by its `plan`."""

    status: int | None
    body: str = ""
    plan: str = ""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A row as it was found; `taken`: whether its work is the finder's now."""

    request: str
    status: int | None
    body: str
    age: Micros
    taken: bool = False

    @property
    def expired(self) -> bool:
        return self.age >= KEPT_SECONDS * SECOND

    @property
    def abandoned(self) -> bool:
        return self.status == _GIVEN_UP or (self.status is None and self.age >= ABANDONED_SECONDS * SECOND)

    def repeat(self, key: str, request: str) -> Repeat:
        """What whoever asks for `request` under `key` is to do.

        Raises:
            Invalid: code `idempotency_key_reused`: the key stands for another request.
            Conflict: code `in_progress`: somebody is at work for it.
        """
        if self.taken:
            return Repeat(status=None, plan=self.body)
        if self.request != request:
            raise Invalid(
                f"the idempotency key {key!r} was used for another request; take a new one",
                code="idempotency_key_reused",
            )
        if self.status is None:
            raise Conflict(
                f"the request with idempotency key {key!r} is still being worked on; ask again", code="in_progress"
            )
        return Repeat(status=self.status, body=self.body)


def find(connection: Connection, tenant: str, key: str, *, lock: bool = False) -> Kept | None:
    """What is kept under a key."""
    age = (database_now() - idempotency.c.created_at).label("age")
    query = select(idempotency.c.request, idempotency.c.status, idempotency.c.body, age).where(
        idempotency.c.tenant == tenant, idempotency.c.key == key
    )
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else Kept(request=row.request, status=row.status, body=row.body, age=row.age)


def begin(connection: Connection, tenant: str, key: str, request: str, plan: str) -> Kept:
    """Take the work of a request, unless somebody has; returns what is there now.

    Args:
        request: what tells requests apart; a key stands for one.
        plan: what whoever takes the work over must know, such as the id that the new thing will have.
    """
    mine = (idempotency.c.tenant == tenant, idempotency.c.key == key)
    found = find(connection, tenant, key, lock=True)
    if found and found.expired:
        connection.execute(delete(idempotency).where(*mine))
    new = {"tenant": tenant, "key": key, "request": request, "body": plan, "created_at": database_now()}
    inserted = insert_unless_present(connection, idempotency).values(new).returning(idempotency.c.key)
    if connection.execute(inserted).one_or_none() is not None:
        return Kept(request=request, status=None, body=plan, age=0, taken=True)
    found = find(connection, tenant, key, lock=True)
    assert found is not None
    if found.request == request and found.abandoned:
        connection.execute(update(idempotency).where(*mine).values(status=None, created_at=database_now()))
        return replace(found, taken=True)
    return found


def keep(connection: Connection, tenant: str, key: str, status: int, body: str) -> None:
    """The work is done, and this is its answer."""
    _settle(connection, tenant, key, status=status, body=body)


def give_up(connection: Connection, tenant: str, key: str) -> None:
    """Nobody knows how far the work came; the next who asks takes it over."""
    _settle(connection, tenant, key, status=_GIVEN_UP)


def _settle(connection: Connection, tenant: str, key: str, **values: object) -> None:
    connection.execute(
        update(idempotency)
        .where(idempotency.c.tenant == tenant, idempotency.c.key == key, idempotency.c.status.is_(None))
        .values(**values)
    )


def forget(connection: Connection, tenant: str, key: str) -> None:
    """The work was refused and nothing was done: the key is free again."""
    connection.execute(
        delete(idempotency).where(
            idempotency.c.tenant == tenant, idempotency.c.key == key, idempotency.c.status.is_(None)
        )
    )


def prune(connection: Connection) -> int:
    """Remove answers that were kept long enough; returns how many."""
    old = delete(idempotency).where(idempotency.c.created_at < database_now() - KEPT_SECONDS * SECOND)
    return connection.execute(old).rowcount
