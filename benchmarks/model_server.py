"""The model server of the benchmarks: the rehearsal's answers over real HTTP, each after the same latency.

It serves one model under a name that is no rehearsal, so that Trilogue uses the wire and not
the built-in transport.
"""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from trilogue.models.rehearsal import rehearse
from trilogue.testing.openrouter import serving

MODEL = "bench"


def _brain(request: Mapping[str, Any]) -> str:
    return rehearse({**request, "model": "rehearsal"})


async def _serve(latency: float) -> None:
    async with serving(_brain, latency=latency, models=(MODEL,)) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
