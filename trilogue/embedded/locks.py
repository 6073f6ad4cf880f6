"""Advisory file locks (`flock`), taken without waiting.

The kernel drops a lock when the last descriptor of its open file is closed, also for a
process that was killed, so a lock says who is alive where a recorded pid could lie.
"""

import fcntl
import os
from pathlib import Path


class Lock:
    """One open lock file. Nothing is locked until one of the `try_` calls says `True`."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """The descriptor; a process that inherits it keeps the lock held for as long as it lives."""
        return self._fd

    def try_shared(self) -> bool:
        """Hold the lock beside others that share it."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Hold the lock alone."""
        return self._try(fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock back and keep the file open."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, and with it give the lock back."""
        os.close(self._fd)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at `path` exclusively; makes no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
