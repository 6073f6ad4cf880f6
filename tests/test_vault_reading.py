"""A secret is read from Vault by token and by AppRole, over TLS too, wherever the environment says."""

from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.vault import AppRole, VaultServer
from trilogue.errors import Denied, Invalid, Unavailable
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.vault import DRAGONFLY_PASSWORD, OPENROUTER_KEY, Vault
from trilogue.settings import load_settings

KEY = "sk-or-canary-key-93"
PASSWORD = "dragonfly-canary-password-17"
VARIABLES = ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_NAMESPACE", "VAULT_CACERT")


@pytest.fixture(autouse=True)
def _no_vault_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def keys(vault_root: Any) -> None:
    vault_root.secrets.kv.v2.create_or_update_secret(OPENROUTER_KEY[0], {OPENROUTER_KEY[1]: KEY})
    vault_root.secrets.kv.v2.create_or_update_secret(DRAGONFLY_PASSWORD[0], {DRAGONFLY_PASSWORD[1]: PASSWORD})


async def test_the_environments_token_reads_both_secrets(
    vault_server: VaultServer, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", vault_server.address)
    monkeypatch.setenv("VAULT_TOKEN", vault_server.root_token)
    access = VaultAccess.from_settings(load_settings())
    assert access is not None
    async with Vault(access) as vault:
        assert (await vault.read(*OPENROUTER_KEY)).get_secret_value() == KEY
        assert (await vault.read(*DRAGONFLY_PASSWORD)).get_secret_value() == PASSWORD


async def test_an_approle_logs_in_again_when_its_token_is_used_up(
    vault_server: VaultServer, vault_approle: AppRole, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", vault_server.address)
    monkeypatch.setenv("VAULT_ROLE_ID", vault_approle.role_id)
    monkeypatch.setenv("VAULT_SECRET_ID", vault_approle.secret_id)
    access = VaultAccess.from_settings(load_settings())
    assert access is not None
    async with Vault(access) as vault:
        found = [await vault.read(*OPENROUTER_KEY) for _ in range(5)]  # a login's token is good for two
    assert {value.get_secret_value() for value in found} == {KEY}


async def test_a_token_comes_before_an_approle(
    vault_server: VaultServer, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", vault_server.address)
    monkeypatch.setenv("VAULT_TOKEN", vault_server.root_token)
    monkeypatch.setenv("VAULT_ROLE_ID", "no-such-role")
    monkeypatch.setenv("VAULT_SECRET_ID", "no-such-secret-id")
    access = VaultAccess.from_settings(load_settings())
    assert access is not None
    async with Vault(access) as vault:
        assert (await vault.read(*OPENROUTER_KEY)).get_secret_value() == KEY


async def test_another_mount_is_read(vault_server: VaultServer, vault_root: Any) -> None:
    vault_root.sys.enable_secrets_engine("kv", path="team/kv", options={"version": "2"})
    vault_root.secrets.kv.v2.configure(mount_point="team/kv")
    vault_root.secrets.kv.v2.create_or_update_secret("a/b", {"c": "d"}, mount_point="team/kv")
    access = VaultAccess(address=vault_server.address, token=SecretStr(vault_server.root_token), mount="team/kv")
    async with Vault(access) as vault:
        assert (await vault.read("a/b", "c")).get_secret_value() == "d"


async def test_another_namespace_is_read(vault_server: VaultServer, vault_root: Any) -> None:
    vault_root.write_data("sys/namespaces/guild")
    inside = vault_server.client()
    inside.adapter.namespace = "guild"
    inside.sys.enable_secrets_engine("kv", path="secret", options={"version": "2"})
    inside.secrets.kv.v2.configure()
    inside.secrets.kv.v2.create_or_update_secret("a", {"b": "the guild's"})
    inside.adapter.close()
    access = VaultAccess(address=vault_server.address, token=SecretStr(vault_server.root_token), namespace="guild")
    async with Vault(access) as vault:
        assert (await vault.read("a", "b")).get_secret_value() == "the guild's"


async def test_tls_is_verified_against_the_named_authority_and_refused_without_it(tls_vault: VaultServer) -> None:
    writer = tls_vault.client()
    writer.secrets.kv.v2.create_or_update_secret("a", {"b": "c"})
    writer.adapter.close()
    token = SecretStr(tls_vault.root_token)
    async with Vault(VaultAccess(address=tls_vault.address, token=token, verify=str(tls_vault.ca_file))) as vault:
        assert (await vault.read("a", "b")).get_secret_value() == "c"
    async with Vault(VaultAccess(address=tls_vault.address, token=token)) as vault:
        with pytest.raises(Unavailable, match="TLS failed; set VAULT_CACERT") as refused:
            await vault.read("a", "b")
    assert refused.value.code == "vault_unreachable"


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # what this test asks for
async def test_tls_verification_can_be_switched_off(tls_vault: VaultServer) -> None:
    writer = tls_vault.client()
    writer.secrets.kv.v2.create_or_update_secret("a", {"b": "c"})
    writer.adapter.close()
    access = VaultAccess(address=tls_vault.address, token=SecretStr(tls_vault.root_token), verify=False)
    async with Vault(access) as vault:
        assert (await vault.read("a", "b")).get_secret_value() == "c"


def test_no_address_means_no_vault_and_an_address_alone_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VaultAccess.from_settings(load_settings()) is None
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example:8200")
    for half in ({}, {"VAULT_ROLE_ID": "r"}, {"VAULT_SECRET_ID": "s"}):
        with monkeypatch.context() as patch:
            for name, value in half.items():
                patch.setenv(name, value)
            with pytest.raises(Invalid, match="set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID") as refused:
                VaultAccess.from_settings(load_settings())
            assert "https://vault.example:8200" in refused.value.message


async def test_an_ambient_token_does_not_stand_in_for_an_approle(
    vault_server: VaultServer, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault_server.root_token)  # hvac would pick it up, and ~/.vault-token as well
    access = VaultAccess(address=vault_server.address, role_id="no-such-role", secret_id=SecretStr("s"))
    async with Vault(access) as vault:
        with pytest.raises(Denied):
            await vault.read(*OPENROUTER_KEY)
