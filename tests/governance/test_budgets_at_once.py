"""A budget that fits 20 calls holds against 64 at once from four processes, and refuses nobody while room is left."""

import asyncio
import json
import sys
from dataclasses import dataclass

import pytest

from trilogue.ledger import Ledger
from trilogue.ledger.opening import TENANT
from trilogue.ledger.rows import BudgetRow

PROCESSES, CALLS, TOKENS, FITS = 4, 16, 1_000, 20


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What 64 calls came to, and the tenant's row as somebody saw it on the way, over and over."""

    granted: int
    refused: int
    seen: list[BudgetRow]
    last: BudgetRow


async def spent_by_four_processes(url: str, share: float) -> Spent:
    ledger = await Ledger.open(url, migrate=False)
    try:
        before = await _tenant(ledger)
        limit = before + TOKENS * FITS
        await ledger.limit_tenant(TENANT, tokens=limit, nanousd=None)
        spenders = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.governance.spender", url, f"p-{share:g}-{number}"),
                *(str(CALLS), str(TOKENS), str(share)),
                stdout=asyncio.subprocess.PIPE,
            )
            for number in range(PROCESSES)
        ]
        seen: list[BudgetRow] = []
        telling = asyncio.gather(*(spender.communicate() for spender in spenders))
        while not telling.done():
            seen += await ledger.budgets(TENANT, "")
            await asyncio.sleep(0.001)
        said = [json.loads(out) for out, _ in await telling]
        last = (await ledger.budgets(TENANT, ""))[0]
        await ledger.limit_tenant(TENANT, tokens=None, nanousd=None)
    finally:
        await ledger.close()
    return Spent(
        granted=sum(one["granted"] for one in said), refused=sum(one["refused"] for one in said), seen=seen, last=last
    )


async def _tenant(ledger: Ledger) -> int:
    rows = await ledger.budgets(TENANT, "")
    return rows[0].tokens_spent if rows else 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("share", "granted"),
    [
        pytest.param(1.0, FITS, id="each takes all that it reserved"),
        pytest.param(0.25, PROCESSES * CALLS, id="each takes a quarter", marks=pytest.mark.slow),
        pytest.param(1.5, None, id="each takes half as much again", marks=pytest.mark.slow),
    ],
)
async def test_64_calls_from_four_processes_against_a_budget_that_fits_20(
    ledger_url: str, share: float, granted: int | None
) -> None:
    spent = await spent_by_four_processes(ledger_url, share)
    assert spent.granted + spent.refused == PROCESSES * CALLS
    limit = spent.seen[-1].tokens_limit
    assert limit is not None
    overrun = max(0, round(spent.granted * TOKENS * (share - 1)))
    assert max(row.tokens_reserved for row in spent.seen) <= FITS * TOKENS
    assert max(row.tokens_spent + row.tokens_reserved for row in spent.seen) <= limit + overrun
    assert spent.last.tokens_reserved == 0
    before = limit - FITS * TOKENS
    assert spent.last.tokens_spent - before == round(spent.granted * TOKENS * share)
    if granted is not None:
        assert spent.granted == granted, "refused while room was left, or granted without any"
    else:  # every call in flight settles above its reservation: that is the only overrun
        assert spent.last.tokens_spent <= limit + overrun
        assert spent.last.tokens_spent + TOKENS > limit, "somebody was refused while room was left"
    print(f"{share:g}: {spent.granted} granted, {spent.refused} refused, most reserved ", end="")  # noqa: T201
    print(max(row.tokens_reserved for row in spent.seen))  # noqa: T201
