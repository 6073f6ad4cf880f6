"""A bundle: all that proves one pipeline, in one file that is checked with nothing else at hand.

It is JSON, one object a line, in UTF-8:

    {"format":"trilogue-bundle","version":1,"tenant":…,"pipeline_id":…}
    {"key":{"key_id","public_key"}}            public keys that signed what follows, base64
    {"anchor":{…}}                             each anchor that names this pipeline, as `anchors` says
    {"entry":{"seq","attempt","kind","actor","at","body","prev_hash","hash"}}      `body` as stored text
    {"head":{"seq","hash"}}                    the last entry
    {"checkpoint":{"seq", …its entry's body}}  each checkpoint
    {"report":{"seq", …its entry's body}}      the last report, where there is one
    {"end":{"lines","sha256"}}                 how many lines stand before it, and the hash of their bytes

The last line shows accidents; what somebody changed on purpose shows in the chain, its anchors and their signatures.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from trilogue.proof.anchors import Anchor, Keys, check_anchor, heads_of, key_id_of, read_anchor
from trilogue.proof.chain import Anchored, Chain, Stored
from trilogue.proof.problems import Problem, UnreadableError, What

FORMAT, VERSION = "trilogue-bundle", 1
LONGEST_LINE = 64 * 1024 * 1024
"""Bytes; no entry comes near it."""

CHECKPOINT, REPORT = "checkpoint", "report"
"""Kinds of entries that a bundle also has apart."""

_ORDER = ("key", "anchor", "entry", "head", CHECKPOINT, REPORT, "end")
_SHAPES: Mapping[str, tuple[tuple[str, type], ...]] = {
    "key": (("key_id", str), ("public_key", str)),
    "entry": (
        ("seq", int),
        ("attempt", int),
        ("kind", str),
        ("actor", str),
        ("at", int),
        ("body", str),
        ("prev_hash", str),
        ("hash", str),
    ),
    "head": (("seq", int), ("hash", str)),
    "end": (("lines", int), ("sha256", str)),
}


@dataclass(kw_only=True)
class BundleVerdict:
    """What was found.

    Attributes:
        anchored, anchored_at: the last `seq` that an anchor names which holds, and that anchor's time; 0 for none.
        outside: the same for anchors that are in the copy kept outside; None where no copy was given.
        trusted: whether signatures were checked with keys that the caller gave.
        signers: ids of the keys whose signatures hold.
    """

    tenant: str
    pipeline_id: str
    entries: int = 0
    anchors: int = 0
    anchored: int = 0
    anchored_at: int = 0
    outside: int | None = None
    trusted: bool = False
    signers: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.problems


class BundleWriter:
    """Writes a bundle's lines to `out`, in the order of the format, and its last line at the end."""

    def __init__(self, out: IO[bytes], tenant: str, pipeline_id: str) -> None:
        self._out, self._digest, self.lines = out, hashlib.sha256(), 0
        self._write({"format": FORMAT, "version": VERSION, "tenant": tenant, "pipeline_id": pipeline_id})

    def add(self, name: str, value: Mapping[str, Any]) -> None:
        """One line."""
        self._write({name: value})

    def end(self) -> None:
        """The last line."""
        self._write({"end": {"lines": self.lines, "sha256": self._digest.hexdigest()}})

    def _write(self, line: Mapping[str, Any]) -> None:
        text = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
        self._out.write(text)
        self._digest.update(text)
        self.lines += 1


def verify_bundle(
    path: Path, *, keys: Keys | None = None, outside: Iterable[tuple[Anchor, bytes]] | None = None
) -> BundleVerdict:
    """Check a bundle, in one pass and little memory.

    Args:
        keys: the only ones that may sign; None: any that the bundle brings.
        outside: anchors that were kept elsewhere.

    Raises:
        UnreadableError: it is no bundle, cut off, or of another version.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        work = _Verification(_lines(file, path.name), path, keys, outside)
        return work.verdict()


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UnreadableError(f"line {number} of {name!r} is longer than any line of a bundle")
        if not line.endswith(b"\n"):
            raise UnreadableError(f"{name!r} is cut off in line {number}: fetch it once more")
        yield line, _object(line, number, name)


def _object(line: bytes, number: int, name: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        said = "is no text" if isinstance(error, UnicodeDecodeError) else "is no JSON"
        raise UnreadableError(f"line {number} of {name!r} {said}: it is no bundle, or was damaged") from None
    if not isinstance(value, dict):
        raise UnreadableError(f"line {number} of {name!r} is no JSON object: it is no bundle, or was damaged")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _print_of(value: Mapping[str, Any]) -> str:
    """What two equal objects have in common, however long they are."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class _Verification:
    def __init__(
        self,
        lines: Iterator[tuple[bytes, dict[str, Any]]],
        path: Path,
        keys: Keys | None,
        outside: Iterable[tuple[Anchor, bytes]] | None,
    ) -> None:
        self._lines, self._path, self._name = lines, path, path.name
        self._given, self._brought = keys, dict[str, bytes]()
        self._digest, self._read = hashlib.sha256(), 0
        self._anchored: dict[int, Anchored] = {}
        self._times: dict[int, int] = {}
        self._derived: dict[str, dict[int, str]] = {CHECKPOINT: {}, REPORT: {}}
        self._head: tuple[int, str] | None = None
        self._ended = False
        self._last_anchor = 0
        line, header = self._next() or (b"", {})
        self._checked_header(header)
        self._count(line)
        self._verdict = BundleVerdict(
            tenant=header["tenant"], pipeline_id=header["pipeline_id"], trusted=keys is not None
        )
        self._outside = self._read_outside(outside)

    def verdict(self) -> BundleVerdict:
        found = self._verdict
        kinds: dict[str, Callable[[Any], None]] = {
            "key": self._key,
            "anchor": self._anchor,
            "head": self._take_head,
            CHECKPOINT: lambda value: self._copy(CHECKPOINT, value),
            REPORT: lambda value: self._copy(REPORT, value),
        }
        chain: Chain | None = None
        step = 0
        while (read := self._next()) is not None:
            line, value = read
            name, content = self._part(value)
            if self._ended:
                raise self._unreadable("goes on after its end")
            if _ORDER.index(name) < step or (name in {"head", REPORT} and _ORDER.index(name) == step):
                raise self._unreadable(f"has {name!r} where it does not belong")
            step = _ORDER.index(name)
            if name == "entry":
                if chain is None:
                    chain = Chain(found.tenant, found.pipeline_id, self._anchored)
                self._entry(chain, content)
            elif name == "end":
                self._end(content)
            else:
                kinds[name](content)
            self._count(line)
        if not self._ended:
            raise UnreadableError(f"{self._name!r} is cut off after line {self._read}: fetch it once more")
        self._conclude(chain or Chain(found.tenant, found.pipeline_id, self._anchored))
        return found

    def _next(self) -> tuple[bytes, dict[str, Any]] | None:
        return next(self._lines, None)

    def _count(self, line: bytes) -> None:
        self._digest.update(line)
        self._read += 1

    def _unreadable(self, said: str) -> UnreadableError:
        return UnreadableError(f"{self._name!r} {said}, in line {self._read + 1}: it is no bundle, or was damaged")

    def _checked_header(self, header: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT:
            raise UnreadableError(f"{self._name!r} is no bundle: `trilogue ledger export` writes one")
        if header.get("version") != VERSION or type(header.get("version")) is not int:
            raise UnreadableError(
                f"{self._name!r} is a bundle of version {header.get('version')!r}; this program knows version {VERSION}"
            )
        if set(header) != {"format", "version", "tenant", "pipeline_id"} or not all(
            isinstance(header[name], str) for name in ("tenant", "pipeline_id")
        ):
            raise self._unreadable("has another beginning than a bundle")

    def _part(self, value: Mapping[str, Any]) -> tuple[str, Any]:
        if len(value) != 1 or (name := next(iter(value))) not in _ORDER:
            raise self._unreadable("has a part that no bundle has")
        content = value[name]
        if not isinstance(content, dict):
            raise self._unreadable(f"has {name!r} of another type")
        shape = _SHAPES.get(name)
        if shape and (
            content.keys() != {key for key, _ in shape} or any(type(content[key]) is not kind for key, kind in shape)
        ):
            raise self._unreadable(f"has {name!r} of another shape")
        return name, content

    def _wrong(self, what: What, message: str, *, seq: int | None = None, anchor: int | None = None) -> None:
        found = self._verdict
        found.problems.append(
            Problem(
                what=what, message=message, tenant=found.tenant, pipeline_id=found.pipeline_id, seq=seq, anchor=anchor
            )
        )

    def _read_outside(self, outside: Iterable[tuple[Anchor, bytes]] | None) -> dict[int, str] | None:
        """The hashes of the tenant's anchors in the copy; what they say of the pipeline counts like the bundle's."""
        if outside is None:
            return None
        hashes: dict[int, str] = {}
        for copy, public_key in outside:
            if copy.tenant != self._verdict.tenant:
                continue
            keys = self._given if self._given is not None else {key_id_of(public_key): public_key}
            if problem := check_anchor(copy, keys, trusted=self._given is not None):
                self._wrong(What.COPY_CHANGED, f"in the copy kept outside, {problem.message}", anchor=copy.seq)
                continue
            hashes[copy.seq] = copy.hash
            self._gather(copy)
        return hashes

    def _key(self, value: Mapping[str, str]) -> None:
        try:
            public_key = base64.b64decode(value["public_key"], validate=True)
        except ValueError:
            raise self._unreadable("has a key that is none") from None
        if key_id_of(public_key) != value["key_id"] or value["key_id"] in self._brought:
            raise self._unreadable("has a key that is not what its id says")
        self._brought[value["key_id"]] = public_key

    def _anchor(self, value: Any) -> None:
        try:
            anchor = read_anchor(value)
        except UnreadableError as error:
            raise self._unreadable(f"has an anchor that cannot be read ({error})") from None
        found = self._verdict
        if anchor.tenant != found.tenant or anchor.seq <= self._last_anchor or len(value) != len(anchor.as_json()):
            raise self._unreadable("has an anchor that does not belong there")
        self._last_anchor = anchor.seq
        found.anchors += 1
        keys = self._given if self._given is not None else self._brought
        if problem := check_anchor(anchor, keys, trusted=self._given is not None):
            self._wrong(problem.what, problem.message, anchor=anchor.seq)
            return
        if self._outside is not None and self._outside.get(anchor.seq, anchor.hash) != anchor.hash:
            said = f"anchor {anchor.seq} is another one than the one that is kept outside"
            self._wrong(What.ANCHOR_REPLACED, said, anchor=anchor.seq)
            return
        if anchor.key_id not in found.signers:
            found.signers.append(anchor.key_id)
        if not self._gather(anchor):
            self._wrong(What.ANCHOR_CHANGED, f"anchor {anchor.seq} does not name this pipeline", anchor=anchor.seq)

    def _gather(self, anchor: Anchor) -> bool:
        """Whether the anchor names this pipeline."""
        try:
            heads = [head for head in heads_of(anchor) if head.pipeline_id == self._verdict.pipeline_id]
        except UnreadableError as error:
            self._wrong(What.ANCHOR_CHANGED, str(error), anchor=anchor.seq)
            return True
        for head in heads:
            self._anchored.setdefault(head.seq, Anchored(head.hash, anchor.seq))
            self._times.setdefault(head.seq, anchor.at)
        return bool(heads)

    def _entry(self, chain: Chain, value: Mapping[str, Any]) -> None:
        self._verdict.entries += 1
        kind = value["kind"]
        chain.take([tuple(value[name] for name in Stored._fields)])
        if kind in self._derived:
            try:
                body = json.loads(value["body"])
                derived = self._derived[kind]
                if kind == REPORT:
                    derived.clear()  # the last one counts
                derived[value["seq"]] = _print_of({"seq": value["seq"], **body})
            except (ValueError, TypeError, RecursionError):
                if chain.broken is None:
                    self._wrong(What.CHANGED, f"the body of entry {value['seq']} is no JSON object", seq=value["seq"])

    def _take_head(self, value: Mapping[str, Any]) -> None:
        self._head = value["seq"], value["hash"]

    def _copy(self, name: str, value: Mapping[str, Any]) -> None:
        seq = value.get("seq")
        if type(seq) is not int or self._derived[name].pop(seq, None) != _print_of(value):
            self._wrong(What.BUNDLE_CHANGED, f"a {name} of the bundle is not what its entry says")

    def _end(self, value: Mapping[str, Any]) -> None:
        self._ended = True
        if value["lines"] != self._read or value["sha256"] != self._digest.hexdigest():
            self._wrong(What.BUNDLE_CHANGED, "the bundle is not as it was written: its checksum is another one")

    def _conclude(self, chain: Chain) -> None:
        found = self._verdict
        if self._head is None:
            raise UnreadableError(f"{self._name!r} has no head: it is no bundle, or was damaged")
        problem = chain.problem(self._head, self._stored)
        if problem is not None:
            found.problems.insert(0, problem)
        else:
            for name, left in self._derived.items():
                for seq in left:
                    self._wrong(What.BUNDLE_CHANGED, f"the {name} of entry {seq} is missing from the bundle")
        found.anchored = chain.holds_to
        found.anchored_at = self._times.get(chain.holds_to, 0)
        if self._outside is not None:
            kept = [seq for seq, said in self._anchored.items() if said.anchor in self._outside]
            found.outside = max((seq for seq in kept if seq <= chain.holds_to), default=0)

    def _stored(self) -> Iterator[Stored]:
        with self._path.open("rb") as file:
            for _, value in _lines(file, self._name):
                if "entry" in value:
                    yield Stored(*(value["entry"][name] for name in Stored._fields))
