"""Budgets in SQL: reserved with `turn_begun` and settled with `turn_ended`, in the transaction that appends them.

One row each for an agent, its pipeline and its tenant. A reservation that does not fit one of them changes none
and undoes the whole unit, whoever asks and however many at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, or_, select, update

from trilogue.entry import Entry
from trilogue.errors import BudgetSpent
from trilogue.ledger.engine import insert_unless_present
from trilogue.ledger.rows import BudgetRow
from trilogue.ledger.tables import budgets
from trilogue.money import dollars

ALL = ""
"""Stands for all agents of a pipeline in its row, and for all pipelines of a tenant in that one's."""

_TENANT = and_(budgets.c.pipeline_id == ALL, budgets.c.agent_id == ALL)
_PIPELINE = and_(budgets.c.pipeline_id == bindparam("this_id"), budgets.c.agent_id == ALL)
_AGENT = and_(budgets.c.pipeline_id == bindparam("this_id"), budgets.c.agent_id == bindparam("this_agent"))
_THESE = and_(budgets.c.tenant == bindparam("this_tenant"), or_(_TENANT, _PIPELINE, _AGENT))
_AFTER = (
    budgets.c.tokens_spent + budgets.c.tokens_reserved + bindparam("tokens"),
    budgets.c.nanousd_spent + budgets.c.nanousd_reserved + bindparam("nanousd"),
)
_RESERVE = (
    update(budgets)
    .where(
        _THESE,
        or_(budgets.c.tokens_limit.is_(None), _AFTER[0] <= budgets.c.tokens_limit),
        or_(budgets.c.nanousd_limit.is_(None), _AFTER[1] <= budgets.c.nanousd_limit),
    )
    .values(
        tokens_reserved=budgets.c.tokens_reserved + bindparam("tokens"),
        nanousd_reserved=budgets.c.nanousd_reserved + bindparam("nanousd"),
    )
)
_SETTLE = (
    update(budgets)
    .where(_THESE)
    .values(
        tokens_reserved=budgets.c.tokens_reserved - bindparam("freed_tokens"),
        nanousd_reserved=budgets.c.nanousd_reserved - bindparam("freed_nanousd"),
        tokens_spent=budgets.c.tokens_spent + bindparam("tokens"),
        nanousd_spent=budgets.c.nanousd_spent + bindparam("nanousd"),
    )
)
_LOOK = select(budgets).where(_THESE)
_ROWS = 3


def open_rows(connection: Connection, tenant: str, pipeline_id: str) -> None:
    """The rows of a tenant and of a new pipeline, with no limit yet."""
    for name in (ALL, pipeline_id):
        row = {"tenant": tenant, "pipeline_id": name, "agent_id": ALL}
        connection.execute(insert_unless_present(connection, budgets).values(row))


def limit(
    connection: Connection, tenant: str, pipeline_id: str, agent_id: str, limits: Mapping[str, int | None]
) -> None:
    """Set limits (`tokens_limit`, `nanousd_limit`; None is none) of a row, which is made if it is not there."""
    key = {"tenant": tenant, "pipeline_id": pipeline_id, "agent_id": agent_id}
    connection.execute(insert_unless_present(connection, budgets).values(key))
    this = and_(*(budgets.c[name] == value for name, value in key.items()))
    connection.execute(update(budgets).where(this).values(**limits))


def reserve(connection: Connection, entry: Entry, agent_id: str, amount: Mapping[str, int]) -> None:
    """Reserve a turn's `amount` in all three rows.

    Raises:
        BudgetSpent: one of them has no room for it.
    """
    key = {"this_tenant": entry.tenant, "this_id": entry.pipeline_id, "this_agent": agent_id}
    asked = {"tokens": amount["tokens"], "nanousd": amount["cost_nanousd"]}
    if connection.execute(_RESERVE, {**key, **asked}).rowcount < _ROWS:
        raise _no_room(connection.execute(_LOOK, key).all(), asked)


def settle(
    connection: Connection, entry: Entry, agent_id: str, freed: Mapping[str, int], spent: Mapping[str, int]
) -> None:
    """Give back what a turn had reserved, and charge what it took."""
    if not any((*freed.values(), *spent.values())):
        return
    connection.execute(
        _SETTLE,
        {
            "this_tenant": entry.tenant,
            "this_id": entry.pipeline_id,
            "this_agent": agent_id,
            "freed_tokens": freed["tokens"],
            "freed_nanousd": freed["cost_nanousd"],
            "tokens": spent["tokens"],
            "nanousd": spent["cost_nanousd"],
        },
    )


def settle_whole(connection: Connection, tenant: str, pipeline_id: str) -> None:
    """Charge everything that a pipeline's turns had reserved: nobody will learn what became of their calls."""
    reserved = connection.execute(
        select(budgets.c.agent_id, budgets.c.tokens_reserved, budgets.c.nanousd_reserved).where(
            budgets.c.tenant == tenant, budgets.c.pipeline_id == pipeline_id
        )
    ).all()
    in_all = next((row for row in reserved if row.agent_id == ALL), None)
    if in_all is None:
        return
    charged = {
        "tokens_spent": budgets.c.tokens_spent + budgets.c.tokens_reserved,
        "nanousd_spent": budgets.c.nanousd_spent + budgets.c.nanousd_reserved,
        "tokens_reserved": 0,
        "nanousd_reserved": 0,
    }
    own = and_(budgets.c.tenant == tenant, budgets.c.pipeline_id == pipeline_id)
    connection.execute(update(budgets).where(own).values(**charged))
    connection.execute(
        update(budgets)
        .where(budgets.c.tenant == tenant, _TENANT)
        .values(
            tokens_spent=budgets.c.tokens_spent + in_all.tokens_reserved,
            nanousd_spent=budgets.c.nanousd_spent + in_all.nanousd_reserved,
            tokens_reserved=budgets.c.tokens_reserved - in_all.tokens_reserved,
            nanousd_reserved=budgets.c.nanousd_reserved - in_all.nanousd_reserved,
        )
    )


def select_budgets(connection: Connection, tenant: str, pipeline_id: str) -> list[BudgetRow]:
    """The rows of a tenant and of one of its pipelines with its agents: the tenant's first, then the pipeline's."""
    query = (
        select(budgets)
        .where(budgets.c.tenant == tenant, budgets.c.pipeline_id.in_([ALL, pipeline_id]))
        .order_by(budgets.c.pipeline_id, budgets.c.agent_id)
    )
    rows = connection.execute(query).mappings()
    return [BudgetRow(**{name: value for name, value in row.items() if name != "tenant"}) for row in rows]


def _no_room(rows: Sequence[Row[Any]], asked: Mapping[str, int]) -> BudgetSpent:
    """Which row has no room, and whether there would be some if no other turn were under way."""
    if len(rows) < _ROWS:
        return BudgetSpent("a budget's row is missing: run `trilogue db upgrade`")
    refusals = [refusal for row in rows for refusal in _refusals(row, asked)]
    for_good = next((refusal for refusal in refusals if not refusal.passing), None)
    # None at all: on PostgreSQL, another turn settled between our two statements.
    return for_good or next(iter(refusals), BudgetSpent("the budget had no room just now", passing=True))


def _refusals(row: Row[Any], asked: Mapping[str, int]) -> Iterator[BudgetSpent]:
    who = "the agent" if row.agent_id else "the pipeline" if row.pipeline_id else "the tenant"
    for what, need in asked.items():
        most, spent = getattr(row, f"{what}_limit"), getattr(row, f"{what}_spent")
        reserved = getattr(row, f"{what}_reserved")
        if most is not None and spent + reserved + need > most:
            told = dollars if what == "nanousd" else "{:,} tokens".format
            yield BudgetSpent(
                f"{who} has spent {told(spent)} of {told(most)} and reserved {told(reserved)}: "
                f"no room for another {told(need)}",
                passing=reserved > 0 and spent + need <= most,
            )
