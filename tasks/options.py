"""The options that our tasks share, each with its reason."""

import tempfile
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from trilogue.errors import EndpointFault, TrilogueError

STORE_RETRIES = 3
"""A ledger that comes back does so within seconds: `Attempt` waits 30 s by itself, so this adds two minutes."""

STORE_RETRY_DELAYS = [1.0, 2.0, 4.0]
"""Seconds; jitter is not needed, each pipeline has its own tasks."""

GRACE = 15.0
"""Seconds beyond an agent's own deadline after which Prefect's timeout is the backstop."""


async def store_out_of_reach(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Whether the failure is worth a retry: only the ledger's or Redis's; the gateway retries its calls itself."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, TrilogueError) and error.retryable and not isinstance(error, EndpointFault)


OPTIONS: dict[str, Any] = {
    # No tags: for each tagged task run Prefect asks its server for concurrency slots, which one on SQLite
    # often answers with 503, and the client then waits two seconds. Deployments bear the tags.
    "retries": STORE_RETRIES,
    "retry_delay_seconds": STORE_RETRY_DELAYS,
    "retry_condition_fn": store_out_of_reach,
    # The ledger remembers what was done; a task run again finds its entries there.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}

FLOW_OPTIONS: dict[str, Any] = {
    # The ledger keeps the result. A storage that is named spares Prefect 3.8 from asking its server for one
    # with a blocking client, whose socket it leaves open; nothing is ever written there.
    "persist_result": False,
    "result_storage": Path(tempfile.gettempdir()),
}
