"""Signing with an Ed25519 key that never leaves Vault: its transit engine."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from hvac.exceptions import VaultError  # type: ignore[import-untyped]  # hvac ships no types, and no stubs exist

from trilogue.errors import Invalid, TrilogueError
from trilogue.secrets.faults import signing_fault, unreachable
from trilogue.secrets.vault import Vault

_NAME = re.compile(r"\w([\w.-]*\w)?", re.ASCII)
_MOUNT = re.compile(r"\w([\w./-]*\w)?", re.ASCII)
DEFAULT_MOUNT = "transit"


@dataclass(frozen=True, kw_only=True)
class TransitSignature:
    """A signature and the public key that it is checked with, both as bytes."""

    public_key: bytes
    signature: bytes


class TransitKey:
    """A key of Vault's transit engine, by its name below the mount; a rotated one signs with its newest version.

    Raises:
        Invalid: no key can be called so.
    """

    def __init__(self, vault: Vault, name: str, *, mount: str = DEFAULT_MOUNT) -> None:
        if not _NAME.fullmatch(name) or not _MOUNT.fullmatch(mount) or ".." in mount:
            raise Invalid(
                f"no transit key of Vault can be called {f'{mount}/{name}'!r}: set TRILOGUE_ANCHOR_KEY to"
                " vault:NAME, or vault:MOUNT/NAME",
                code="bad_anchor_key",
            )
        self._vault, self._name, self._mount = vault, name, mount
        self._public_keys: dict[str, bytes] = {}  # by version; only in Vault's thread

    def __repr__(self) -> str:
        return f"TransitKey({self._mount!r}, {self._name!r})"

    async def sign(self, message: bytes) -> TransitSignature:
        """Sign.

        Raises:
            Unavailable, Denied, NotFound: as reading a secret does; the login's own token signs.
            Invalid: it is no Ed25519 key.
        """
        return await self._vault.answer(lambda: self._sign(message), self._where("sign"))

    def _where(self, what: str) -> str:
        return f"{self._mount}/{what}/{self._name}"

    def _sign(self, message: bytes) -> TransitSignature | TrilogueError:
        """Only in Vault's thread."""
        where = self._where("sign")
        try:
            answer: Any = self._vault.logged_in(
                lambda client: client.secrets.transit.sign_data(
                    self._name, hash_input=base64.b64encode(message).decode(), mount_point=self._mount
                )
            )
            version, signature = _parts(answer)
            if version not in self._public_keys:
                where = self._where("keys")
                self._read_keys()
        except (VaultError, OSError) as error:  # requests' errors are OSErrors
            return signing_fault(error, self._vault.access, where)
        except (KeyError, TypeError, ValueError, binascii.Error):
            return unreachable(self._vault.access, where, "its answer is none of Vault's")
        public_key = self._public_keys.get(version)
        if public_key is None or len(public_key) != 32:
            return Invalid(
                f"{self._where('keys')!r} in Vault at {self._vault.access.address!r} is no Ed25519 key: write it with"
                f" `vault write -f {self._where('keys')} type=ed25519`",
                code="bad_anchor_key",
            )
        return TransitSignature(public_key=public_key, signature=signature)

    def _read_keys(self) -> None:
        answer: Any = self._vault.logged_in(
            lambda client: client.secrets.transit.read_key(self._name, mount_point=self._mount)
        )
        data = answer["data"]
        if data["type"] != "ed25519":
            return
        self._public_keys = {
            version: base64.b64decode(key["public_key"], validate=True) for version, key in data["keys"].items()
        }


def _parts(answer: Any) -> tuple[str, bytes]:
    """Version and signature out of `vault:v1:…`."""
    _, version, encoded = answer["data"]["signature"].split(":")
    return version.removeprefix("v"), base64.b64decode(encoded, validate=True)
