"""Anchoring what is due, and bringing anchors outside: all of it cheap where there is nothing to do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from trilogue.anchoring.keys import Signer, signer
from trilogue.anchoring.outside import AnchorFile
from trilogue.errors import TrilogueError, Unavailable
from trilogue.ledger import Ledger
from trilogue.proof.anchors import Anchor, anchor_line, signed_text
from trilogue.settings import Settings
from trilogue.webhooks.sending import Sender
from trilogue.webhooks.signing import read_secrets

logger = logging.getLogger(__name__)

HEADS = 1_000
"""In one anchor: some 200 KB."""

LOOK_EVERY = 5.0
"""Seconds from a pipeline's end to its anchor, at most, while a worker is there."""

_ANCHORS_AT_ONCE = 50
"""Of one tenant, in one look: what is left is due the next time."""
_COPIED_AT_ONCE = 20
_SENT_AT_ONCE = 100
_AGAIN = 5.0
_LATEST_END = 2.0
"""Seconds that a process which ends gives to anchoring; what it leaves is the next one's."""


class Office(Protocol):
    """What anchoring needs; `Services` has it."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def settings(self) -> Settings: ...


class Keeper:
    """Anchors one ledger; `open_keeper` makes one."""

    def __init__(self, office: Office, signs: Signer | None) -> None:
        self._proof, self._settings, self._signs = office.ledger.proof, office.settings, signs
        self._file = AnchorFile(self._settings.anchor_file.expanduser()) if self._settings.anchor_file else None

    async def anchor(self) -> int:
        """Make the anchors that are due; returns how many.

        Raises:
            TrilogueError: the ledger or the key cannot be used.
        """
        if self._signs is None:
            return 0
        every, made = self._settings.anchor_every, 0
        for tenant in await self._proof.due(every_seconds=every):
            for _ in range(_ANCHORS_AT_ONCE):
                drafted = await self._proof.draft(tenant, every_seconds=every, limit=HEADS)
                if drafted is None:
                    break
                signed = await self._signs.sign(signed_text(drafted.hash))
                if await self._proof.append(drafted, signed) is None:
                    continue  # somebody else was quicker
                made += 1
                if len(drafted.heads) < HEADS:
                    break
        return made

    async def copy(self) -> None:
        """Bring what is anchored outside, to the file and the address that are configured.

        Raises:
            TrilogueError: the ledger, the file or the address cannot be used.
        """
        failed: list[TrilogueError] = []
        for bring in (self._to_file, self._to_url):
            try:
                await bring()
            except TrilogueError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    async def _to_file(self) -> None:
        if self._file is None:
            return
        present = await asyncio.to_thread(self._file.last)
        for tenant, seq in (await self._proof.chains()).items():
            after = present.get(tenant, 0)
            while after < seq:
                some = await self._proof.anchors(tenant, after=after, limit=_COPIED_AT_ONCE)
                if not some:
                    break
                await asyncio.to_thread(self._file.append, some, await self._keys(tenant))
                after = some[-1].seq

    async def _to_url(self) -> None:
        settings = self._settings
        if settings.anchor_url is None:
            return
        hold = _SENT_AT_ONCE * settings.webhook_timeout
        claimed = await self._proof.claim_sending(hold_seconds=hold)
        if not claimed:
            return
        secrets = read_secrets(settings.webhook_secret)
        async with Sender(
            secrets, allow_private=settings.webhook_allow_private, timeout=settings.webhook_timeout
        ) as sender:
            for tenant, after in claimed.items():
                await self._send(sender, settings.anchor_url, tenant, after)

    async def _send(self, sender: Sender, url: str, tenant: str, after: int) -> None:
        keys, error, sent = await self._keys(tenant), None, after
        some = await self._proof.anchors(tenant, after=after, limit=_SENT_AT_ONCE)
        try:
            for anchor in some:
                body = anchor_line(anchor, keys.get(anchor.key_id, b"")).encode()
                answer = await sender.send(url, _message_id(anchor), body)
                if not answer.delivered:
                    error = answer.error
                    break
                sent = anchor.seq
        finally:
            await self._proof.settle_sending(tenant, sent, again_in=_AGAIN if error else 0.0)
        if error:
            raise Unavailable(f"anchor {sent + 1} was not taken by TRILOGUE_ANCHOR_URL: {error}", code="anchor_url")

    async def _keys(self, tenant: str) -> dict[str, bytes]:
        return {row.key_id: row.public_key for row in await self._proof.keys(tenant)}


def _message_id(anchor: Anchor) -> str:
    """The same for each try, so that a receiver can tell one that comes twice."""
    return f"an_{anchor.hash[:32]}"


@asynccontextmanager
async def open_keeper(office: Office) -> AsyncIterator[Keeper]:
    """A keeper with its key. Raises as `signer`."""
    async with signer(office.settings) as signs:
        yield Keeper(office, signs)


async def anchor_due(office: Office) -> int:
    """Anchor what is due, bring it outside, and return how many anchors were made.

    Raises:
        TrilogueError: what keeps it from being done; what was anchored stays.
    """
    async with open_keeper(office) as keeper:
        made = await keeper.anchor()
        await keeper.copy()
        return made


async def anchor_at_end(office: Office) -> None:
    """As `anchor_due`, for a process that ends: briefly, and what cannot be done is left to the next one."""
    try:
        async with asyncio.timeout(_LATEST_END):
            await anchor_due(office)
    except TrilogueError as error:
        logger.info("not anchored: %s", error.message)
    except TimeoutError:
        logger.info("not anchored within %g s", _LATEST_END)


async def keep_anchored(office: Office, *, every: float = LOOK_EVERY) -> None:
    """Anchor as it becomes due, for ever; what keeps it from being done is told once, until it is over."""
    told: str | None = None
    while True:
        try:
            async with open_keeper(office) as keeper:
                while True:
                    await keeper.anchor()
                    await keeper.copy()
                    told = None
                    await asyncio.sleep(every)
        except TrilogueError as error:
            if error.message != told:
                logger.warning("the record waits to be anchored: %s", error.message)
            told = error.message
        await asyncio.sleep(every)
