"""The one writer of a process: a thread that commits what is waiting, together.

Callers hand in units of work. Those that wait at the same time share a transaction, so
that a commit costs the disk once for all of them; should one of them raise, they are
done again one by one, and only the culprit gets its error. A unit may therefore run
more than once and must not touch anything but its connection. A unit runs wholly or
not at all, also when its caller is cancelled.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from trilogue.errors import Conflict, Unavailable
from trilogue.ledger.faults import first_line, translate, worth_repeating

T = TypeVar("T")

OUTCOME_UNKNOWN = "outcome_unknown"
"""The code of an `Unavailable` after which the unit may have been committed, or may be yet."""

_BATCH = 64
_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class _Job:
    unit: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class _OutOfReachError(Exception):
    """No transaction could begin, or nobody knows how one ended: the next unit would fare no better."""


class Writer:
    """Runs units of work on one connection of `engine`; `address` names the database in errors."""

    def __init__(self, engine: Engine, *, address: str) -> None:
        self._engine = engine
        self._address = address
        self._connection: Connection | None = None
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in a transaction and return its result once that is committed.

        Raises:
            Unavailable: the database is out of reach; with code `outcome_unknown` the
                connection broke during the commit, so look before doing it again.
        """
        job = _Job(unit=unit)
        with self._closing:
            if self._closed:
                raise Conflict("the ledger is closed: open it again", code="closed")
            self._waiting.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    async def close(self) -> None:
        """Commit what is waiting, then end the thread and its connection."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            jobs, open_for_more = self._take()
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if wanted:
                self._settle(wanted)
        self._drop_connection()

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._waiting.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH:
                return jobs, True
            try:
                job = self._waiting.get_nowait()
            except Empty:
                return jobs, True
        return jobs, False

    def _settle(self, jobs: Sequence[_Job]) -> None:
        try:
            if len(jobs) > 1 and self._together(jobs):
                return
            for job in jobs:
                self._alone(job)
        except _OutOfReachError as error:
            self._refuse(jobs, error.args[0])
        except Exception as error:  # noqa: BLE001 - without this thread nobody could write any more
            self._refuse(jobs, translate(error, self._address))

    def _refuse(self, jobs: Sequence[_Job], error: BaseException) -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)

    def _together(self, jobs: Sequence[_Job]) -> bool:
        try:
            results = self._transact([job.unit for job in jobs])
        except _OutOfReachError:
            raise
        except Exception:  # noqa: BLE001 - each unit meets its own error again when it runs alone
            return False
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
        return True

    def _alone(self, job: _Job) -> None:
        for tries_left in reversed(range(_TRIES)):
            try:
                [result] = self._transact([job.unit])
            except _OutOfReachError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
                if tries_left and worth_repeating(error):
                    continue
                job.future.set_exception(translate(error, self._address))
            else:
                job.future.set_result(result)
            return

    def _transact(self, units: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        connection = self._begin()
        try:
            results = [unit(connection) for unit in units]
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            connection.commit()
        except Exception as error:
            lost = connection.invalidated
            self._roll_back(connection)
            if lost:
                unknown = f"the connection to the ledger at {self._address} broke during a commit: {first_line(error)}"
                raise _OutOfReachError(Unavailable(unknown, code=OUTCOME_UNKNOWN)) from error
            raise
        return results

    def _begin(self) -> Connection:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._connection.begin()
        except Exception as error:
            self._drop_connection()
            raise _OutOfReachError(translate(error, self._address)) from error
        return self._connection

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except Exception:  # noqa: BLE001 - the first error is the one that is told
            self._drop_connection()
            return
        if connection.invalidated:
            self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
