"""The database's schema revision: finding it, refusing what does not fit, bringing it up.

The migrations are part of the package. Their bookkeeping has a table of its own name, so
that other programs which use Alembic may share the database. Everything here blocks:
call it in a thread.
"""

import sqlite3
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, text

from trilogue.errors import Invalid, RevisionMismatch, TrilogueError, Unavailable
from trilogue.ledger.engine import address, parse_url, reading_engine, writing_engine
from trilogue.ledger.faults import translate

VERSION_TABLE = "trilogue_revision"
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x7472696C6F677565  # "trilogue"
_WAL_TRIES, _WAL_PAUSE = 200, 0.05


def head() -> str:
    """The revision that this version of Trilogue works with."""
    revision = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert revision is not None
    return revision


def current(url: str) -> str | None:
    """The revision that the database is at; `None` when it is empty or not there."""
    where = parse_url(url)
    if where.get_backend_name() == "sqlite" and not Path(str(where.database)).exists():
        return None
    engine = reading_engine(where)
    try:
        with engine.connect() as connection:
            return _revision_of(connection)
    except Exception as error:
        raise _told(error, where) from error
    finally:
        engine.dispose()


def check(url: str) -> None:
    """Raise `RevisionMismatch` unless the database is at `head()`."""
    present, wanted = current(url), head()
    if present == wanted:
        return
    where = address(parse_url(url))
    _refuse_unknown(present, where)
    state = f"at schema revision {present!r}" if present else "empty"
    raise RevisionMismatch(
        f"the ledger at {where} is {state}, but this version of Trilogue needs {wanted!r}: run `trilogue db upgrade`"
    )


def upgrade(url: str, revision: str = "head") -> str:
    """Bring the database up to `revision` and return the revision that it is at then.

    Any number of processes may do this at once to one database. An empty one is filled; the
    file of a SQLite database, and its folder, are made.

    Raises:
        RevisionMismatch: the database is at a revision that this version does not know.
    """
    where = parse_url(url)
    wanted = _known(revision)
    present = current(url)
    _refuse_unknown(present, address(where))
    if present == wanted:
        return wanted
    if where.get_backend_name() == "sqlite":
        _make_wal_file(where)
    engine = writing_engine(where)
    try:
        with engine.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            # Somebody else may have been faster, with this version or another.
            _refuse_unknown(_revision_of(connection), address(where))
            command.upgrade(_config(connection), wanted)
            return _revision_of(connection) or wanted
    except Exception as error:
        raise _told(error, where) from error
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    return config


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _known(revision: str) -> str:
    try:
        script = ScriptDirectory(str(_MIGRATIONS)).get_revision(revision)
    except CommandError as error:
        raise Invalid(f"no schema revision {revision!r}: the newest is {head()!r}", code="no_revision") from error
    return script.revision


def _refuse_unknown(present: str | None, where: str) -> None:
    known = {script.revision for script in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}
    if present is not None and present not in known:
        raise RevisionMismatch(
            f"the ledger at {where} is at schema revision {present!r}, which this version of Trilogue does not know "
            f"(its newest is {head()!r}): use the version of Trilogue that made it, or a newer one"
        )


def _make_wal_file(where: URL) -> None:
    path = Path(str(where.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid(f"no folder for the ledger at {address(where)}: {error.strerror}", code="bad_database") from error
    for _ in range(_WAL_TRIES):
        try:
            connection = sqlite3.connect(path)
            try:
                [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            # SQLite changes the mode without waiting for its turn, so we do: another process is opening it, too.
            if "locked" in str(error):
                time.sleep(_WAL_PAUSE)
                continue
            raise Invalid(f"the ledger at {address(where)} cannot be used: {error}", code="bad_database") from error
        if mode != "wal":
            raise Invalid(
                f"{address(where)} cannot keep a write-ahead log: put it on a local disk", code="bad_database"
            )
        return
    raise Unavailable(f"the ledger at {address(where)} is locked by another program")


def _told(error: Exception, where: URL) -> TrilogueError:
    told = translate(error, address(where))
    if isinstance(told, TrilogueError):
        return told
    return Invalid(f"the ledger at {address(where)} cannot be migrated: {error}", code="bad_database")
