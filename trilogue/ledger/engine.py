"""Connections to SQLite and PostgreSQL, and everything in which the two differ.

A database has two engines: `writing`, for the one writer of this process, whose
transactions on SQLite begin with the write lock; and `reading`, whose statements stand
alone and never wait for a writer.
"""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Table,
    Text,
    collate,
    create_engine,
    event,
    func,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from trilogue.errors import Invalid

BETWEEN = "\x1f"
"""ASCII's own separator of texts, which is in none of them."""

READERS = 4
"""Connections, and threads, that one process reads with."""

_LOCK_SECONDS = 10
_CONNECT_SECONDS = 10
# A server that vanished without a word must not hold the writer for the kernel's quarter of an hour.
_SILENCE_MILLISECONDS = 20_000


def sqlite_url(path: Path) -> str:
    """The address of the SQLite database in the file `path`."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


def parse_url(url: str) -> URL:
    """`url` with the driver that we use and, for SQLite, an absolute path.

    Raises:
        Invalid: not the address of a SQLite file or a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Its text is not shown: it may hold a password.
        raise Invalid(
            "the database address is no URL: give sqlite:////path/to/file.db or postgresql://user:password@host/name",
            code="bad_database_url",
        ) from None
    backend = parsed.drivername.partition("+")[0]
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise Invalid(f"the ledger cannot live in {backend!r}: use sqlite or postgresql", code="bad_database_url")
    if not parsed.database or parsed.database == ":memory:" or parsed.query:
        raise Invalid(
            f"the ledger needs a SQLite file, without options, not {parsed.render_as_string()!r}: "
            "give sqlite:////path/to/file.db",
            code="bad_database_url",
        )
    return parsed.set(drivername="sqlite", database=str(Path(parsed.database).expanduser().absolute()))


def address(url: URL) -> str:
    """`url` for people: without password and options."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    host = url.host or str(url.query.get("host", ""))
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{user}{host}{port}/{url.database or ''}"


def writing_engine(url: URL) -> Engine:
    """The engine of the process's one writer: each transaction holds the write lock from its start on SQLite."""
    if url.get_backend_name() != "sqlite":
        return _postgres(url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0)
    engine = _sqlite(url, pool_size=1, max_overflow=0)

    @event.listens_for(engine, "begin")
    def take_write_lock(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(url: URL) -> Engine:
    """The engine for queries: every statement is a transaction of its own."""
    options: dict[str, Any] = {"pool_size": READERS, "max_overflow": 0}
    if url.get_backend_name() != "sqlite":
        return _postgres(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, **options)
    engine = _sqlite(url, **options)

    @event.listens_for(engine, "connect")
    def only_read(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    return engine


def _sqlite(url: URL, **options: Any) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _LOCK_SECONDS}, **options)

    @event.listens_for(engine, "connect")
    def begin_nothing_by_itself(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        # A commit is on the disk when it returns: the ledger is the truth also after a power cut.
        connection.execute("PRAGMA synchronous = FULL")

    return engine


def _postgres(url: URL, **options: Any) -> Engine:
    defaults: dict[str, Any] = {
        "application_name": "trilogue",
        "connect_timeout": _CONNECT_SECONDS,
        "tcp_user_timeout": _SILENCE_MILLISECONDS,
        "keepalives_idle": _LOCK_SECONDS,
    }
    given = {name: value for name, value in defaults.items() if name not in url.query}
    engine = create_engine(url, hide_parameters=True, connect_args=given, **options)

    @event.listens_for(engine, "connect")
    def wait_for_locks_not_for_ever(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'")
        if not connection.autocommit:
            connection.commit()

    return engine


class database_now(GenericFunction[int]):  # noqa: N801 - reads as the SQL function that it is
    """The database's own time in microseconds UTC: the one clock that all workers share."""

    type = BigInteger()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: Any, **_options: Any) -> str:
    # Integers only: julianday would lose the milliseconds to its floating point.
    return (
        "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000)"
    )


@compiles(database_now, "postgresql")
def _postgres_now(_element: database_now, _compiler: Any, **_options: Any) -> str:
    # The statement's time, not the transaction's: units of one group commit may have waited for locks.
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)"


class words_of(GenericFunction[str]):  # noqa: N801 - as above
    """A pipeline's objective and labels out of its `spec`, with `BETWEEN` between them."""

    type = Text()
    inherit_cache = True


@compiles(words_of, "sqlite")
def _sqlite_words(element: words_of, compiler: Any, **options: Any) -> str:
    spec = compiler.process(element.clauses, **options)
    labels = f"SELECT group_concat(value, char(31)) FROM json_each({spec}, '$.labels')"  # noqa: S608 - of columns only
    return f"(json_extract({spec}, '$.objective') || char(31) || coalesce(({labels}), ''))"


@compiles(words_of, "postgresql")
def _postgres_words(element: words_of, compiler: Any, **options: Any) -> str:
    spec = f"CAST({compiler.process(element.clauses, **options)} AS JSONB)"
    found = f"jsonb_path_query({spec}, '$.labels[*]') AS label"
    labels = f"SELECT string_agg(label #>> '{{}}', chr(31)) FROM {found}"  # noqa: S608 - of columns only
    return f"concat_ws(chr(31), {spec} ->> 'objective', ({labels}))"


def containing(connection: Connection, text: ColumnElement[str], sought: str) -> ColumnElement[bool]:
    """Whether `text` holds `sought`, each letter in upper or lower case, every other character as it is."""
    if connection.dialect.name == "sqlite":
        # Its `lower` and LIKE know ASCII only; a function of ours would wait for Python's lock at every row.
        return text.op("GLOB", return_type=Boolean())(f"*{''.join(map(_in_either_case, sought))}*")
    # Keys have a collation of their own, by which only ASCII has two cases.
    return func.strpos(func.lower(collate(text, "default")), func.lower(sought)) > 0


def _in_either_case(character: str) -> str:
    """A GLOB pattern for one character."""
    cases = {character, character.lower(), character.upper(), character.casefold()}
    alone = sorted(case for case in cases if len(case) == 1)
    return f"[{''.join(alone)}]" if len(alone) > 1 or character in "*?[" else character


def insert_unless_present(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT which leaves a row alone that is already there, or one that is equal in a unique column."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()
