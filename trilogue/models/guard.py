"""What the gateway asks of a circuit breaker, and when calls stood still because of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from trilogue import clock
from trilogue.clock import Micros


class Admission(Protocol):
    """Whether a call may go now: `wait` is seconds until asking again, `trial` marks the one call while open."""

    @property
    def wait(self) -> float: ...
    @property
    def trial(self) -> bool: ...


class Guard(Protocol):
    """A circuit breaker."""

    async def admit(self) -> Admission:
        """Ask for one call."""

    async def note(self, *, ok: bool) -> None:
        """Tell how a call ended: the endpoint answered, or failed."""


class Waits:
    """The times during which any call waited for the breaker, for clocks that stand still meanwhile."""

    def __init__(self) -> None:
        self._waiting = 0
        self._began: Micros = 0
        self._past: list[tuple[Micros, Micros]] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """One call waits."""
        if not self._waiting:
            self._began = clock.now()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._past.append((self._began, clock.now()))

    def since(self, since: Micros, now: Micros) -> Micros:
        """How long calls stood still between `since` and `now`, in microseconds."""
        spans = [*self._past, (self._began, now)] if self._waiting else self._past
        return sum(max(0, min(end, now) - max(begin, since)) for begin, end in spans)
