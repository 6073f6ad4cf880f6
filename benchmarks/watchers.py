"""The viewers of the benchmark of events, in a process of their own: `python -m benchmarks.watchers URL VIEWERS LAST`.

Prints a line when all are connected, and one JSON object in the end: for each `seq` when it came to each viewer.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict

from websockets.asyncio.client import connect

_SEQ = re.compile(r'"seq":(\d+)')


async def _watch(url: str, viewers: int, last: int) -> None:
    came: dict[int, list[int]] = defaultdict(list)
    connected = asyncio.Semaphore(0)

    async def one() -> None:
        async with connect(url, max_queue=None) as socket:
            connected.release()
            async for message in socket:
                if found := _SEQ.search(str(message)):
                    seq = int(found[1])
                    came[seq].append(time.monotonic_ns())
                    if seq >= last:
                        return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(viewers):
            tasks.create_task(one())
            await connected.acquire()
        print("ready", flush=True)
    print(json.dumps(came), flush=True)


if __name__ == "__main__":
    asyncio.run(_watch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
