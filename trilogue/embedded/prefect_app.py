"""The program of the embedded Prefect server: Prefect's own app on a socket that is already listening.

Not `uvicorn --fd`, which takes every socket for a Unix one and so leaves TCP's delays on.
"""

import socket
import sys

import uvicorn

_GRACE = 2  # seconds for open connections; the guardian kills after three


def main(descriptor: int) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
