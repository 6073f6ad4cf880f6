"""Anchors: signed statements of a tenant's pipelines' heads, each of which names the one before.

An anchor's body is canonical JSON: `{"heads":[{"hash","pipeline_id","seq","status"},…],"version":1}`. Its hash is
SHA-256, in lowercase hex, over the canonical JSON of `["trilogue anchor v1",tenant,seq,at,body,prev_hash]`, with the
body as text; the first one's `prev_hash` is 64 zeros. Signed, with Ed25519, are the bytes `trilogue anchor v1 ` and
the hash. A key's id is the SHA-256 of the 32 bytes of the public key. A copy kept outside is one JSON object a line.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trilogue.proof.chain import GENESIS, quoted
from trilogue.proof.problems import Problem, UnreadableError, What

VERSION = 1
_DOMAIN = "trilogue anchor v1"
_FIELDS = frozenset({"tenant", "seq", "at", "body", "prev_hash", "hash", "signature", "key_id"})
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What stands before an Ed25519 key's 32 bytes in its SubjectPublicKeyInfo (RFC 8410)."""

Keys = Mapping[str, bytes]
"""Public keys by their ids."""


@dataclass(frozen=True, kw_only=True)
class AnchoredHead:
    """How far a pipeline was when it was anchored."""

    pipeline_id: str
    seq: int
    hash: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """An anchor as it is stored.

    Attributes:
        at: microseconds UTC.
        signature: base64.
    """

    tenant: str
    seq: int
    at: int
    body: str
    prev_hash: str
    hash: str
    signature: str
    key_id: str

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: getattr(self, name) for name in ("tenant", "seq", "at", "body", "prev_hash", "hash")} | {
            "signature": self.signature,
            "key_id": self.key_id,
        }


def anchor_hash(tenant: str, seq: int, at: int, body: str, prev_hash: str) -> str:
    """The hash that is signed."""
    text = f'[{quoted(_DOMAIN)},{quoted(tenant)},{seq},{at},{quoted(body)},"{prev_hash}"]'
    return hashlib.sha256(text.encode()).hexdigest()


def signed_text(digest: str) -> bytes:
    """The bytes that are signed for an anchor with this hash."""
    return f"{_DOMAIN} {digest}".encode()


def key_id_of(public_key: bytes) -> str:
    """A public key's id."""
    return hashlib.sha256(public_key).hexdigest()


def heads_of(anchor: Anchor) -> list[AnchoredHead]:
    """The heads that an anchor names. Raises `UnreadableError` for a body that is none of ours."""
    try:
        body = json.loads(anchor.body)
        if body["version"] != VERSION:
            raise UnreadableError(f"anchor {anchor.seq} is of version {body['version']!r}, not {VERSION}")
        return [AnchoredHead(**head) for head in body["heads"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"the body of anchor {anchor.seq} is none of ours") from None


def signature_holds(public_key: bytes, digest: str, signature: str) -> bool:
    """Whether `signature` is this key's for an anchor with this hash."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  (most commands check no signature)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(base64.b64decode(signature, validate=True), signed_text(digest))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def check_anchor(anchor: Anchor, keys: Keys, *, trusted: bool) -> Problem | None:
    """What is wrong with one anchor, whatever stands before it.

    Args:
        trusted: whether `keys` are all that may sign; else they are merely those that are known.
    """

    def wrong(what: What, said: str) -> Problem:
        return Problem(what=what, message=f"anchor {anchor.seq} {said}", tenant=anchor.tenant, anchor=anchor.seq)

    try:
        digest = anchor_hash(anchor.tenant, anchor.seq, anchor.at, anchor.body, anchor.prev_hash)
    except (TypeError, UnicodeEncodeError):
        digest = ""
    if digest != anchor.hash:
        return wrong(What.ANCHOR_CHANGED, "is not what was signed")
    if anchor.key_id not in keys:
        said = "is signed by a key that is not among the given ones" if trusted else "is signed by an unknown key"
        return wrong(What.ANCHOR_UNTRUSTED, f"{said}: {str(anchor.key_id)[:16]!r}")
    if not signature_holds(keys[anchor.key_id], anchor.hash, anchor.signature):
        return wrong(What.ANCHOR_FORGED, "bears a signature that its key did not make")
    return None


class AnchorChain:
    """A tenant's anchors as they come, in order of `seq`.

    Attributes:
        length, hash: of the part that is whole.
        problem: the first one; behind it no anchor counts.
    """

    def __init__(self, tenant: str, keys: Keys, *, trusted: bool) -> None:
        self.tenant, self.length, self.hash = tenant, 0, GENESIS
        self.problem: Problem | None = None
        self._keys, self._trusted = keys, trusted

    def take(self, anchor: Anchor) -> bool:
        """Whether the anchor follows and holds."""
        if self.problem is not None:
            return False
        place = self.length + 1
        if anchor.seq != place:
            self.problem = self._at(What.ANCHOR_MISSING, f"anchor {place} is missing: {anchor.seq!r} follows")
        elif anchor.prev_hash != self.hash:
            self.problem = self._at(What.ANCHOR_REPLACED, f"anchor {place} does not follow from the one before it")
        else:
            self.problem = check_anchor(anchor, self._keys, trusted=self._trusted)
        if self.problem is not None:
            return False
        self.length, self.hash = place, anchor.hash
        return True

    def end(self, length: int, digest: str) -> None:
        """Compare with where the chain is said to end."""
        if self.problem is not None:
            return
        if length > self.length:
            said = f"anchor {self.length + 1} and what followed are gone: the chain had {length}"
            self.problem = self._at(What.ANCHOR_TRUNCATED, said)
        elif (length, digest) != (self.length, self.hash):
            said = f"the anchors end with {self.length}, where their chain is said to end otherwise with {length}"
            self.problem = self._at(What.ANCHOR_REPLACED, said)

    def _at(self, what: What, message: str) -> Problem:
        return Problem(what=what, message=message, tenant=self.tenant, anchor=self.length + 1)


def anchor_line(anchor: Anchor, public_key: bytes) -> str:
    """An anchor as it is kept outside: one line of JSON, without its end."""
    whole = {
        "format": "trilogue-anchor",
        "version": VERSION,
        **anchor.as_json(),
        "public_key": base64.b64encode(public_key).decode(),
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def read_anchor(value: object) -> Anchor:
    """An anchor out of a JSON object. Raises `UnreadableError`."""
    if not isinstance(value, dict) or not value.keys() >= _FIELDS:
        raise UnreadableError("this is no anchor")
    if not all(type(value[name]) is (int if name in {"seq", "at"} else str) for name in _FIELDS):
        raise UnreadableError("this anchor has parts of another type")
    return Anchor(**{name: value[name] for name in _FIELDS})


def read_outside(lines: Iterable[str], name: str) -> Iterator[tuple[Anchor, bytes]]:
    """The anchors, with their public keys, of a copy kept outside.

    A last line without an end, of a writer that was killed, counts as not written.

    Raises:
        UnreadableError: a line is no anchor.
    """
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            return
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            yield read_anchor(value), base64.b64decode(value["public_key"], validate=True)
        except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
            said = f": {error}" if isinstance(error, UnreadableError) else ""
            raise UnreadableError(f"line {number} of {name!r} is no anchor{said}") from None


def pem_of(public_key: bytes) -> str:
    """A public key as PEM, as other tools read it."""
    return f"{_BEGIN}\n{base64.b64encode(_DER_PREFIX + public_key).decode()}\n{_END}\n"


def read_keys(text: str, name: str) -> dict[str, bytes]:
    """The Ed25519 public keys in a PEM file, by their ids. Raises `UnreadableError` where there is none."""
    keys: dict[str, bytes] = {}
    for piece in text.split(_BEGIN)[1:]:
        encoded, end, _ = piece.partition(_END)
        try:
            der = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            der = b""
        if not end or len(der) != len(_DER_PREFIX) + 32 or not der.startswith(_DER_PREFIX):
            raise UnreadableError(f"a key in {name!r} is no Ed25519 public key")
        public = der[len(_DER_PREFIX) :]
        keys[key_id_of(public)] = public
    if not keys:
        raise UnreadableError(f"{name!r} holds no public key: give what `trilogue ledger keys --pem` prints")
    return keys
