"""One viewer's connection: everything is sent to it, in time, until it leaves, is too slow, or the server goes away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from fastapi import WebSocket, WebSocketDisconnect

from trilogue import clock
from trilogue.api.feed import Told, told
from trilogue.errors import Invalid, NotFound, TrilogueError
from trilogue.events import connection_event
from trilogue.live.ending import end

BAD_REQUEST: Final = 4400
NO_PIPELINE: Final = 4404
TOO_SLOW: Final = 4408
GOING_AWAY: Final = 1012
TALKS_TOO_MUCH: Final = 1008
FAILED: Final = 1011

_TAKEN_MESSAGES, _TAKEN_CHARACTERS = 64, 16_384
"""What a viewer may send between two heartbeats; nobody reads it."""
_LAST_WORD = 5.0
"""Seconds that a viewer who is being dropped gets to take the close code."""


class Telling(Protocol):
    """What there is to be told to one viewer, in batches."""

    given_up: bool

    def __aiter__(self) -> AsyncIterator[Sequence[Told]]: ...


class Ending(Enum):
    """Why the telling ended."""

    GONE = "gone"  # the viewer has left
    DONE = "done"  # nothing more is to come, or the server is going away
    SLOW = "slow"


async def carry(
    viewer: Telling,
    send: Callable[[Told], Awaitable[None]],
    gone: Callable[[], Coroutine[Any, Any, None]],
    *,
    patience: float,
) -> Ending:
    """Send everything to a viewer until it is gone, there is no more, or one message takes longer than `patience`.

    Raises:
        what `gone` and `send` raise.
        Unavailable: a feed is broken.
    """
    sending_since: float | None = None
    now = asyncio.get_running_loop().time

    async def send_all() -> None:
        nonlocal sending_since
        async for events in viewer:
            for event in events:
                sending_since = now()
                await send(event)
                sending_since = None
            await asyncio.sleep(0)  # a sending that need not wait lets nobody else get a word in

    sending = asyncio.create_task(send_all(), name="viewer")
    listening = asyncio.create_task(gone(), name="viewer's words")
    try:
        while not (sending.done() or listening.done()):
            if sending_since is not None and now() - sending_since > patience:
                viewer.given_up = True
                return Ending.SLOW
            await asyncio.wait({sending, listening}, timeout=patience / 4, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
            return Ending.GONE
        sending.result()
        return Ending.DONE
    finally:
        for task in (sending, listening):
            if not task.done():
                await end(task)
            elif not task.cancelled():
                task.exception()  # looked at above, or of no interest any more


class TooMuch(Exception):
    """The viewer talks though nobody listens."""


async def converse(websocket: WebSocket, viewer: Telling, *, heartbeat: float, patience: float) -> None:
    """Tell a viewer at a WebSocket everything, and close it where there is no more, or it is too slow.

    Raises:
        TooMuch: it talks though nobody listens.
        WebSocketDisconnect: it has left.
        Unavailable: a feed is broken.
    """

    async def tell(event: Told) -> None:
        await send(websocket, event.text)

    async def gone() -> None:
        taken, characters, since = 0, 0, clock.now()
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            if clock.now() - since > clock.seconds(heartbeat):
                taken, characters, since = 0, 0, clock.now()
            taken += 1
            characters += len(message.get("text") or message.get("bytes") or "")
            if taken > _TAKEN_MESSAGES or characters > _TAKEN_CHARACTERS:
                raise TooMuch

    match await carry(viewer, tell, gone, patience=patience):
        case Ending.SLOW:
            await close(websocket, TOO_SLOW, "you read too slowly; come back with after=")
        case Ending.DONE:
            await close(websocket, GOING_AWAY, "the server is going away; come back with after=")


async def send(websocket: WebSocket, text: str) -> None:
    """Raises `WebSocketDisconnect` when the viewer has left, or the server has closed the connection by itself."""
    try:
        await websocket.send({"type": "websocket.send", "text": text})
    except RuntimeError:
        raise WebSocketDisconnect(1006) from None


async def close(websocket: WebSocket, code: int, detail: str, *, error: str | None = None) -> None:
    """Close with `code`, after saying why where there is an error; whoever does not take it is left behind."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(_LAST_WORD):
            if error:
                event = connection_event("error", clock.now(), {"error": error, "detail": detail})
                await send(websocket, told(event).text)
            # A control frame has room for 123 bytes.
            await websocket.close(code, detail.encode()[:120].decode(errors="ignore"))


@contextlib.asynccontextmanager
async def refusing(websocket: WebSocket) -> AsyncIterator[None]:
    """Close a WebSocket with the code that tells why, where what is asked for cannot be told."""
    try:
        yield
    except TooMuch:
        await close(websocket, TALKS_TOO_MUCH, "what you send is not read; send less")
    except TrilogueError as error:
        code = {NotFound: NO_PIPELINE, Invalid: BAD_REQUEST}.get(type(error), FAILED)
        await close(websocket, code, error.message, error=error.code)
    except WebSocketDisconnect:
        pass
