"""A warm worker: draws tickets, keeps up what was left behind, and drains before it ends.

Its event loop runs beside the main thread, which only waits for signals: there Prefect would set a
handler of its own at each flow's start, which raises wherever the loop happens to be.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial

from tasks.drawing import Drawing
from tasks.handing_out import handed_out
from tasks.process import serving
from tasks.taking_up import Carry, carried
from tasks.tickets import draw_for_tickets
from trilogue.anchoring import keep_anchored
from trilogue.errors import TrilogueError
from trilogue.services import Services
from trilogue.settings import Settings

logger = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks at what waits, while there is room: what a lost ticket costs."""

_UPKEEP_EVERY = 5.0
"""Seconds between two looks for orphans (DESIGN section 8)."""

_ORPHANS_IN_ONE_GO = 100
_CANCEL_AGAIN = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ending:
    """How far the end of a worker is asked for. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = 0
        self.begun = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        """Once: to drain. Again: to let go of everything at once."""
        self._asked += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._tell)

    def hear(self) -> None:
        """Have the running loop's events set from now on."""
        self._loop = asyncio.get_running_loop()
        self._tell()

    def _tell(self) -> None:
        if self._asked > 0:
            self.begun.set()
        if self._asked > 1:
            self.hurried.set()


async def work(
    settings: Settings, carry: Carry, *, concurrency: int, grace: float, ready: Callable[[], None] = lambda: None
) -> None:
    """Carry pipelines, at most `concurrency` at once, until SIGTERM or SIGINT; then drain and return.

    Draining takes nothing new, gives what runs `grace` seconds (none after a second signal), and lets go of the
    rest so that other workers take it up at once. Cancelled, it lets go at once.

    Args:
        ready: called, in another thread, once it takes what waits.

    Raises:
        Invalid, Unavailable, RevisionMismatch, Denied, NotFound: what is configured cannot be used.
    """
    ending = Ending()
    worked = _worked(settings, carry, ending, concurrency=concurrency, grace=grace, ready=ready)
    with _signals(ending.ask):
        working = asyncio.ensure_future(asyncio.to_thread(asyncio.run, worked))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            ending.ask()
            ending.ask()
            await asyncio.wait({working})
            raise


@contextlib.contextmanager
def _signals(told: Callable[[], None]) -> Iterator[None]:
    loop, before = asyncio.get_running_loop(), {sign: signal.getsignal(sign) for sign in _SIGNALS}
    for sign in _SIGNALS:
        loop.add_signal_handler(sign, told)
    try:
        yield
    finally:
        for sign in _SIGNALS:
            loop.remove_signal_handler(sign)
            signal.signal(sign, before[sign])


async def _worked(
    settings: Settings, carry: Carry, ending: Ending, *, concurrency: int, grace: float, ready: Callable[[], None]
) -> None:
    async with serving(settings) as process:
        services = process.services
        launch = handed_out if settings.launcher == "deployment" else partial(carried, carry)
        drawing = Drawing(services, launch, concurrency=concurrency)
        parts = (draw_for_tickets(drawing), _keep_up(drawing, services), keep_anchored(services))
        drawers = [asyncio.create_task(part) for part in parts]
        ended = asyncio.create_task(ending.begun.wait())
        ending.hear()
        ready()
        try:
            await asyncio.wait([*drawers, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            drawing.close()
            ended.cancel()
            await _end(drawers)
            await drawing.drained(grace=grace, hurry=ending.hurried)
        for drawer in drawers:
            if not drawer.cancelled():
                drawer.result()  # it never ends by itself: what broke it is the worker's error


async def _keep_up(drawing: Drawing, services: Services) -> None:
    """Look for what waits and for what was left behind, for ever, whatever becomes of the tickets."""
    loop, upkeep_due = asyncio.get_running_loop(), 0.0
    while True:
        if loop.time() >= upkeep_due:
            upkeep_due = loop.time() + _UPKEEP_EVERY
            await _queue_orphans(services)
            await drawing.fill()
        drawing.freed.clear()
        if drawing.room > 0:
            await drawing.draw()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                await drawing.freed.wait()


async def _queue_orphans(services: Services) -> None:
    try:
        # One that was just let go is still its user's: for a lease's length.
        queued = await services.ledger.queue_orphans(
            let_go_seconds=services.settings.lease_seconds, limit=_ORPHANS_IN_ONE_GO
        )
    except TrilogueError as error:
        logger.warning("orphans cannot be seen: %s", error.message)
        return
    for _, pipeline_id in queued:
        logger.info("%s was left behind; any worker takes it up", pipeline_id)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they have ended: Prefect's worker swallows what strikes it in the middle of a ticket."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_CANCEL_AGAIN)
