"""A copy of the anchors in a file: one JSON object a line, on the disk when a write returns.

The file itself tells what is in it, so that nothing needs to remember, and any number of processes, on the machines
that share it, may write. It is never rewritten, but for a last line without an end, which a killed writer left.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from trilogue.errors import Conflict, Unavailable
from trilogue.proof.anchors import Anchor, Keys, anchor_line
from trilogue.proof.chain import GENESIS

_CHUNK = 1024 * 1024


class AnchorFile:
    """The copy at `path`. Its methods block: call them in a thread, one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0
        self._inode = 0
        self._last: dict[str, tuple[int, str]] = {}  # by tenant: seq and hash

    def last(self) -> Mapping[str, int]:
        """The last anchor's `seq` of each tenant in the file.

        Raises:
            Unavailable: the file cannot be read or written.
            Conflict: it holds what is no anchor.
        """
        try:
            descriptor = self._opened()
            try:
                self._catch_up(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._away(error) from None
        return {tenant: seq for tenant, (seq, _) in self._last.items()}

    def append(self, anchors: Sequence[Anchor], keys: Keys) -> int:
        """Add those that are not there yet; returns how many.

        Raises:
            Unavailable: the file cannot be written, or is full.
            Conflict: what would be added does not follow from what is there: somebody made the chain anew.
        """
        try:
            descriptor = self._opened()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self._catch_up(descriptor)
                os.ftruncate(descriptor, self._read_to)  # what a killed writer left of a line
                lines, last = self._following(anchors, keys)
                if lines:
                    self._write(descriptor, "".join(lines).encode())
                    self._last |= last
                return len(lines)
            finally:
                os.close(descriptor)  # and with it the lock
        except OSError as error:
            raise self._away(error) from None

    def _opened(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        found = os.fstat(descriptor)
        if found.st_ino != self._inode or found.st_size < self._read_to:  # another file than before
            self._inode, self._read_to, self._last = found.st_ino, 0, {}
        return descriptor

    def _catch_up(self, descriptor: int) -> None:
        """Read what was added since the last time, whole lines only."""
        rest = b""
        while piece := os.pread(descriptor, _CHUNK, self._read_to + len(rest)):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._note(line)
                self._read_to += len(line) + 1

    def _note(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            value = json.loads(line)
            tenant, seq, digest = value["tenant"], value["seq"], value["hash"]
            self._last[tenant] = (int(seq), str(digest))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Conflict(
                f"the file for anchors {str(self._path)!r} holds what is no anchor, at byte {self._read_to}:"
                " set TRILOGUE_ANCHOR_FILE to a file of its own",
                code="bad_anchor_file",
            ) from None

    def _following(self, anchors: Sequence[Anchor], keys: Keys) -> tuple[list[str], dict[str, tuple[int, str]]]:
        lines, last = list[str](), dict[str, tuple[int, str]]()
        for anchor in anchors:
            seq, digest = last.get(anchor.tenant) or self._last.get(anchor.tenant) or (0, GENESIS)
            if anchor.seq <= seq:
                continue
            if (anchor.seq, anchor.prev_hash) != (seq + 1, digest):
                raise Conflict(
                    f"anchor {anchor.seq} of tenant {anchor.tenant!r} does not follow from what {str(self._path)!r}"
                    f" holds: the database was changed, or is another one. `trilogue ledger verify --anchors FILE`"
                    " shows where; nothing is added until then",
                    code="anchors_differ",
                )
            lines.append(anchor_line(anchor, keys.get(anchor.key_id, b"")) + "\n")
            last[anchor.tenant] = anchor.seq, anchor.hash
        return lines, last

    def _write(self, descriptor: int, text: bytes) -> None:
        try:
            written = os.write(descriptor, text)
            while written < len(text):
                written += os.write(descriptor, text[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._read_to)
            raise
        self._read_to += len(text)

    def _away(self, error: OSError) -> Unavailable:
        said = error.strerror or type(error).__name__
        return Unavailable(f"the file for anchors {str(self._path)!r} cannot be used: {said}", code="anchor_file")
