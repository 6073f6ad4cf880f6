"""The chain of a pipeline's entries, checked on what is stored.

An entry's hash is SHA-256, in lowercase hex, over the UTF-8 text

    [tenant,pipeline_id,seq,attempt,kind,actor,at,BODY,prev_hash]

in canonical JSON (RFC 8785), where BODY is the body's text as it is stored. The text that
is hashed can be taken apart in one way only, so a body need not be decoded to be checked.
The first entry's `prev_hash` is 64 zeros.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring  # C's or Python's, by what there is
from typing import Any, NamedTuple

from trilogue.proof.problems import Problem, What

GENESIS = "0" * 64

_REACH = 1_000
"""Places beyond the last entry at which a moved one may have been."""
_MOST_PLACES = 200_000


class Stored(NamedTuple):
    """An entry as it is stored, of whatever type each part is."""

    seq: Any
    attempt: Any
    kind: Any
    actor: Any
    at: Any
    body: Any
    prev_hash: Any
    hash: Any


class Anchored(NamedTuple):
    """What an anchor says about a pipeline at a `seq`."""

    hash: str
    anchor: int


Rows = Callable[[], Iterable[Stored]]
"""All stored entries of the pipeline in order of `seq`, each time it is called."""


class _Quoted(dict[str, str]):
    """Texts as JSON writes them; there are few kinds and actors."""

    def __missing__(self, text: str) -> str:
        quoted = self[text] = encode_basestring(text)
        return quoted


_QUOTED = _Quoted()


def quoted(text: str) -> str:
    """`text` in canonical JSON."""
    return str(encode_basestring(text))


class Chain:
    """One pipeline's entries as they come, in order of `seq`; after the first that is not whole it looks at no more.

    Args:
        anchored: what anchors say of it, by `seq`.

    Attributes:
        length, hash: of the part that is whole.
        holds_to: the last anchored `seq` that was found in it, 0 for none.
        broken: the first entry that is not what follows, None where all is whole so far.
        contradicted: the first `seq` at which an anchor says otherwise than the chain.
    """

    def __init__(self, tenant: str, pipeline_id: str, anchored: Mapping[int, Anchored] | None = None) -> None:
        self.tenant, self.pipeline_id = tenant, pipeline_id
        self.anchored = anchored or {}
        self.length, self.hash = 0, GENESIS
        self.holds_to = 0
        self.broken: Stored | None = None
        self.contradicted: int | None = None
        self._prefix = f"[{quoted(tenant)},{quoted(pipeline_id)},"

    def take(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Go on with more entries, each with the eight parts of `Stored`."""
        if self.broken is not None or self.contradicted is not None:
            return
        seq, before, prefix, known, anchored = self.length, self.hash, self._prefix, _QUOTED, self.anchored
        sha256 = hashlib.sha256
        row: tuple[Any, ...] = ()
        try:
            for row in rows:
                stored_seq, attempt, kind, actor, at, body, prev_hash, stored_hash = row
                place = seq + 1
                text = f'{prefix}{place},{attempt},{known[kind]},{known[actor]},{at},{body},"{before}"]'
                digest = sha256(text.encode()).hexdigest()
                if digest != stored_hash or stored_seq != place or prev_hash != before:
                    self.broken = Stored(*row)
                    break
                seq, before = place, digest
                if place in anchored:
                    if anchored[place].hash != digest:
                        self.contradicted = place
                        break
                    self.holds_to = place
        except (TypeError, UnicodeEncodeError):  # a part of another type, or no text that could be one of ours
            self.broken = Stored(*row)
        self.length, self.hash = seq, before

    def problem(self, head: tuple[int, str] | None, rows: Rows) -> Problem | None:
        """The first place that is not whole, once all entries were taken.

        Args:
            head: `seq` and hash of the pipeline's head as kept beside its entries; None where none is kept.
            rows: asked only where something is broken.
        """
        if self.broken is not None:
            return self._named(self.broken, rows)
        if self.contradicted is not None:
            return self._replaced(self.contradicted)
        beyond = [seq for seq in self.anchored if seq > self.length]
        if beyond or (head and head[0] > self.length):
            return self._truncated(min(beyond, default=None), head)
        if head and head[0] < self.length:
            said = f"its head is at {head[0]}, but there are entries up to {self.length}"
            return self._at(What.INSERTED, head[0] + 1, f"entry {head[0] + 1} lies beyond the pipeline's head: {said}")
        if head and head[1] != self.hash:
            return self._at(
                What.HEAD_CHANGED,
                self.holds_to + 1,
                f"the chain is whole in itself, but its end is not the pipeline's head: {self._among(self.length)}"
                " was changed and chained anew, or the head was",
            )
        return None

    def _among(self, last: int) -> str:
        first = self.holds_to + 1
        return f"entry {first}" if first == last else f"one of the entries {first} to {last}"

    def _at(self, what: What, seq: int, message: str, anchor: int | None = None) -> Problem:
        return Problem(
            what=what, message=message, tenant=self.tenant, pipeline_id=self.pipeline_id, seq=seq, anchor=anchor
        )

    def _replaced(self, seq: int) -> Problem:
        anchor = self.anchored[seq].anchor
        return self._at(
            What.REPLACED,
            self.holds_to + 1,
            f"anchor {anchor} names another hash for entry {seq}: a chain that is whole in itself took its place,"
            f" beginning with {self._among(seq)}",
            anchor,
        )

    def _truncated(self, beyond: int | None, head: tuple[int, str] | None) -> Problem:
        first = self.length + 1
        if beyond is not None:
            anchor = self.anchored[beyond].anchor
            said = f"anchor {anchor} names entry {beyond}"
        else:
            assert head is not None
            anchor, said = None, f"the pipeline's head is at {head[0]}"
        return self._at(What.TRUNCATED, first, f"entry {first} and what followed are gone: {said}", anchor)

    def _named(self, found: Stored, rows: Rows) -> Problem:
        place = self.length + 1
        count, moved_here = 0, False  # whether what belongs at this place lies at another one
        for position, row in enumerate(rows(), start=1):
            count = position
            if position != place and row.prev_hash == self.hash and self._digest(row, place, self.hash) == row.hash:
                moved_here = True
        if found.seq != place and isinstance(found.seq, int) and found.seq > place:
            if moved_here:
                return self._at(What.OUT_OF_ORDER, place, f"entry {place} lies at another place")
            return self._at(What.MISSING, place, f"entry {place} is missing: entry {found.seq} follows")
        if found.seq != place:
            return self._at(What.INSERTED, place, f"an entry numbered {found.seq!r} was inserted")
        original = self._original_place(found, count)
        if original is None:
            if moved_here:
                return self._at(What.INSERTED, place, f"entry {place} was inserted; what belongs there follows")
            return self._at(What.CHANGED, place, f"entry {place} is not what was recorded")
        if original < place:
            if any(row.seq == original and row.hash == found.hash for row in rows()):
                return self._at(What.INSERTED, place, f"entry {place} was inserted: it is entry {original} once more")
            return self._at(What.INSERTED, original, f"entry {original} was inserted; what belongs there follows")
        if moved_here:
            return self._at(What.OUT_OF_ORDER, place, f"entry {place} is what was recorded as entry {original}")
        return self._at(What.MISSING, place, f"entry {place} is missing: what was entry {original} has its number")

    def _original_place(self, found: Stored, count: int) -> int | None:
        """The `seq` with which the entry was recorded, where that is another one than it has now."""
        last = min(max(count, found.seq) + _REACH, _MOST_PLACES)
        for seq in range(1, last + 1):
            if seq != found.seq and self._digest(found, seq, found.prev_hash) == found.hash:
                return seq
        return None

    def _digest(self, row: Stored, seq: int, before: str) -> str | None:
        try:
            kind, actor = quoted(row.kind), quoted(row.actor)
            text = f'{self._prefix}{seq},{row.attempt},{kind},{actor},{row.at},{row.body},"{before}"]'
            return hashlib.sha256(text.encode()).hexdigest()
        except (TypeError, UnicodeEncodeError):
            return None
