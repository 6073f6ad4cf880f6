"""A ledger database is brought up, or refused with a reason; it is never half migrated."""

import asyncio
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from trilogue.entry import Draft, Kind
from trilogue.errors import Invalid, RevisionMismatch, TrilogueError, Unavailable
from trilogue.ledger import Ledger, schema, sqlite_url
from trilogue.ledger.engine import parse_url
from trilogue.ledger.tables import METADATA


def test_migrations_make_exactly_the_tables_that_the_code_uses(empty_url: str) -> None:
    assert schema.current(empty_url) is None
    assert schema.upgrade(empty_url) == schema.head() == schema.current(empty_url)
    assert schema.upgrade(empty_url) == schema.head()
    engine = create_engine(parse_url(empty_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
        if engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    engine.dispose()


async def test_an_empty_database_is_refused_or_brought_up_as_asked(empty_url: str, tmp_path: Path) -> None:
    with pytest.raises(RevisionMismatch, match=r"is empty.*trilogue db upgrade"):
        await Ledger.open(empty_url, migrate=False)
    assert not (tmp_path / "new").exists(), "looking at a database does not make it"
    ledger = await Ledger.open(empty_url, migrate=True)
    assert (await ledger.list_pipelines("default")).items == []
    await ledger.close()


async def test_a_database_of_another_version_is_refused(ledger_url: str) -> None:
    engine = create_engine(parse_url(ledger_url))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    for migrate in (True, False):
        with pytest.raises(RevisionMismatch, match=rf"'9999'.*'{schema.head()}'.*newer"):
            await Ledger.open(ledger_url, migrate=migrate)
    assert schema.current(ledger_url) == "9999"


_OPEN = """
import asyncio, sys
from trilogue.ledger import Ledger

async def main():
    await (await Ledger.open(sys.argv[1], migrate=True)).close()

sys.stdin.read()
asyncio.run(main())
"""


async def test_processes_that_migrate_one_new_database_at_once_all_succeed(empty_url: str) -> None:
    command = (sys.executable, "-c", _OPEN, empty_url)
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stderr=pipe) for _ in range(2)]
    finished = await asyncio.gather(*(process.communicate(b"") for process in processes))
    assert [process.returncode for process in processes] == [0, 0], finished
    assert schema.current(empty_url) == schema.head()


@pytest.mark.parametrize("threads", [8])
async def test_threads_that_migrate_one_new_database_at_once_all_succeed(empty_url: str, threads: int) -> None:
    ledgers = await asyncio.gather(*(Ledger.open(empty_url, migrate=True) for _ in range(threads)))
    await asyncio.gather(*(ledger.close() for ledger in ledgers))


async def test_what_cannot_be_a_ledger_is_named_with_its_reason(tmp_path: Path) -> None:
    text_file = tmp_path / "notes.txt"
    text_file.write_text("this is no database, it is only some text " * 50)
    foreign = tmp_path / "foreign.db"
    engine = create_engine(f"sqlite:///{foreign}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE entries (id INTEGER)"))
    engine.dispose()
    cases: list[tuple[str, type[TrilogueError], str]] = [
        (sqlite_url(text_file), Invalid, "not a database"),
        (sqlite_url(text_file / "below.db"), Invalid, "below.db"),
        (sqlite_url(tmp_path), Invalid, "unable to open"),
        (sqlite_url(foreign), Invalid, "already exists"),
        ("sqlite://", Invalid, "needs a SQLite file"),
        ("mysql://u:sekret@h/db", Invalid, "'mysql'"),
        ("sekret", Invalid, "no URL"),
        ("postgresql://user:sekret@127.0.0.1:1/db?password=sekret", Unavailable, "postgresql://user@127.0.0.1:1/db"),
    ]
    for url, family, said in cases:
        with pytest.raises(family, match=said) as refused:
            await Ledger.open(url, migrate=True)
        assert "sekret" not in str(refused.value)


async def test_a_server_that_went_away_is_unavailable_and_a_broken_connection_mends(migrated_postgres_url: str) -> None:
    ledger = await Ledger.open(migrated_postgres_url, migrate=False)
    spawned = [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree"})]
    await ledger.spawn("default", "p-1", spawned, at=1)
    await ledger.get_pipeline("default", "p-1")
    engine = create_engine(parse_url(migrated_postgres_url))
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        await asyncio.gather(*(ledger.spawn("default", f"p-{n}", spawned, at=1) for n in range(2, 9)))
        assert len((await ledger.list_pipelines("default")).items) == 8
        connection.rollback()
        name = connection.execute(text("SELECT current_database()")).scalar()
        connection.rollback()
    engine.dispose()
    administration = create_engine(
        parse_url(migrated_postgres_url).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    with administration.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))
        outcomes = await asyncio.gather(
            *(ledger.spawn("default", f"q-{n}", spawned, at=1) for n in range(5)),
            ledger.get_pipeline("default", "p-1"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 6
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    administration.dispose()
    await ledger.spawn("default", "q-0", spawned, at=1)
    await ledger.close()
