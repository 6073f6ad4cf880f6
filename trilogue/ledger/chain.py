"""The chain of hashes that makes a changed, missing or moved entry show.

An entry's hash is SHA-256, in lowercase hex, over the canonical JSON (RFC 8785) of
`[tenant, pipeline_id, seq, attempt, kind, actor, at, body, prev_hash]`; the first
entry's `prev_hash` is `GENESIS`. Anybody can recompute it from what is stored: `body`
is stored as that same canonical text.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import rfc8785

from trilogue.clock import Micros
from trilogue.entry import GENESIS, Draft, Entry, Kind
from trilogue.errors import Invalid

_LARGEST_SAFE_INTEGER = 2**53 - 1
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A draft that was found fit to be recorded.

    Attributes:
        text: the body as canonical JSON.
        body: `text` read back, so that what is appended equals what is read later.
    """

    kind: Kind
    actor: str
    text: str
    body: Mapping[str, Any]


def prepare(draft: Draft) -> Prepared:
    """Check `draft` and write its body as canonical JSON.

    Raises:
        Invalid: the body holds what JSON or a database cannot: NaN, infinities, integers
            beyond 2^53, NUL characters, lone surrogates, other types.
    """
    check_text("actor", draft.actor)
    text = canonical(dict(draft.body), what=f"the body of {draft.kind.value!r}")
    return Prepared(kind=draft.kind, actor=draft.actor, text=text, body=decode(text))


def check_text(name: str, value: str) -> None:
    """Raise `Invalid` when `value`, which is called `name`, cannot be stored as text."""
    canonical(value, what=f"{name} {value!r}")


def canonical(value: Any, *, what: str) -> str:
    """`value` as canonical JSON; `what` names it when that cannot be done."""
    try:
        text = rfc8785.dumps(value).decode()
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} cannot be recorded as JSON: {error}", code="not_json") from None
    if "\\u0000" in text and _ESCAPED_NUL.search(text):
        raise Invalid(f"{what} holds a NUL character (\\u0000), which databases refuse: remove it", code="not_json")
    return text


def decode(text: str) -> dict[str, Any]:
    """The JSON object in `text`, such that writing it again gives `text` again."""
    return cast(dict[str, Any], _DECODER.decode(text))


def _number(digits: str) -> int | float:
    # RFC 8785 writes the float 1e20 without exponent; as an integer it could not be written again.
    number = int(digits)
    return number if abs(number) <= _LARGEST_SAFE_INTEGER else float(number)


_DECODER = json.JSONDecoder(parse_int=_number)


def seal(
    drafts: Iterable[Prepared],
    *,
    tenant: str,
    pipeline_id: str,
    attempt: int,
    at: Micros,
    after: int,
    prev_hash: str,
) -> list[Entry]:
    """Give `drafts` their places behind the entry `after`, whose hash is `prev_hash`."""
    entries = []
    for seq, draft in enumerate(drafts, start=after + 1):
        place = [tenant, pipeline_id, seq, attempt, draft.kind, draft.actor, at]
        digest = _digest(place, draft.text, prev_hash)
        entries.append(
            Entry(
                tenant=tenant,
                pipeline_id=pipeline_id,
                seq=seq,
                attempt=attempt,
                kind=draft.kind,
                actor=draft.actor,
                at=at,
                body=draft.body,
                prev_hash=prev_hash,
                hash=digest,
            )
        )
        prev_hash = digest
    return entries


def verify(entries: Sequence[Entry]) -> int | None:
    """The first `seq` at which a pipeline's entries, from the first one on, are not what was appended.

    Returns `None` for a whole chain. For a gap it is the missing `seq`. Entries missing at
    the end do not show in the chain: compare its length with the pipeline's `head_seq`.
    """
    prev_hash = GENESIS
    for seq, entry in enumerate(entries, start=1):
        place = [entry.tenant, entry.pipeline_id, seq, entry.attempt, entry.kind, entry.actor, entry.at]
        try:
            text = canonical(dict(entry.body), what=f"entry {seq}")
            digest = _digest(place, text, prev_hash)
        except (Invalid, ValueError):
            return seq
        moved = (entry.tenant, entry.pipeline_id) != (entries[0].tenant, entries[0].pipeline_id)
        if moved or entry.seq != seq or entry.prev_hash != prev_hash or entry.hash != digest:
            return seq
        prev_hash = entry.hash
    return None


def _digest(place: list[Any], body_text: str, prev_hash: str) -> str:
    # Elements of a canonical array are canonical themselves, so the body need not be written twice.
    head = rfc8785.dumps(place)[:-1]
    return hashlib.sha256(b'%b,%b,"%b"]' % (head, body_text.encode(), prev_hash.encode())).hexdigest()
