"""Sending what the ledger says is due: each webhook by one process at a time, until it was delivered or given up.

Any process that carries pipelines does this beside them. A webhook whose sender dies is due again
soon, so it may arrive twice, with the same id.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from trilogue.clock import Micros, seconds
from trilogue.errors import Invalid, TrilogueError
from trilogue.ledger import DeliveryRow, Ledger
from trilogue.settings import Settings
from trilogue.webhooks.addresses import read_url, shown
from trilogue.webhooks.sending import Answer, Sender
from trilogue.webhooks.signing import read_secrets

logger = logging.getLogger(__name__)

WAITS: Sequence[float] = (5, 30, 120, 600, 3_600, 3 * 3_600, 8 * 3_600, 12 * 3_600)
"""Seconds from each try that failed to the next: nine tries within a good day, which is what an outage may last."""

AT_ONCE = 32
PER_RECEIVER = 4
"""Webhooks under way at once in a process, and of them to one URL: a slow receiver keeps only its own waiting."""

LOOK_EVERY = 1.0
_PRUNE_EVERY = 3_600.0
_JITTER = 0.2  # receivers that came back are not met by everything at once


class Office(Protocol):
    """What sending needs; `Services` has it."""

    @property
    def ledger(self) -> Ledger: ...

    @property
    def settings(self) -> Settings: ...


async def deliver_due(office: Office, *, waits: Sequence[float] = WAITS) -> int:
    """Try each webhook once that is due now (as many as may be under way at once), and return how many were tried.

    Without `TRILOGUE_WEBHOOK_SECRET` here it leaves them to processes that have it.
    """
    courier = _Courier(office, waits)
    async with contextlib.AsyncExitStack() as stack:
        if not await courier.opened(stack):
            return 0
        claimed = await courier.claimed()
        await asyncio.gather(*(courier.deliver(webhook) for webhook in claimed))
        return len(claimed)


async def deliver_for_ever(
    office: Office, *, every: float = LOOK_EVERY, waits: Sequence[float] = WAITS, over: asyncio.Event | None = None
) -> None:
    """Send what is due as it becomes due, also while the ledger is away at times.

    Args:
        every: seconds between two looks.
        over: once it is set, send what is due then, wait for what is under way, and return.
    """
    over = over or asyncio.Event()
    courier = _Courier(office, waits)
    async with contextlib.AsyncExitStack() as stack:
        if not await courier.opened(stack):
            await over.wait()
            return
        async with asyncio.TaskGroup() as under_way:
            ending = False
            while not ending:
                ending = over.is_set()
                for webhook in await courier.claimed_or_told():
                    under_way.create_task(courier.deliver(webhook))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await over.wait()


@asynccontextmanager
async def delivering(office: Office, *, every: float = LOOK_EVERY) -> AsyncIterator[None]:
    """Send beside what is inside; on leaving in order, what is due by then is tried before this returns."""
    over = asyncio.Event()
    sending = asyncio.create_task(deliver_for_ever(office, every=every, over=over))
    try:
        yield
        over.set()
        await asyncio.wait({sending})
    finally:
        sending.cancel()


class _Courier:
    """The webhooks that this process has under way."""

    def __init__(self, office: Office, waits: Sequence[float]) -> None:
        self._ledger, self._settings, self._waits = office.ledger, office.settings, waits
        self._flying: Counter[str] = Counter()
        self._ledger_away = False
        self._pruned_at = time.monotonic()
        self._sender: Sender | None = None

    async def opened(self, stack: contextlib.AsyncExitStack) -> bool:
        """Whether there is a secret to sign with."""
        settings = self._settings
        try:
            secrets = read_secrets(settings.webhook_secret)
        except Invalid as error:
            logger.warning("no webhook is sent: %s", error.message)
            return False
        if secrets:
            sender = Sender(secrets, allow_private=settings.webhook_allow_private, timeout=settings.webhook_timeout)
            self._sender = await stack.enter_async_context(sender)
        return bool(secrets)

    async def claimed(self) -> list[DeliveryRow]:
        """What is due and may be under way besides what is."""
        room = AT_ONCE - self._flying.total()
        if room <= 0:
            return []
        busy = [url for url, count in self._flying.items() if count >= PER_RECEIVER]
        # Longer than a try can take: whose sender lives is not claimed again.
        hold = 2 * self._settings.webhook_timeout + 2
        webhooks = await self._ledger.claim_deliveries(
            limit=room, per_receiver=PER_RECEIVER, busy=busy, hold_seconds=hold
        )
        self._flying.update(webhook.url for webhook in webhooks)
        return webhooks

    async def claimed_or_told(self) -> list[DeliveryRow]:
        """As `claimed`; a ledger that is away is told of once, until it is back."""
        try:
            webhooks = await self.claimed()
            await self._prune()
        except TrilogueError as error:
            if not self._ledger_away:
                logger.warning("webhooks wait: %s", error.message)
            self._ledger_away = True
            return []
        self._ledger_away = False
        return webhooks

    async def deliver(self, webhook: DeliveryRow) -> None:
        """Try once, and put on record what came of it."""
        assert self._sender is not None
        try:
            answer = await self._sender.send(webhook.url, webhook.delivery_id, webhook.body.encode())
            again_in = self._again_in(webhook, answer)
            if answer.error:
                _tell(webhook, answer.error, again_in)
            await self._ledger.settle_delivery(webhook, error=answer.error, again_in=again_in)
        except TrilogueError as error:  # it is due again once the claim is over
            logger.warning("webhook %s was tried, which could not be recorded: %s", webhook.delivery_id, error.message)
        finally:
            self._flying[webhook.url] -= 1
            self._flying += Counter()  # forgets those of which none is under way

    def _again_in(self, webhook: DeliveryRow, answer: Answer) -> Micros | None:
        if answer.delivered or answer.unwanted or webhook.tries > len(self._waits):
            return None
        return seconds(self._waits[webhook.tries - 1] * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311

    async def _prune(self) -> None:
        """Forget webhooks that ended as long ago as checkpoints are kept."""
        if time.monotonic() - self._pruned_at >= _PRUNE_EVERY:
            self._pruned_at = time.monotonic()
            await self._ledger.prune_deliveries(older_seconds=self._settings.checkpoint_retention)


def _tell(webhook: DeliveryRow, error: str, again_in: Micros | None) -> None:
    try:
        receiver = shown(read_url(webhook.url, allow_private=True))
    except TrilogueError:
        receiver = "its receiver"
    further = "given up" if again_in is None else f"again in {again_in / 1e6:.0f} s"
    logger.warning(
        "webhook %s of %s to %s, try %d: %s; %s",
        webhook.delivery_id,
        webhook.pipeline_id,
        receiver,
        webhook.tries,
        error,
        further,
    )
