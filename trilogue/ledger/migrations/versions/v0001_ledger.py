"""The ledger: entries that nobody can change, and the tables that are projected from them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_REFUSE_ON_SQLITE = (
    """
    CREATE TRIGGER entries_refuse_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries of the ledger are immutable'); END
    """,
    """
    CREATE TRIGGER entries_refuse_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries of the ledger are immutable'); END
    """,
    # INSERT OR REPLACE would delete the row without asking the trigger above.
    """
    CREATE TRIGGER entries_refuse_replace BEFORE INSERT ON entries
    WHEN EXISTS (
        SELECT 1 FROM entries WHERE tenant = NEW.tenant AND pipeline_id = NEW.pipeline_id AND seq = NEW.seq
    )
    BEGIN SELECT RAISE(ABORT, 'entries of the ledger are immutable'); END
    """,
)
_REFUSE_ON_POSTGRESQL = (
    """
    CREATE FUNCTION entries_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'entries of the ledger are immutable'; END
    $$
    """,
    """
    CREATE TRIGGER entries_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION entries_refuse_change()
    """,
)


def upgrade() -> None:
    """Make the tables, their indexes and the triggers that keep entries as they are."""
    op.create_table(
        "pipelines",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("id", _KEY, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("external_id", sa.Text),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("head_seq", sa.Integer, nullable=False),
        sa.Column("head_hash", sa.Text, nullable=False),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("stop_requested_at", sa.BigInteger),
        sa.Column("orchestration_started_at", sa.BigInteger),
        sa.Column("deadline_at", sa.BigInteger),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("pipelines_newest", "pipelines", ["tenant", "created_at", "id"])
    op.create_index("pipelines_claimable", "pipelines", ["status", "lease_until"])
    op.create_index("pipelines_leased", "pipelines", ["lease_owner"])
    op.create_index("pipelines_external_id", "pipelines", ["tenant", "external_id"], unique=True)
    op.create_table(
        "entries",
        *_pipeline_key(),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "pipeline_id", "seq"),
    )
    op.create_table(
        "agents",
        *_pipeline_key(),
        sa.Column("agent_id", _KEY, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("tier", sa.Integer, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("spawned_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "pipeline_id", "agent_id"),
    )
    op.create_table(
        "usage",
        *_pipeline_key(),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cost_nanousd", sa.BigInteger),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "pipeline_id", "seq"),
    )
    op.create_table(
        "checkpoints",
        *_pipeline_key(),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("to_seq", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("details", sa.Text),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "pipeline_id", "seq"),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _REFUSE_ON_SQLITE if on_sqlite else _REFUSE_ON_POSTGRESQL:
        op.execute(statement)


def _pipeline_key() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("tenant", _KEY, nullable=False), sa.Column("pipeline_id", _KEY, nullable=False)
