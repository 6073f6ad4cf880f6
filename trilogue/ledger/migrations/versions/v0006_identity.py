"""Tenants, projects, API keys, and the audit of what people did, which nobody can change."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_REFUSE_ON_SQLITE = (
    """
    CREATE TRIGGER audit_refuse_update BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'lines of the audit are immutable'); END
    """,
    """
    CREATE TRIGGER audit_refuse_delete BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'lines of the audit are immutable'); END
    """,
    # INSERT OR REPLACE would delete the row without asking the trigger above.
    """
    CREATE TRIGGER audit_refuse_replace BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE tenant = NEW.tenant AND seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'lines of the audit are immutable'); END
    """,
)
_REFUSE_ON_POSTGRESQL = (
    """
    CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'lines of the audit are immutable'; END
    $$
    """,
    """
    CREATE TRIGGER audit_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
    """,
)

# Tenants of pipelines that are there already come to be with them, and so do their projects, whatever their names.
_TENANTS = """
    INSERT INTO tenants (tenant, status, shared_model_key, created_at, changed_at)
    SELECT tenant, 'active', :shared, min(created_at), :now FROM pipelines GROUP BY tenant
"""
_DEFAULT_TENANT = """
    INSERT INTO tenants (tenant, status, shared_model_key, created_at, changed_at)
    VALUES ('default', 'active', :shared, :now, :now) ON CONFLICT DO NOTHING
"""
_PROJECTS = """
    INSERT INTO projects (tenant, project, created_at)
    SELECT tenant, project, min(created_at) FROM pipelines WHERE project IS NOT NULL GROUP BY tenant, project
"""
_DEFAULT_PROJECTS = """
    INSERT INTO projects (tenant, project, created_at)
    SELECT tenant, 'default', created_at FROM tenants WHERE true ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    """Make the tables, the triggers that keep the audit as it is, and the tenants and projects that there are."""
    op.create_table(
        "tenants",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("shared_model_key", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant"),
    )
    op.create_table(
        "projects",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("project", _KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant", "project"),
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("id", _KEY, nullable=False),
        sa.Column("project", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("access", sa.Text, nullable=False),
        sa.Column("hash", _KEY, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("replaced_by", sa.Text),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_index("api_keys_hash", "api_keys", ["hash"], unique=True)
    op.create_table(
        "audit",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "seq"),
    )
    op.create_index("audit_newest", "audit", ["tenant", "at", "seq"])
    op.create_index("audit_newest_of_all", "audit", ["at", "tenant", "seq"])
    bind = op.get_bind()
    for statement in _REFUSE_ON_SQLITE if bind.dialect.name == "sqlite" else _REFUSE_ON_POSTGRESQL:
        op.execute(statement)
    values = {"shared": True, "now": time.time_ns() // 1_000}
    for statement in (_TENANTS, _DEFAULT_TENANT):
        bind.execute(sa.text(statement), values)
    for statement in (_PROJECTS, _DEFAULT_PROJECTS):
        bind.execute(sa.text(statement))


def downgrade() -> None:
    """Drop the tables, with everything in them."""
    for table in ("audit", "api_keys", "projects", "tenants"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_refuse_change()")
