"""What drivers and SQLAlchemy raise, as our errors.

Messages give the first line of what the database said, and its address without
password; never a statement's parameters.
"""

import sqlite3

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from trilogue.errors import Conflict, Invalid, TrilogueError, Unavailable

_PASSING_SQLITE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
_RETRY_STATES = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization failure, deadlock."""


def translate(error: BaseException, address: str) -> BaseException:
    """The error to raise for `error`, which came from the database at `address`; ours pass as they are."""
    if isinstance(error, TrilogueError):
        return error
    if isinstance(error, PoolTimeout):
        return Unavailable(f"the ledger at {address} is overloaded: no connection became free")
    if isinstance(error, (UnicodeError, OverflowError)):
        return Invalid(f"a value cannot be stored by the ledger at {address}: {first_line(error)}")
    if not isinstance(error, SQLAlchemyError):
        return error
    said = first_line(error)
    if isinstance(error, IntegrityError):
        return Conflict(f"the ledger at {address} refused a row: {said}", code="refused")
    if isinstance(error, DBAPIError) and _passes(error):
        return Unavailable(f"the ledger at {address} is out of reach: {said}")
    return Invalid(f"the ledger at {address} cannot do this: {said}", code="bad_database")


def _passes(error: DBAPIError) -> bool:
    """Whether the database is at fault, not the statement or the file; what SQLite calls operational can be either."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _PASSING_SQLITE_CODES
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))


def worth_repeating(error: BaseException) -> bool:
    """Whether the transaction was undone by others or with its connection, and may succeed in a second try."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _RETRY_STATES


def first_line(error: BaseException) -> str:
    """What the database said, in one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
