"""What the routes need from the application around them."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from trilogue.desk import Desk
from trilogue.identity import Access, Caller
from trilogue.ledger.identities import By
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

logger = logging.getLogger(__name__)

_LAST_TICKETS = 2.0
"""Seconds that tickets on their way are waited for at the end; a lost one costs nothing but time."""


class Tickets:
    """Tells workers that a pipeline waits, beside the answer that says so: it never delays or fails that."""

    def __init__(self, on_queued: Callable[[], Awaitable[None]]) -> None:
        self._on_queued = on_queued
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self) -> None:
        task = asyncio.get_running_loop().create_task(self._send())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self) -> None:
        try:
            await self._on_queued()
        except Exception:
            logger.exception("no ticket was sent; the workers' upkeep finds what waits")

    async def close(self) -> None:
        """Let those under way arrive, for a moment."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=_LAST_TICKETS)
            for task in late:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*late, return_exceptions=True)


# Asynchronous, for FastAPI takes a thread for any other.
async def _services(connection: HTTPConnection) -> Services:
    services: Services = connection.app.state.services
    return services


async def _tickets(connection: HTTPConnection) -> Tickets:
    tickets: Tickets = connection.app.state.tickets
    return tickets


async def _desk(connection: HTTPConnection) -> Desk:
    """The caller's desk; whoever passed the guard may do everything within the one tenant."""
    key = connection.app.state.settings.api_key
    caller = Caller(tenant=TENANT, access=Access.ADMIN, installation=key is not None)
    source = connection.client.host if connection.client else None
    return Desk(connection.app.state.services, caller, by=By(actor=caller.actor, source=source))


Use = Annotated[Services, Depends(_services)]
AtDesk = Annotated[Desk, Depends(_desk)]
Announce = Annotated[Tickets, Depends(_tickets)]
