"""Who signs anchors: a key in Vault's transit engine, or one in a file of this installation."""

import asyncio
import base64
import contextlib
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trilogue.errors import Invalid
from trilogue.ledger.anchors import Signed
from trilogue.secrets.access import VaultAccess
from trilogue.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from trilogue.secrets.transit import TransitKey

NO_KEY = "none"
_IN_VAULT = "vault:"
_VARIABLE = "TRILOGUE_ANCHOR_KEY"
_BEGIN, _END = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"
_DER_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
"""What stands before an Ed25519 key's 32 bytes in its PKCS #8 (RFC 8410)."""


class Signer(Protocol):
    """Whoever has a key."""

    async def sign(self, message: bytes) -> Signed:
        """Sign. Raises `TrilogueError` where the key cannot be used."""
        ...


@asynccontextmanager
async def signer(settings: Settings) -> AsyncIterator[Signer | None]:
    """The signer that is configured; None where `TRILOGUE_ANCHOR_KEY` is `none`.

    Raises:
        Invalid: a key of Vault's is named, but no Vault.
    """
    given = settings.anchor_key
    if given == NO_KEY:
        yield None
    elif given is not None and given.startswith(_IN_VAULT):
        from trilogue.secrets.transit import DEFAULT_MOUNT, TransitKey  # noqa: PLC0415  (hvac)
        from trilogue.secrets.vault import Vault  # noqa: PLC0415

        access = VaultAccess.from_settings(settings)
        if access is None:
            raise Invalid(f"{_VARIABLE} names a key in Vault: set VAULT_ADDR as well", code="bad_anchor_key")
        mount, _, name = given.removeprefix(_IN_VAULT).rpartition("/")
        async with Vault(access) as vault:
            yield _InVault(TransitKey(vault, name, mount=mount or DEFAULT_MOUNT), given)
    else:
        yield _InFile(given, settings.home)


class _InVault:
    def __init__(self, key: "TransitKey", origin: str) -> None:
        self._key, self._origin = key, origin

    async def sign(self, message: bytes) -> Signed:
        made = await self._key.sign(message)
        return Signed(public_key=made.public_key, signature=made.signature, origin=self._origin)


class _InFile:
    """A private key as PEM, which only its owner may read; the installation's own one is made on first use."""

    def __init__(self, given: str | None, home: Path) -> None:
        self._path = Path(given).expanduser() if given else home / "keys" / "anchor.pem"
        self._make = given is None
        self._loaded: tuple[Ed25519PrivateKey, bytes] | None = None

    async def sign(self, message: bytes) -> Signed:
        return await asyncio.to_thread(self._sign, message)

    def _sign(self, message: bytes) -> Signed:
        if self._loaded is None:
            key = self._load()
            self._loaded = key, key.public_key().public_bytes_raw()
        private, public = self._loaded
        return Signed(public_key=public, signature=private.sign(message), origin="file")

    def _load(self) -> "Ed25519PrivateKey":
        try:
            if self._make and not self._path.exists():
                _write_new_key(self._path)
            mode = self._path.stat().st_mode
            pem = self._path.read_bytes()
        except OSError as error:
            raise self._unfit(f"cannot be read: {error.strerror or error}") from None
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise self._unfit("may be read or written by others: `chmod 600` it")
        key = _read_key(pem)
        if key is None:
            raise self._unfit(
                "is no Ed25519 private key without password: `openssl genpkey -algorithm ed25519` makes one"
            )
        return key

    def _unfit(self, said: str) -> Invalid:
        return Invalid(f"the key that signs anchors, {str(self._path)!r}, {said}", code="bad_anchor_key")


def _read_key(pem: bytes) -> "Ed25519PrivateKey | None":
    """The key in a PKCS #8 file as `openssl genpkey` and we write it; None for anything else.

    Read by hand: `cryptography`'s own reader costs a one-shot 15 ms to import.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    _, begun, rest = pem.partition(_BEGIN)
    encoded, ended, _ = rest.partition(_END)
    try:
        der = base64.b64decode(b"".join(encoded.split()), validate=True)
    except ValueError:
        return None
    if not begun or not ended or len(der) != len(_DER_PREFIX) + 32 or not der.startswith(_DER_PREFIX):
        return None
    return Ed25519PrivateKey.from_private_bytes(der[len(_DER_PREFIX) :])


def _write_new_key(path: Path) -> None:
    """Make a key at `path`, whole or not at all; whoever is quicker wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    der = _DER_PREFIX + secrets.token_bytes(32)
    pem = b"%b\n%b\n%b\n" % (_BEGIN, base64.b64encode(der), _END)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
