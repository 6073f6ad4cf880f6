"""A port that stays ours from the first moment to the last, also between two lives of the server behind it."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from trilogue.errors import Conflict

_ANSWER_WITHIN = 5.0


@contextmanager
def listening(host: str, port: int, *, option: str) -> Iterator[socket.socket]:
    """Listen on a port; who connects while no server runs waits for it.

    Args:
        option: how the user chooses another port, for the message.

    Raises:
        Conflict: the port is taken, or not to be had.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            ours.bind((host, port))
            ours.listen(512)
        except OSError as error:
            raise Conflict(
                f"port {port} of {host} cannot be used: {(error.strerror or str(error)).lower()}; "
                f"end what listens there, or choose another with {option}",
                code="port_taken",
            ) from None
        yield ours


async def answers(host: str, port: int, path: str, key: str | None) -> bool:
    """Whether what listens at a port says 200 to a GET of `path`."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                authorization = f"Authorization: Bearer {key}\r\n" if key else ""
                request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}Connection: close\r\n\r\n"
                writer.write(request.encode())
                return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
