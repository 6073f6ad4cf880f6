"""A warm worker for `warm`: `python -m benchmarks.warm_worker CONCURRENCY`, until SIGTERM."""

import asyncio
import logging
import sys

from trilogue.launch import prefect_server, work
from trilogue.settings import load_settings

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    settings = load_settings()
    with prefect_server(settings, lambda _: None):
        asyncio.run(work(settings, concurrency=int(sys.argv[1]), grace=0))
