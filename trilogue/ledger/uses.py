"""When each API key was used last: noted at once, written behind the requests' backs, many keys together.

No key's row is written more than once a minute, by however many processes it is used.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, or_, update

from trilogue.clock import SECOND, Micros
from trilogue.errors import TrilogueError
from trilogue.ledger.identities import KeyRow
from trilogue.ledger.identity_tables import api_keys
from trilogue.ledger.store import Store

logger = logging.getLogger(__name__)

NOTED_EVERY: Micros = 60 * SECOND
_BATCH_SECONDS = 2.0


class Uses:
    """What was noted and is not written yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[tuple[str, str], Micros] = {}
        self._writing: asyncio.Task[None] | None = None

    def note(self, row: KeyRow) -> None:
        """A key was used when `row` was read."""
        if row.last_used_at is not None and row.read_at - row.last_used_at < NOTED_EVERY:
            return
        self._noted[row.tenant, row.key_id] = row.read_at
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_later())

    async def write(self) -> None:
        """Write what was noted, of all tenants, in one transaction; a ledger out of reach forgets it."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            await self._store.write(lambda c: _write(c, noted))
        except TrilogueError as error:
            logger.warning("the last use of %d API keys is not recorded: %s", len(noted), error.message)

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            self._writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        await self.write()

    async def _write_later(self) -> None:
        while self._noted:
            await asyncio.sleep(_BATCH_SECONDS)
            await self.write()


_USED = (
    update(api_keys)
    .where(
        api_keys.c.tenant == bindparam("of_tenant"),
        api_keys.c.id == bindparam("of_id"),
        # Another process may have noted a use meanwhile.
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= bindparam("at") - NOTED_EVERY),
    )
    .values(last_used_at=bindparam("at"))
)


def _write(connection: Connection, noted: Mapping[tuple[str, str], Micros]) -> None:
    # In one order, so that two processes do not wait for each other.
    rows = [{"of_tenant": tenant, "of_id": key_id, "at": at} for (tenant, key_id), at in sorted(noted.items())]
    connection.execute(_USED, rows)
