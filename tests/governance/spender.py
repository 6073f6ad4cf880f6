"""A process that makes many calls at once against one tenant's budget, on the ledger alone.

`python -m tests.governance.spender URL NAME CALLS TOKENS SHARE`: prints how many calls got their
reservation and how many were refused for good, as JSON.
"""

import asyncio
import json
import sys

from trilogue import clock
from trilogue.agent import Mandate, Role, Tier
from trilogue.entry import Draft, Kind
from trilogue.errors import BudgetSpent
from trilogue.ledger import Fence, Ledger
from trilogue.ledger.opening import TENANT

AGENT = "alpha-1"


async def spend(url: str, name: str, calls: int, tokens: int, share: float) -> dict[str, int]:
    """Make `calls` calls at once, each in a pipeline of its own, reserving `tokens` and taking a `share` of them."""
    ledger = await Ledger.open(url, migrate=False)
    try:
        fences = [await _claimed(ledger, f"{name}-{number}") for number in range(calls)]
        granted = await asyncio.gather(*(_call(ledger, fence, tokens, round(tokens * share)) for fence in fences))
    finally:
        await ledger.close()
    return {"granted": sum(granted), "refused": calls - sum(granted)}


async def _claimed(ledger: Ledger, pipeline_id: str) -> Fence:
    mandate = Mandate(agent_id=AGENT, role=Role.ALPHA, tier=Tier.NEGOTIATE, actions={}, tokens=None, expires_at=0)
    agent = {"agent_id": AGENT, "role": "ALPHA", "tier": 1, "runtime": "python", "model": "m"}
    first = [
        Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "spend"}),
        Draft(kind=Kind.AGENT_SPAWNED, body=agent),
        Draft(kind=Kind.MANDATE, body=mandate.as_json()),
    ]
    await ledger.spawn(TENANT, pipeline_id, first, at=clock.now())
    claim = await ledger.claim(TENANT, pipeline_id, owner="spender", lease_seconds=600, flow_run_id=None)
    return claim.fence


async def _call(ledger: Ledger, fence: Fence, tokens: int, took: int) -> bool:
    reserved = {"tokens": tokens, "cost_nanousd": 0}
    turn = {"turn": 1, "agent_id": AGENT, "phase": "RUN", "round": 0, "model": "m", "reserved": reserved}
    while True:
        try:
            await ledger.append(fence, [Draft(kind=Kind.TURN_BEGUN, actor=AGENT, body=turn)], at=clock.now())
        except BudgetSpent as spent:
            if not spent.passing:
                return False
            await asyncio.sleep(0.01)
        else:
            break
    await asyncio.sleep(0.05)
    ended = {
        **turn,
        "settled": {"tokens": took, "cost_nanousd": 0, "estimated": False},
        "usage": None,
        "cost_nanousd": None,
        "calls": 1,
    }
    await ledger.append(fence, [Draft(kind=Kind.TURN_ENDED, actor=AGENT, body=ended)], at=clock.now())
    return True


if __name__ == "__main__":
    url, name, calls, tokens, share = sys.argv[1:]
    print(json.dumps(asyncio.run(spend(url, name, int(calls), int(tokens), float(share)))))  # noqa: T201
