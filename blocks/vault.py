"""The block `vault-secrets`: where Vault is, and how to log in."""

from typing import Any, Self

from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks.base import SettingsBlock
from trilogue.errors import Invalid
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.role_token import reader_for
from trilogue.secrets.vault import OPENROUTER_KEY, Vault
from trilogue.settings import Settings

_READING = 60.0
"""Seconds that a token for one reading may live; it is revoked at once."""


class VaultSecrets(SettingsBlock):
    """Where Vault is, and how to log in.

    Example:
        ```python
        from blocks import VaultSecrets

        vault = await VaultSecrets.aload("trilogue")
        key = await vault.read("api-keys/openrouter", "api_key")
        ```
    """

    _block_type_name = "Vault Secrets"
    _block_type_slug = "vault-secrets"
    _description = (
        "A Vault or OpenBao server with a KV version 2 engine, from which Trilogue reads the OpenRouter key"
        " (api-keys/openrouter, field api_key) and Dragonfly's password (services/dragonfly, field password)."
    )
    # Prefect's own pinned picture for secrets.
    _logo_url = HttpUrl(
        "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/secret.png"
    )
    _documentation_url = HttpUrl("https://openbao.org/docs/secrets/kv/kv-v2/")

    address: str = Field(
        title="Address",
        description="URL of the server.",
        examples=["https://vault.example:8200"],
    )
    token: SecretStr | None = Field(
        default=None,
        title="Token",
        description="A token whose policy allows reading. Leave it empty to log in with an AppRole.",
    )
    role_id: str | None = Field(
        default=None,
        title="AppRole: role id",
        description="Used together with the secret id when no token is given.",
    )
    secret_id: SecretStr | None = Field(
        default=None,
        title="AppRole: secret id",
        description="Used together with the role id when no token is given.",
    )
    token_role: str | None = Field(
        default=None,
        title="Token role",
        description="Role from which each attempt at a pipeline gets a token of its own, revoked at its end."
        " Leave it empty to read with the login's own token.",
    )
    mount: str = Field(
        default="secret",
        title="Mount",
        description="Path at which the KV version 2 engine is mounted.",
    )
    namespace: str | None = Field(
        default=None,
        title="Namespace",
        description="Namespace to work in; leave it empty for the root namespace.",
    )
    verify: bool = Field(
        default=True,
        title="Verify TLS",
        description="Whether the server's certificate is verified. Switch it off only while trying things out.",
    )
    ca_file: str | None = Field(
        default=None,
        title="CA file",
        description="PEM file, on the machines that run Trilogue, of the authority that signed the certificate.",
    )

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        try:
            self.access()
        except Invalid as error:
            raise ValueError(error.message) from None
        return self

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """A block with what the environment says, or None where it names no Vault."""
        if settings.vault_addr is None:
            return None
        return cls(
            address=settings.vault_addr,
            token=settings.vault_token,
            role_id=settings.vault_role_id,
            secret_id=settings.vault_secret_id,
            token_role=settings.vault_token_role,
            mount=settings.vault_mount,
            namespace=settings.vault_namespace,
            verify=settings.vault_verify,
            ca_file=settings.vault_cacert,
        )

    def overrides(self) -> dict[str, Any]:
        """All of Vault's settings: an environment's token must never be sent to this block's address.

        Only a token role that the environment asks for stays, where the block names none: it is no secret,
        and to drop it would quietly allow more.
        """
        role = {"vault_token_role": self.token_role} if self.token_role else {}
        return role | {
            "vault_addr": self.address,
            "vault_token": self.token,
            "vault_role_id": self.role_id,
            "vault_secret_id": self.secret_id,
            "vault_mount": self.mount,
            "vault_namespace": self.namespace,
            "vault_verify": self.verify,
            "vault_cacert": self.ca_file,
        }

    def access(self) -> VaultAccess:
        """The same as the plain value that `trilogue.secrets.vault.Vault` takes."""
        access = VaultAccess.from_settings(Settings.model_construct(**self.overrides()))
        assert access is not None
        return access

    async def read(self, path: str, field: str) -> SecretStr:
        """The value of `field` in the secret at `path` below the mount, read as an attempt does.

        Raises as `trilogue.secrets.vault.Reader.read` does.
        """
        async with Vault(self.access()) as vault, reader_for(vault, seconds=_READING, meta={}) as reader:
            return await reader.read(path, field)

    async def check(self) -> None:
        """Raise what is wrong unless the OpenRouter key can be read through this block."""
        await self.read(*OPENROUTER_KEY)
