"""The program of the embedded Prefect server: Prefect's own app on a socket that is already listening.

Not `uvicorn --fd`, which takes every socket for a Unix one and so leaves TCP's delays on.
"""

import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

_GRACE = 2  # seconds for open connections; the guardian kills after three


class _Sqlite(AioSqliteConfiguration):
    """Transactions that take SQLite's write lock as they begin, and so wait for each other.

    Prefect begins most of its own as readers. One that comes to write after another has written fails at
    once: the client is told 503, waits 2, 4, 8 … s, and gives up after five tries, at 16 flow runs at once.
    """

    @asynccontextmanager
    async def begin_transaction(self, session: Any, with_for_update: bool = True) -> AsyncGenerator[Any, None]:
        del with_for_update
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def _app() -> FastAPI:
    set_database_config(_Sqlite(connection_url=PREFECT_API_DATABASE_CONNECTION_URL.value()))
    return create_app()


def main(descriptor: int) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        _app,
        factory=True,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
