"""Budgets: what agents, pipelines and tenants have spent and reserved, and how much they may; an index for upkeep."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SUMS = ("tokens_spent", "nanousd_spent", "tokens_reserved", "nanousd_reserved")


def upgrade() -> None:
    """Make the table, with rows without limits for what is there already."""
    op.create_table(
        "budgets",
        sa.Column("tenant", _KEY, nullable=False),
        sa.Column("pipeline_id", _KEY, nullable=False),
        sa.Column("agent_id", _KEY, nullable=False),
        sa.Column("tokens_limit", sa.BigInteger),
        sa.Column("nanousd_limit", sa.BigInteger),
        *(sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in _SUMS),
        sa.PrimaryKeyConstraint("tenant", "pipeline_id", "agent_id"),
    )
    op.create_index("pipelines_ended", "pipelines", ["ended_at"])
    for rows in (
        "SELECT DISTINCT tenant, '', '' FROM pipelines",
        "SELECT tenant, id, '' FROM pipelines",
        "SELECT tenant, pipeline_id, agent_id FROM agents",
    ):
        op.execute(f"INSERT INTO budgets (tenant, pipeline_id, agent_id) {rows}")
