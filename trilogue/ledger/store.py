"""What a repository needs of the ledger that it is part of: to read, and to write."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Select

from trilogue.errors import Invalid
from trilogue.ledger.queries import LONGEST_PAGE

T = TypeVar("T")


class Run(Protocol):
    """Runs a function of a connection, in a thread that may block, and returns its result."""

    async def __call__(self, unit: Callable[[Connection], T], /) -> T: ...


@dataclass(frozen=True)
class Store:
    """The two ways to the database: statements that stand alone, and the process's one writer (`ledger.writer`)."""

    read: Run
    write: Run


def select_listed(connection: Connection, query: Select[Any], *, limit: int) -> tuple[list[Any], bool]:
    """At most `limit` rows of a query that has an order, and whether there are more.

    Raises:
        Invalid: a bad `limit`.
    """
    if not 1 <= limit <= LONGEST_PAGE:
        raise Invalid(f"a page has 1 to {LONGEST_PAGE} lines, not {limit!r}", code="bad_limit")
    rows = connection.execute(query.limit(limit + 1)).mappings().all()
    return list(rows[:limit]), len(rows) > limit


def check_cursor(cursor: str) -> str:
    """A cursor that is the last name of the page before. Raises `Invalid` where it can be no name."""
    if not cursor.isprintable():  # what no database takes is not printable either
        raise bad_cursor(cursor)
    return cursor


def bad_cursor(cursor: str) -> Invalid:
    """The error about a cursor that no page gave."""
    return Invalid(
        f"{cursor!r} is no cursor of this list: pass on `next` as it came, or leave it out", code="bad_cursor"
    )
