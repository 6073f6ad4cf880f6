"""Verifying the record: all chains, all anchors, and a copy of the anchors that was kept outside.

Everything is read in one transaction, so that what is judged is the ledger as it stood at one moment while workers
go on; nothing is written, and a database user that may only SELECT is enough. Entries are hashed as they are stored.
"""

import base64
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Select, select
from sqlalchemy.exc import OperationalError

from trilogue.errors import NotFound
from trilogue.ledger.tables import anchor_chains, anchor_keys, anchors, entries, pipelines
from trilogue.proof.anchors import Anchor, AnchorChain, Keys, check_anchor, heads_of, key_id_of
from trilogue.proof.chain import Anchored, Chain, Stored
from trilogue.proof.problems import Problem, UnreadableError, What

MOST_PROBLEMS = 100
"""Problems that are told one by one; behind them they are only counted."""

_AT_ONCE = 2_000
PARTS = (
    entries.c.seq,
    entries.c.attempt,
    entries.c.kind,
    entries.c.actor,
    entries.c.at,
    entries.c.body,
    entries.c.prev_hash,
    entries.c.hash,
)

Outside = Sequence[tuple[Anchor, bytes]]
Progress = Callable[[int], None]
"""Told how many entries were looked at so far; may raise to break off."""


@dataclass(kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        anchored, outside: entries up to the last head that a whole anchor of the database, or of the copy outside,
            names and that is in its chain; `outside` is None where no copy was given.
        last_anchor, last_outside: by tenant, `seq` and time.
        trusted: whether signatures were checked with keys that the caller gave.
        wrong: how many problems there are; `problems` are the first ones.
    """

    pipelines: int = 0
    entries: int = 0
    anchors: int = 0
    anchored: int = 0
    outside: int | None = None
    last_anchor: dict[str, tuple[int, int]] = field(default_factory=dict)
    last_outside: dict[str, tuple[int, int]] = field(default_factory=dict)
    trusted: bool = False
    seconds: float = 0.0
    wrong: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.wrong == 0

    def add(self, problem: Problem | None) -> None:
        """Put a problem on the list, where there is one."""
        if problem is not None:
            self.wrong += 1
            if len(self.problems) < MOST_PROBLEMS:
                self.problems.append(problem)


def verify(
    engine: Engine,
    *,
    tenant: str | None,
    pipeline_id: str | None,
    keys: Keys | None,
    outside: Outside | None,
    progress: Progress,
) -> Verdict:
    """Look at everything, or only at a tenant's, or one pipeline's entries; anchors are always a tenant's whole chain.

    Args:
        keys: the only ones that may sign; None: any that the database names.

    Raises:
        NotFound: neither entries nor anchors know the pipeline.
    """
    began = time.monotonic()

    def looked(*, at_any_text: bool) -> Verdict:
        with one_moment(engine, at_any_text=at_any_text) as connection:
            work = _Verification(connection, tenant, pipeline_id, keys, progress)
            work.look_at_anchors()
            if outside is not None:
                work.look_outside(outside)
            work.look_at_entries()
        return work.verdict

    try:
        verdict = looked(at_any_text=False)
    except (OperationalError, UnicodeDecodeError) as error:
        if "decode" not in str(error):
            raise
        verdict = looked(at_any_text=True)  # somebody put into SQLite what is no text; slower, it can be looked at
    verdict.seconds = time.monotonic() - began
    return verdict


@contextmanager
def one_moment(engine: Engine, *, at_any_text: bool = False) -> Iterator[Connection]:
    """A connection on which all that is read stood at the same moment."""
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return
        driver: Any = connection.connection.driver_connection
        if at_any_text:
            driver.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")
            driver.text_factory = str


def batches(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a query, some at a time, as they come from the database."""
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as result:
        yield from result.partitions()


class _Verification:
    def __init__(
        self,
        connection: Connection,
        tenant: str | None,
        pipeline_id: str | None,
        keys: Keys | None,
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._tenant, self._pipeline_id = tenant, pipeline_id
        self._given, self._progress = keys, progress
        self._heads: dict[tuple[str, str], dict[int, Anchored]] = defaultdict(dict)
        self._outside_to: dict[tuple[str, str], int] = {}
        self._known: dict[tuple[str, int], str] = {}  # the database's anchors
        self.verdict = Verdict(trusted=keys is not None)

    def look_at_anchors(self) -> None:
        """Each tenant's chain, its end, its signatures; gather the heads that they name."""
        ends = {row.tenant: (row.seq, row.hash) for row in self._rows(select(anchor_chains))}
        keys = defaultdict[str, dict[str, bytes]](dict)
        for row in self._rows(select(anchor_keys)):
            keys[row.tenant][row.key_id] = self._public(row.key_id, row.public_key)
        query = select(anchors).order_by(anchors.c.tenant, anchors.c.seq)
        seen = set()
        for tenant, rows in groupby(self._rows(query), key=lambda row: str(row.tenant)):
            seen.add(tenant)
            given = self._given if self._given is not None else keys[tenant]
            chain = AnchorChain(tenant, given, trusted=self._given is not None)
            for row in rows:
                anchor = Anchor(**row._mapping)
                self.verdict.anchors += 1
                self._known[tenant, anchor.seq] = anchor.hash
                if chain.take(anchor):
                    self._gather(anchor)
                    self.verdict.last_anchor[tenant] = (anchor.seq, anchor.at)
            chain.end(*ends.pop(tenant, (chain.length, chain.hash)))
            self.verdict.add(chain.problem)
        for tenant, (seq, digest) in ends.items():
            gone = AnchorChain(tenant, {}, trusted=False)
            gone.end(seq, digest)
            self.verdict.add(gone.problem)

    def look_outside(self, copies: Outside) -> None:
        """Every anchor of the copy must be in the database as it is; its heads count where it holds in itself."""
        self.verdict.outside = 0
        told: set[str] = set()
        for copy, public_key in copies:
            if self._tenant not in {None, copy.tenant}:
                continue
            problem = self._judged(copy, public_key)
            if problem is None:
                self._gather(copy, outside=True)
                if copy.seq > self.verdict.last_outside.get(copy.tenant, (0, 0))[0]:
                    self.verdict.last_outside[copy.tenant] = (copy.seq, copy.at)
                problem = self._compared(copy)
            if problem is not None and copy.tenant not in told:
                told.add(copy.tenant)
                self.verdict.add(problem)

    def _judged(self, copy: Anchor, public_key: bytes) -> Problem | None:
        keys = self._given if self._given is not None else {key_id_of(public_key): public_key}
        problem = check_anchor(copy, keys, trusted=self._given is not None)
        if problem is None:
            return None
        what = problem.what if problem.what is What.ANCHOR_UNTRUSTED else What.COPY_CHANGED
        said = f"in the copy kept outside, {problem.message}"
        return Problem(what=what, message=said, tenant=copy.tenant, anchor=copy.seq)

    def _compared(self, copy: Anchor) -> Problem | None:
        present = self._known.get((copy.tenant, copy.seq))
        if present == copy.hash:
            return None
        what, said = (
            (What.ANCHOR_MISSING, "is kept outside, but is not in the database")
            if present is None
            else (What.ANCHOR_REPLACED, "is another one than the one that is kept outside")
        )
        return Problem(what=what, message=f"anchor {copy.seq} {said}", tenant=copy.tenant, anchor=copy.seq)

    def look_at_entries(self) -> None:
        """Each pipeline's chain against its head and the heads that anchors name."""
        kept = self._pipelines()
        head = next(kept, None)
        for key, chain in self._chains():
            while head is not None and head[0] < key:
                self._end(Chain(*head[0], self._heads.pop(head[0], None)), head[1])
                head = next(kept, None)
            if head is not None and head[0] == key:
                self._end(chain, head[1])
                head = next(kept, None)
            else:
                self._end(chain, None)
        while head is not None:
            self._end(Chain(*head[0], self._heads.pop(head[0], None)), head[1])
            head = next(kept, None)
        self._look_for_lost_ones()

    def _chains(self) -> Iterator[tuple[tuple[str, str], Chain]]:
        query = select(entries.c.tenant, entries.c.pipeline_id, *PARTS).order_by(
            entries.c.tenant, entries.c.pipeline_id, entries.c.seq
        )
        chain: Chain | None = None
        for batch in self._batches(self._narrowed(query, entries.c.tenant, entries.c.pipeline_id)):
            for key, rows in groupby(batch, key=itemgetter(0, 1)):
                if chain is None or key != (chain.tenant, chain.pipeline_id):
                    if chain is not None:
                        yield (chain.tenant, chain.pipeline_id), chain
                    chain = Chain(key[0], key[1], self._heads.pop(key, None))
                chain.take(row[2:] for row in rows)
            self.verdict.entries += len(batch)
            self._progress(self.verdict.entries)
        if chain is not None:
            yield (chain.tenant, chain.pipeline_id), chain

    def _end(self, chain: Chain, head: tuple[int, str] | None) -> None:
        key = (chain.tenant, chain.pipeline_id)
        self.verdict.pipelines += 1
        problem = chain.problem(head, lambda: self._stored(*key))
        if problem is None and head is None:
            said = f"pipeline {chain.pipeline_id} has entries, but is not in the list of pipelines"
            problem = Problem(
                what=What.PIPELINE_MISSING, message=said, tenant=chain.tenant, pipeline_id=chain.pipeline_id, seq=1
            )
        self.verdict.add(problem)
        self.verdict.anchored += chain.holds_to
        if self.verdict.outside is not None:
            self.verdict.outside += min(self._outside_to.get(key, 0), chain.holds_to)

    def _look_for_lost_ones(self) -> None:
        """What is left of the anchored heads belongs to pipelines of which nothing is there."""
        for (tenant, pipeline_id), heads in self._heads.items():
            if self._tenant not in {None, tenant} or self._pipeline_id not in {None, pipeline_id}:
                continue
            last = max(heads)
            self.verdict.add(
                Problem(
                    what=What.PIPELINE_MISSING,
                    message=f"pipeline {pipeline_id} is gone: anchor {heads[last].anchor} names its entry {last}",
                    tenant=tenant,
                    pipeline_id=pipeline_id,
                    seq=1,
                    anchor=heads[last].anchor,
                )
            )
        if self._pipeline_id is not None and not self.verdict.pipelines and not self.verdict.wrong:
            raise NotFound(f"no pipeline {self._pipeline_id!r}", code="no_pipeline")

    def _gather(self, anchor: Anchor, *, outside: bool = False) -> None:
        try:
            named = heads_of(anchor)
        except UnreadableError as error:
            said = str(error)
            self.verdict.add(Problem(what=What.ANCHOR_CHANGED, message=said, tenant=anchor.tenant, anchor=anchor.seq))
            return
        for head in named:
            if self._pipeline_id not in {None, head.pipeline_id}:
                continue
            key = (anchor.tenant, head.pipeline_id)
            heads = self._heads[key]
            # What is kept outside is believed, whatever the database says.
            if outside or head.seq not in heads:
                heads[head.seq] = Anchored(head.hash, anchor.seq)
            if outside:
                self._outside_to[key] = max(head.seq, self._outside_to.get(key, 0))

    def _pipelines(self) -> Iterator[tuple[tuple[str, str], tuple[int, str]]]:
        query = select(pipelines.c.tenant, pipelines.c.id, pipelines.c.head_seq, pipelines.c.head_hash).order_by(
            pipelines.c.tenant, pipelines.c.id
        )
        for batch in self._batches(self._narrowed(query, pipelines.c.tenant, pipelines.c.id)):
            for tenant, pipeline_id, seq, digest in batch:
                yield (tenant, pipeline_id), (seq, digest)

    def _stored(self, tenant: str, pipeline_id: str) -> Iterator[Stored]:
        query = select(*PARTS).where(entries.c.tenant == tenant, entries.c.pipeline_id == pipeline_id)
        for batch in self._batches(query.order_by(entries.c.seq)):
            yield from (Stored(*row) for row in batch)

    def _rows(self, query: Select[Any]) -> Iterator[Any]:
        """Of tables that belong to a tenant."""
        for batch in self._batches(self._narrowed(query, query.selected_columns.tenant)):
            yield from batch

    def _narrowed(self, query: Select[Any], tenant: Any, pipeline_id: Any = None) -> Select[Any]:
        if self._tenant is not None:
            query = query.where(tenant == self._tenant)
        if self._pipeline_id is not None and pipeline_id is not None:
            query = query.where(pipeline_id == self._pipeline_id)
        return query

    def _batches(self, query: Select[Any]) -> Iterator[Sequence[Any]]:
        return batches(self._connection, query)

    def _public(self, key_id: str, encoded: str) -> bytes:
        """A key as the database has it; one that is not what its id says is no key."""
        try:
            public_key = base64.b64decode(encoded, validate=True)
        except ValueError:
            public_key = b""
        return public_key if key_id_of(public_key) == key_id else b""
