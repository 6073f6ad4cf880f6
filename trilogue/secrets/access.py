"""Where Vault is and how to log in, checked before anything is sent there."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from pydantic import SecretStr

from trilogue.errors import Invalid
from trilogue.settings import Settings

_ROLE = re.compile(r"\w([\w.-]*\w)?", re.ASCII)
"""What Vault takes as a role's name; it becomes part of a path."""


@dataclass(frozen=True, kw_only=True)
class VaultAccess:
    """Where Vault is and how to log in: with `token`, or with `role_id` and `secret_id` (AppRole).

    Attributes:
        token_role: the token role from which each piece of work gets a token of its own; without one
            the login's own token reads.
        mount: where the KV v2 engine is mounted.
        verify: whether TLS certificates are verified, or the path of the CA's PEM file to verify with.

    Raises:
        Invalid: address, credentials or role name that cannot be right.
    """

    address: str
    token: SecretStr | None = None
    role_id: str | None = None
    secret_id: SecretStr | None = None
    token_role: str | None = None
    mount: str = "secret"
    namespace: str | None = None
    verify: bool | str = True

    def __post_init__(self) -> None:
        _check_address(self.address)
        if self.token is None and not (self.role_id and self.secret_id):
            raise Invalid(
                f"Vault at {self.address!r} needs credentials: set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID"
                " (in a vault-secrets block: token, or role id and secret id)",
                code="vault_credentials",
            )
        if self.token is not None and not _fits_a_header(self.token.get_secret_value()):
            raise Invalid(
                f"the token for Vault at {self.address!r} is empty or holds characters that no token has,"
                " such as a line break: set VAULT_TOKEN (or the block's token) to the token alone",
                code="vault_credentials",
            )
        if self.token_role is not None and not _ROLE.fullmatch(self.token_role):
            raise Invalid(
                f"no token role of Vault can be called {self.token_role!r}: set TRILOGUE_VAULT_TOKEN_ROLE"
                " (or the block's token role) to the name below auth/token/roles/",
                code="vault_role",
            )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """What the settings say, or None where no address is set. A token comes before an AppRole.

        Raises:
            Invalid: also for a token role without an address: whoever names one wants no key from elsewhere.
        """
        if settings.vault_addr is None:
            if settings.vault_token_role is not None:
                raise Invalid(
                    f"TRILOGUE_VAULT_TOKEN_ROLE is {settings.vault_token_role!r}, but no Vault is named:"
                    " set VAULT_ADDR as well, or unset it",
                    code="vault_role",
                )
            return None
        token = settings.vault_token
        return cls(
            address=settings.vault_addr,
            token=token,
            role_id=None if token else settings.vault_role_id,
            secret_id=None if token else settings.vault_secret_id,
            token_role=settings.vault_token_role,
            mount=settings.vault_mount,
            namespace=settings.vault_namespace,
            verify=(settings.vault_cacert or True) if settings.vault_verify else False,
        )

    @property
    def login(self) -> str:
        """What logs in, in a message's words."""
        return "token" if self.token else "AppRole"


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, usable = None, False
    if parts is not None and parts.password is not None:
        raise Invalid("Vault's address may hold no password: give a token or an AppRole", code="vault_address")
    if not usable:
        raise Invalid(
            f"Vault's address must be such as 'https://vault.example:8200', not {address!r}", code="vault_address"
        )


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and bool(token) and " " not in token
