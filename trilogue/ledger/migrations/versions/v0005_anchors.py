"""Anchors: signed statements of pipelines' heads, which nobody can change either; what is to be anchored."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_IMMUTABLE = ("anchors", "anchor_keys")
_KEYS = {"anchors": "seq", "anchor_keys": "key_id"}


def upgrade() -> None:
    """Make the tables and their triggers; what has ended already is to be anchored."""
    op.create_table(
        "anchors",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "seq"),
    )
    op.create_table(
        "anchor_keys",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("key_id", _KEY, nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key_id"),
    )
    op.create_table(
        "anchor_chains",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("open_at", sa.BigInteger),
        sa.Column("sent_seq", sa.Integer, nullable=False),
        sa.Column("send_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant"),
    )
    for name in ("anchored", "anchor_due"):
        in_key = name == "anchor_due"
        op.create_table(
            name,
            sa.Column("tenant", _KEY, nullable=False),
            sa.Column("pipeline_id", _KEY, nullable=False),
            sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
            sa.PrimaryKeyConstraint("tenant", "pipeline_id", *(["seq"] if in_key else [])),
        )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in _IMMUTABLE:
        for statement in _refuse_on_sqlite(table) if on_sqlite else _refuse_on_postgresql(table):
            op.execute(statement)
    op.execute(
        "INSERT INTO anchor_due (tenant, pipeline_id, seq) "
        "SELECT tenant, id, head_seq FROM pipelines WHERE ended_at IS NOT NULL"
    )


def downgrade() -> None:
    """Drop the tables, and with them every anchor that is not kept outside."""
    for table in ("anchor_due", "anchored", "anchor_chains", "anchor_keys", "anchors"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        for table in _IMMUTABLE:
            op.execute(f"DROP FUNCTION {table}_refuse_change()")


def _refuse_on_sqlite(table: str) -> list[str]:
    abort = f"BEGIN SELECT RAISE(ABORT, '{table} of the ledger are immutable'); END"
    key = _KEYS[table]
    # INSERT OR REPLACE would delete the row without asking the trigger for DELETE.
    there = f"SELECT 1 FROM {table} WHERE tenant = NEW.tenant AND {key} = NEW.{key}"  # noqa: S608 - our own names
    return [
        f"CREATE TRIGGER {table}_refuse_update BEFORE UPDATE ON {table} {abort}",
        f"CREATE TRIGGER {table}_refuse_delete BEFORE DELETE ON {table} {abort}",
        f"CREATE TRIGGER {table}_refuse_replace BEFORE INSERT ON {table} WHEN EXISTS ({there}) {abort}",
    ]


def _refuse_on_postgresql(table: str) -> list[str]:
    return [
        f"CREATE FUNCTION {table}_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"BEGIN RAISE EXCEPTION '{table} of the ledger are immutable'; END $$",
        f"CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse_change()",
    ]
