"""When the last lease of a pipeline was given back: since then it stands still."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_LET_GO = "UPDATE pipelines SET released_at = coalesce(ended_at, updated_at) WHERE lease_until IS NULL AND attempt > 0"
"""Nothing tells when the leases of before were given back; the last that was heard of their pipelines comes nearest."""


def upgrade() -> None:
    """Add the column, and what can be said of the pipelines that are there already."""
    op.add_column("pipelines", sa.Column("released_at", sa.BigInteger))
    op.execute(_LET_GO)


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("pipelines", "released_at")
