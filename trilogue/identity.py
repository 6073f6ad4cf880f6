"""Who calls: what an access allows, the names that tenants and projects may have, and API keys.

Pure values and rules. Who a key belongs to is in the ledger (`ledger.keys`); what becomes of a request of somebody
who may not, is its face's affair.
"""

import hashlib
import re
import secrets
import unicodedata
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from typing import Final

from trilogue.errors import Denied, Invalid, Unauthenticated

LOCAL: Final = "local"
"""The actor of what is done without a key by whoever has the ledger, or the open server on loopback, to himself."""

INSTALLATION: Final = "installation"
"""The actor that holds the installation's own key; and, as no tenant can be called so, where the audit keeps what
concerns none."""

LONGEST_NAME = 40
LONGEST_LABEL = 100
RESERVED = frozenset(
    "admin all any anyone api audit global installation local me new nobody none null public root self shared system "
    "tenant tenants trilogue".split()
)
"""What a reader or a path could take for something else."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SHOWN = 80


class Right(StrEnum):
    """What a request needs."""

    READ = "read"  # pipelines, boards, reports, usage
    OPERATE = "operate"  # spawn, continue, stop, resume, go on from a checkpoint
    ADMINISTER = "administer"  # keys, projects and quotas of the tenant, its audit


class Access(StrEnum):
    """What a caller may do within its tenant. An agent's `Role` is another thing."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    def may(self, right: Right) -> bool:
        """Whether this access includes `right`."""
        return right in _RIGHTS[self]


_RIGHTS = {
    Access.ADMIN: frozenset(Right),
    Access.OPERATOR: frozenset({Right.READ, Right.OPERATE}),
    Access.VIEWER: frozenset({Right.READ}),
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who was recognised.

    Attributes:
        key_id: of the API key that was shown; None for the installation's own key, and where none is needed.
        project: the only one that it may touch; None for all of the tenant's.
        installation: whether it may administer tenants.
    """

    tenant: str
    access: Access
    key_id: str | None = None
    project: str | None = None
    installation: bool = False

    @property
    def actor(self) -> str:
        """Who this is to the audit."""
        return self.key_id or (INSTALLATION if self.installation else LOCAL)

    def require(self, right: Right) -> None:
        """Raise `Denied`, code `access`, unless the caller's access includes `right`."""
        if not self.access.may(right):
            able = ", ".join(access for access in Access if access.may(right))
            raise Denied(f"this needs an access of {able}; yours is {self.access}", code="access")

    def require_installation(self) -> None:
        """Raise `Denied`, code `access`, unless the caller may administer tenants."""
        if not self.installation:
            raise Denied("tenants are administered with the installation's own key", code="access")

    def covers(self, project: str | None) -> bool:
        """Whether what belongs to `project` is within the caller's reach."""
        return self.project is None or self.project == project


def check_name(what: str, name: str) -> str:
    """`name`, where a new tenant or project (`what`) may be called so.

    Raises:
        Invalid: code `invalid_tenant` or `invalid_project`; says what is wrong with the value.
    """
    wrong = _wrong_with(name)
    if wrong is None:
        return name
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    raise Invalid(f"{what} {shown!r} {wrong}", code=f"invalid_{what}")


def _wrong_with(name: str) -> str | None:
    if not name:
        return "is empty: give a name such as 'acme'"
    if len(name) > LONGEST_NAME:
        return f"has {len(name):,} characters; at most {LONGEST_NAME}"
    for place, character in enumerate(name):
        if not (character.isascii() and (character.isalnum() or character == "-")):
            known = unicodedata.name(character, f"U+{ord(character):04X}")
            return f"has {character!r} ({known}) at position {place}; a name has the letters a-z, digits and '-' only"
    if name != name.lower():
        return f"has capital letters; names are in lower case: {name.lower()!r}"
    if not _NAME.fullmatch(name):
        return "begins or ends with '-', which a name may only have within"
    return "is a reserved name; choose another" if name in RESERVED else None


def check_label(what: str, text: str) -> str:
    """`text`, where people may call a thing so: one line in any script, 1 to 100 characters.

    Raises:
        Invalid: code `invalid_<what>`.
    """
    code = f"invalid_{what.replace(' ', '_')}"
    if not text.strip() or len(text) > LONGEST_LABEL:
        raise Invalid(f"{what}: has {len(text):,} characters; give 1 to {LONGEST_LABEL}, not all blank", code=code)
    for place, character in enumerate(text):
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise Invalid(
                f"{what}: has U+{ord(character):04X} at position {place}, which cannot be seen; plain text only",
                code=code,
            )
    return text


_PREFIX = "tl"
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 10
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 34  # 202 bits
_CHECK_LENGTH = 6
KEY_LENGTH = len(_PREFIX) + 1 + _ID_LENGTH + 1 + _RANDOM_LENGTH + _CHECK_LENGTH

_BEGINNING = re.compile(rf"{_PREFIX}(_([0-9a-z]{{0,{_ID_LENGTH}}}|[0-9a-z]{{{_ID_LENGTH}}}_[0-9A-Za-z]*))?")
_WITHIN_TEXT = re.compile(rf"({_PREFIX}_[0-9a-z]{{{_ID_LENGTH}}}_)[0-9A-Za-z]+")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as its holder has it: `tl_<id>_<secret>`, the secret being 202 random bits and a checksum.

    Attributes:
        id: public; lists and the audit show it.
        text: the whole key. It is in no `repr`, and nowhere kept.
    """

    id: str
    text: str = field(repr=False)

    @property
    def hash(self) -> str:
        """What is kept of the key: SHA-256 of the whole, in lowercase hex.

        A slow, salted hash is for passwords, which can be guessed one after the other from a stolen table. 202
        random bits cannot, however fast each guess is; and a hash that is quick is one that every request can bear,
        and by which its row is found.
        """
        return hashlib.sha256(self.text.encode()).hexdigest()

    def matches(self, kept: str) -> bool:
        """Whether `kept` is this key's hash; takes the same time wherever they differ."""
        return compare_digest(self.hash, kept)


def new_key() -> ApiKey:
    """A key that nobody has had."""
    id_ = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    checked = f"{_PREFIX}_{id_}_{''.join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))}"
    return ApiKey(id=id_, text=checked + _checksum(checked))


def parse_key(text: str) -> ApiKey:
    """The key in `text`, which nobody knows yet to be good.

    Raises:
        Unauthenticated: code `truncated_key`: the end is missing; `mistyped_key`: a character is wrong;
            `malformed_key`: it is nothing of ours. No message shows more than the id.
    """
    text = text.strip()
    if not text.isascii() or not _BEGINNING.fullmatch(text):
        raise Unauthenticated(f"this is no API key: those look like {_PREFIX}_<id>_<secret>", code="malformed_key")
    if len(text) < KEY_LENGTH:
        raise Unauthenticated(
            f"the API key is incomplete: it has {len(text)} of {KEY_LENGTH} characters; copy all of it",
            code="truncated_key",
        )
    if len(text) > KEY_LENGTH:
        raise Unauthenticated(f"the API key has {len(text):,} characters; a key has {KEY_LENGTH}", code="malformed_key")
    id_, checked = text.split("_")[1], text[:-_CHECK_LENGTH]
    if not compare_digest(_checksum(checked), text[-_CHECK_LENGTH:]):
        raise Unauthenticated(f"the API key {id_!r} has a wrong character; copy it again", code="mistyped_key")
    return ApiKey(id=id_, text=text)


def key_id_in(given: str) -> str:
    """The id of a key that is named by its id, or by the whole key, as one pastes what leaked."""
    parts = given.strip().split("_")
    return parts[1] if len(parts) > 1 and parts[0] == _PREFIX else given.strip()


def without_keys(text: str) -> str:
    """`text` with nothing but the ids of the keys in it."""
    return _WITHIN_TEXT.sub(r"\1…", text)


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
