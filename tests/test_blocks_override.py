"""Where a block named `trilogue` exists its values replace the environment's; where none does, those stay."""

import logging
import traceback
from typing import Any

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

import blocks
from blocks.loading import configured
from blocks.registration import register
from tests.fixtures.prefect import PrefectServer
from tests.fixtures.vault import AppRole, VaultServer
from trilogue.errors import Denied, Invalid, Unavailable
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.vault import OPENROUTER_KEY, Vault
from trilogue.settings import DEFAULT_MODEL, OPENROUTER_URL, Settings, load_settings

OLD = {
    "vault_addr": "https://old.example:8200",
    "vault_token": "old-token",
    "vault_namespace": "old",
    "redis_url": "redis://old.example",
    "openrouter_api_key": "old-key",
    "openrouter_model": "old/model",
    "database_url": "sqlite:///old.db",
    "stuck_threshold": 7.0,
}


@pytest.fixture
def old() -> Settings:
    return load_settings(**OLD)


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


async def test_without_documents_everything_stays(no_blocks: None, old: Settings) -> None:
    assert await configured(old) == old
    await register(save=False, settings=old)
    assert await configured(old) == old


async def test_each_block_replaces_its_own_settings_and_no_others(no_blocks: None, old: Settings) -> None:
    await blocks.Dragonfly(url=SecretStr("rediss://new.example")).asave("trilogue")
    await blocks.OpenRouter(api_key=SecretStr("new-key"), model=None, base_url="").asave("trilogue")
    await blocks.LedgerDatabase(url=SecretStr("postgresql://new.example/t")).asave("not-trilogue", overwrite=True)
    new = await configured(old)
    changed = {"redis_url": "rediss://new.example", "openrouter_api_key": "new-key"}
    for name in Settings.model_fields:
        assert plain(getattr(new, name)) == changed.get(name, plain(getattr(old, name))), name
    assert "new-key" not in repr(new)


async def test_a_vault_block_never_borrows_the_environments_credentials(no_blocks: None, old: Settings) -> None:
    vault = blocks.VaultSecrets(address="https://new.example", role_id="r", secret_id=SecretStr("s"))
    await vault.asave("trilogue")
    new = await configured(old)
    access = VaultAccess.from_settings(new)
    assert access == VaultAccess(address="https://new.example", role_id="r", secret_id=SecretStr("s"))


async def test_what_register_saved_comes_back(no_blocks: None, old: Settings) -> None:
    await register(save=True, settings=old)
    bare = Settings.model_construct(
        stuck_threshold=7.0, openrouter_model=DEFAULT_MODEL, openrouter_base_url=OPENROUTER_URL
    )
    found = await configured(bare)
    for name, value in OLD.items():
        assert plain(getattr(found, name)) == value, name


async def test_the_key_is_found_through_the_block_by_token_and_by_approle(
    no_blocks: None, vault_server: VaultServer, vault_approle: AppRole, vault_root: Any
) -> None:
    vault_root.secrets.kv.v2.create_or_update_secret(OPENROUTER_KEY[0], {OPENROUTER_KEY[1]: "sk-or-through-the-block"})
    token = {"token": SecretStr(vault_server.root_token)}
    approle = {"role_id": vault_approle.role_id, "secret_id": SecretStr(vault_approle.secret_id)}
    for login in (token, approle):
        await blocks.VaultSecrets(address=vault_server.address, **login).asave("trilogue", overwrite=True)
        block = await blocks.VaultSecrets.aload("trilogue")
        await block.check()
        assert (await block.read(*OPENROUTER_KEY)).get_secret_value() == "sk-or-through-the-block"
        access = VaultAccess.from_settings(await configured(load_settings()))
        assert access is not None
        async with Vault(access) as vault:
            assert (await vault.read(*OPENROUTER_KEY)).get_secret_value() == "sk-or-through-the-block"


async def test_a_block_whose_vault_refuses_says_so(no_blocks: None, vault_server: VaultServer) -> None:
    block = blocks.VaultSecrets(address=vault_server.address, token=SecretStr("token-canary-1"))
    with pytest.raises(Denied, match="secret/data/api-keys/openrouter") as refused:
        await block.check()
    assert "canary" not in str(refused.value) + repr(block)


async def test_a_document_that_cannot_be_used_is_named_and_not_quoted(
    no_blocks: None, old: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await register(save=True, settings=old)
    async with get_client() as client:  # what a person can do in the Prefect UI, which knows no validators of ours
        document = await client.read_block_document_by_name("trilogue", "dragonfly")
        broken = {"data": {"url": "http://u:canary@dragonfly.example"}}
        await client.request("PATCH", f"/block_documents/{document.id}", json=broken)
    with pytest.raises(Invalid, match="'dragonfly/trilogue' cannot be used: url: the URL must begin with") as refused:
        await configured(old)
    assert refused.value.code == "bad_block"
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    below_this_frame = refused.value.__traceback__ and refused.value.__traceback__.tb_next
    frames = traceback.TracebackException(Invalid, refused.value, below_this_frame, capture_locals=True)
    assert "canary" not in "".join(frames.format()) + caplog.text


async def test_a_prefect_api_out_of_reach_is_unavailable(prefect_server: PrefectServer, old: Settings) -> None:
    for url in ("http://127.0.0.1:9/api", prefect_server.api_url.removesuffix("/api")):
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises(Unavailable, match="PREFECT_API_URL") as failed:
            await configured(old)
        assert failed.value.code == "prefect_unreachable"
        assert repr(url) in failed.value.message
