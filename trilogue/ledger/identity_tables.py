"""The tables of who calls: tenants, their projects and API keys, and the audit of what people did.

Nothing of them can be folded from entries. As in `ledger.tables`, every key begins with the tenant, and what the
database has is made by the migrations.
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text

from trilogue.ledger.tables import KEY, METADATA

tenants = Table(
    "tenants",  # a row outlives the tenant that is deleted
    METADATA,
    Column("tenant", KEY, primary_key=True),
    Column("status", Text, nullable=False),
    Column("shared_model_key", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)
projects = Table(
    "projects",
    METADATA,
    Column("tenant", KEY, primary_key=True),
    Column("project", KEY, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
api_keys = Table(
    "api_keys",
    METADATA,
    Column("tenant", KEY, primary_key=True),
    Column("id", KEY, primary_key=True),
    Column("project", Text),  # NULL for a key to all of the tenant
    Column("name", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("hash", KEY, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("replaced_by", Text),
    Index("api_keys_hash", "hash", unique=True),
)
audit = Table(
    "audit",  # the database refuses UPDATE and DELETE
    METADATA,
    Column("tenant", KEY, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", Text),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Text),
    Column("detail", Text, nullable=False),
    Index("audit_newest", "tenant", "at", "seq"),
    Index("audit_newest_of_all", "at", "tenant", "seq"),
)
