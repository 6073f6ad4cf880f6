"""What a program tells whoever started it: notes for people, and that it is ready.

The starter names a pipe in `TRILOGUE_READY_FD`. A note is a line, an empty line means ready. A program
that nobody waits for says nothing.
"""

import contextlib
import os

READY_FD = "TRILOGUE_READY_FD"


def announce(note: str) -> None:
    """Pass on one line that the user should see."""
    _say(" ".join(note.split()))


def announce_ready() -> None:
    """Say that the program does its work from now on; only the first time counts."""
    if _say(""):
        os.close(int(os.environ.pop(READY_FD)))


def _say(line: str) -> bool:
    descriptor = os.environ.get(READY_FD)
    if descriptor is None:
        return False
    with contextlib.suppress(OSError):  # the starter is gone, and we are about to be
        os.write(int(descriptor), f"{line}\n".encode())
    return True
