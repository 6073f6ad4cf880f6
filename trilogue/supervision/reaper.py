"""The program that ends what `up` started, once `up` is gone: it sees its standard input closed.

    python -I reaper.py MARK

What is to end is found by the mark in its environment, which grandchildren inherit whatever session they
are in, and by process group: a line of standard input is a group that came, or went. All get two seconds.
It needs nothing but the standard library, so that it stays small and nothing keeps it from starting.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_PATIENCE = 2.0
_STUBBORN = 5.0
_STEP = 0.05


def main(mark: str) -> None:
    """Wait for the end of `up`, then end the rest."""
    for sign in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        groups ^= {int(line)}
    for sign, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _STUBBORN)):
        deadline = time.monotonic() + patience
        told: set[int] = set()
        while (left := _left(mark.encode(), groups)) and time.monotonic() < deadline:
            for target in left - told:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(target, sign)
            told |= left
            time.sleep(_STEP)


def _left(mark: bytes, groups: set[int]) -> set[int]:
    """The processes with the mark, and (negative) the groups, that are still there."""
    found = {-group for group in groups if _is_there(group)}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1])
