"""Tenants and projects come to be for what is there already, and go again without harm to it."""

from alembic import command
from sqlalchemy import create_engine, inspect, text

from trilogue.entry import Draft, Kind
from trilogue.ledger import Ledger, schema, verify
from trilogue.ledger.engine import parse_url, writing_engine
from trilogue.ledger.identities import By

TABLES = {"tenants", "projects", "api_keys", "audit"}


def downgrade(url: str, revision: str) -> None:
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection, connection.begin():
        command.downgrade(schema._config(connection), revision)
    engine.dispose()


def tables(url: str) -> set[str]:
    engine = create_engine(parse_url(url))
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


async def spawned(ledger: Ledger) -> None:
    for at, (tenant, project) in enumerate(
        [("default", "web"), ("default", "web"), ("default", "Büro 7"), ("acme", "web"), ("acme", None)], start=1
    ):
        first = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", "project": project})
        await ledger.spawn(tenant, f"p-{at}", [first], at=at)


async def test_what_pipelines_name_comes_to_be_and_nothing_is_lost_on_the_way_back(ledger_url: str) -> None:
    downgrade(ledger_url, "0005")
    assert not TABLES & tables(ledger_url)
    schema.upgrade(ledger_url)
    ledger = await Ledger.open(ledger_url, migrate=False)
    await spawned(ledger)
    await ledger.close()
    downgrade(ledger_url, "0005")
    assert schema.upgrade(ledger_url) == schema.head()
    ledger = await Ledger.open(ledger_url, migrate=False)
    assert [(row.tenant, row.status) for row in (await ledger.tenants.list_all()).items] == [
        ("acme", "active"),
        ("default", "active"),
    ]
    for tenant, projects in {"default": ["Büro 7", "default", "web"], "acme": ["default", "web"]}.items():
        assert [row.project for row in (await ledger.projects.list(tenant)).items] == projects
    assert (await ledger.tenants.get("acme")).created_at == 4
    assert verify(await ledger.entries("acme", "p-4")) is None
    await ledger.close()


async def test_the_way_back_takes_the_audits_triggers_with_it(ledger_url: str) -> None:
    ledger = await Ledger.open(ledger_url, migrate=False)
    await ledger.tenants.create("acme", by=By(actor="local"))
    await ledger.close()
    for _ in range(2):
        downgrade(ledger_url, "0005")
        engine = create_engine(parse_url(ledger_url))
        with engine.connect() as connection:
            catalogue = "sqlite_master" if engine.dialect.name == "sqlite" else "(SELECT proname AS name FROM pg_proc)"
            left = connection.execute(text(f"SELECT name FROM {catalogue} AS c WHERE name LIKE 'audit_%'")).all()
        engine.dispose()
        assert left == []
        schema.upgrade(ledger_url)
    assert tables(ledger_url) >= TABLES
