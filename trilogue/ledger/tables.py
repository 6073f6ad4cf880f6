"""The ledger's tables. Only `entries` is truth, and `anchors` vouch for it; every other table is a projection.

The one exception are the columns of `pipelines` that say who may write: `attempt`, the
lease and the head. Times are microseconds UTC, JSON is canonical text, and every key
begins with the tenant. What the database has is made by the migrations; a test holds
the two together.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

# Byte order on both databases, so that ids sort alike and a prefix can use the index.
KEY = Text().with_variant(Text(collation="C"), "postgresql")


class _Base(SQLModel, registry=registry()):
    """Keeps our tables out of the metadata that other users of SQLModel share."""


def _key() -> Any:
    return Field(sa_column=Column(KEY, primary_key=True, nullable=False))


def _seq_key() -> Any:
    return Field(sa_column=Column(Integer, primary_key=True, nullable=False, autoincrement=False))


def _text(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Text, nullable=null))


def _integer(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Integer, nullable=null))


def _large(*, null: bool = False) -> Any:
    return Field(sa_column=Column(BigInteger, nullable=null))


def _sum() -> Any:
    return Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))


class Pipelines(_Base, table=True):
    """One row a pipeline: where it is, its head, and who may write."""

    __tablename__ = "pipelines"
    __table_args__ = (
        Index("pipelines_newest", "tenant", "created_at", "id"),
        Index("pipelines_claimable", "status", "lease_until"),
        Index("pipelines_leased", "lease_owner"),
        Index("pipelines_ended", "ended_at"),
        Index("pipelines_queued", "queued_at"),
        Index("pipelines_external_id", "tenant", "external_id", unique=True),
    )

    tenant: str = _key()
    id: str = _key()
    project: str | None = _text(null=True)
    external_id: str | None = _text(null=True)
    spec: str = _text()
    status: str = _text()
    phase: str = _text()
    round: int = _integer()
    attempt: int = _integer()
    head_seq: int = _integer()
    head_hash: str = _text()
    flow_run_id: str | None = _text(null=True)
    lease_owner: str | None = _text(null=True)
    lease_until: int | None = _large(null=True)
    stop_requested_at: int | None = _large(null=True)
    orchestration_started_at: int | None = _large(null=True)
    deadline_at: int | None = _large(null=True)
    error_code: str | None = _text(null=True)
    error_message: str | None = _text(null=True)
    error_at: int | None = _large(null=True)
    ended_at: int | None = _large(null=True)
    created_at: int = _large()
    updated_at: int = _large()
    queued_at: int | None = _large(null=True)
    released_at: int | None = _large(null=True)


class Entries(_Base, table=True):
    """The ledger itself; the database refuses UPDATE and DELETE."""

    __tablename__ = "entries"

    tenant: str = _key()
    pipeline_id: str = _key()
    seq: int = _seq_key()
    attempt: int = _integer()
    kind: str = _text()
    actor: str = _text()
    at: int = _large()
    body: str = _text()
    prev_hash: str = _text()
    hash: str = _text()


class Agents(_Base, table=True):
    """Who takes part in a pipeline, from `agent_spawned` and `agent_status`."""

    __tablename__ = "agents"

    tenant: str = _key()
    pipeline_id: str = _key()
    agent_id: str = _key()
    role: str = _text()
    tier: int = _integer()
    runtime: str = _text()
    model: str = _text()
    status: str = _text()
    spawned_at: int = _large()


class Usage(_Base, table=True):
    """What a turn used, from `turn_ended`; NULL is unknown, never zero."""

    __tablename__ = "usage"

    tenant: str = _key()
    pipeline_id: str = _key()
    seq: int = _seq_key()
    agent_id: str = _text()
    phase: str = _text()
    round: int = _integer()
    turn: int = _integer()
    model: str | None = _text(null=True)
    input_tokens: int | None = _large(null=True)
    output_tokens: int | None = _large(null=True)
    cached_tokens: int | None = _large(null=True)
    cost_nanousd: int | None = _large(null=True)
    calls: int = _integer()
    at: int = _large()


class Budgets(_Base, table=True):
    """What an agent, a pipeline (no agent) or a tenant (no pipeline either) spent and reserved; NULL is no limit."""

    __tablename__ = "budgets"

    tenant: str = _key()
    pipeline_id: str = _key()
    agent_id: str = _key()
    tokens_limit: int | None = _large(null=True)
    nanousd_limit: int | None = _large(null=True)
    tokens_spent: int = _sum()
    nanousd_spent: int = _sum()
    tokens_reserved: int = _sum()
    nanousd_reserved: int = _sum()


class Checkpoints(_Base, table=True):
    """Named states from which a pipeline can go on, from `checkpoint`."""

    __tablename__ = "checkpoints"

    tenant: str = _key()
    pipeline_id: str = _key()
    seq: int = _seq_key()
    name: str = _text()
    to_seq: int = _integer()
    status: str = _text()
    phase: str = _text()
    round: int = _integer()
    details: str | None = _text(null=True)
    at: int = _large()


class Idempotency(_Base, table=True):
    """The answer to a request that bore an `Idempotency-Key`, for when it comes again; NULL while it is worked on."""

    __tablename__ = "idempotency"

    tenant: str = _key()
    key: str = _key()
    request: str = _text()
    status: int | None = _integer(null=True)
    body: str | None = _text(null=True)
    created_at: int = _large()


class Deliveries(_Base, table=True):
    """Webhooks on their way, one row each; `due_at` is NULL once it ended."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_due", "due_at"),)

    tenant: str = _key()
    id: str = _key()
    pipeline_id: str = Field(sa_column=Column(KEY, nullable=False))
    seq: int = _integer()
    url: str = _text()
    body: str = _text()
    status: str = _text()
    tries: int = _integer()
    due_at: int | None = _large(null=True)
    error: str | None = _text(null=True)
    created_at: int = _large()
    ended_at: int | None = _large(null=True)


class Anchors(_Base, table=True):
    """Signed statements of pipelines' heads, a chain a tenant; the database refuses UPDATE and DELETE."""

    __tablename__ = "anchors"

    tenant: str = _key()
    seq: int = _seq_key()
    at: int = _large()
    body: str = _text()
    prev_hash: str = _text()
    hash: str = _text()
    signature: str = _text()
    key_id: str = _text()


class AnchorKeys(_Base, table=True):
    """The public keys of those who signed anchors; the database refuses UPDATE and DELETE."""

    __tablename__ = "anchor_keys"

    tenant: str = _key()
    key_id: str = _key()
    public_key: str = _text()
    origin: str = _text()
    at: int = _large()


class AnchorChains(_Base, table=True):
    """Where a tenant's chain of anchors ends; when pipelines that had not ended were last anchored; how far it
    was sent outside, and when the next try is due."""

    __tablename__ = "anchor_chains"

    tenant: str = _key()
    seq: int = _integer()
    hash: str = _text()
    open_at: int | None = _large(null=True)
    sent_seq: int = _integer()
    send_at: int = _large()


class Anchored(_Base, table=True):
    """How far each pipeline is anchored. Not in its row, whose lock those who append to it need."""

    __tablename__ = "anchored"

    tenant: str = _key()
    pipeline_id: str = _key()
    seq: int = _integer()


class AnchorDue(_Base, table=True):
    """Pipelines that ended with the entry `seq` and are not anchored yet."""

    __tablename__ = "anchor_due"

    tenant: str = _key()
    pipeline_id: str = _key()
    seq: int = _seq_key()


METADATA = _Base.metadata

pipelines: Table = METADATA.tables["pipelines"]
entries: Table = METADATA.tables["entries"]
agents: Table = METADATA.tables["agents"]
usage: Table = METADATA.tables["usage"]
budgets: Table = METADATA.tables["budgets"]
deliveries: Table = METADATA.tables["deliveries"]
idempotency: Table = METADATA.tables["idempotency"]
checkpoints: Table = METADATA.tables["checkpoints"]
anchors: Table = METADATA.tables["anchors"]
anchor_keys: Table = METADATA.tables["anchor_keys"]
anchor_chains: Table = METADATA.tables["anchor_chains"]
anchored: Table = METADATA.tables["anchored"]
anchor_due: Table = METADATA.tables["anchor_due"]
