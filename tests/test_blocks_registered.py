"""`blocks register` makes the four types known to a real Prefect server and saves what the environment says."""

import re
from typing import Any

import pytest
from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

import blocks
from blocks.registration import Registered, register
from tests.fixtures.prefect import PrefectServer
from trilogue.errors import Denied, Invalid, Unavailable
from trilogue.settings import Settings, load_settings

SLUGS = ["vault-secrets", "dragonfly", "openrouter", "ledger-database"]
SECRETS = {
    "vault_token": "token-canary-1",
    "redis_url": "redis://u:redis-canary-2@dragonfly.example:6379/0",
    "openrouter_api_key": "key-canary-3",
    "database_url": "postgresql://u:database-canary-4@db.example/trilogue",
}
CANARY = re.compile(r"[a-z]+-canary-\d")


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "REDIS_URL", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENROUTER_MODEL", "OPENROUTER_BASE_URL", "TRILOGUE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


def everything(**more: Any) -> Settings:
    return load_settings(vault_addr="https://vault.example:8200", **SECRETS, **more)


async def test_each_type_is_shown_as_the_prefect_ui_wants_it(no_blocks: None) -> None:
    done = await register(save=False, settings=everything())
    assert done == [Registered(slug=slug, document=None, action="registered") for slug in SLUGS]
    async with get_client() as client:
        for slug in SLUGS:
            known = await client.read_block_type_by_slug(slug)
            assert known.description
            assert str(known.logo_url).startswith("https://")
            assert str(known.documentation_url).startswith("https://")
            assert "from blocks import" in (known.code_example or "")
            schemas = [schema for schema in await client.read_block_schemas() if schema.block_type_id == known.id]
            for name, field in schemas[0].fields["properties"].items():
                assert field["title"], f"{slug}.{name}"
                assert field["description"], f"{slug}.{name}"
        with pytest.raises(ObjectNotFound):
            await client.read_block_document_by_name("trilogue", "dragonfly")


def test_prefects_own_command_would_find_exactly_these_types() -> None:
    exported = [getattr(blocks, name) for name in blocks.__all__]
    assert sorted(block.get_block_type_slug() for block in exported) == sorted(SLUGS)


async def test_saved_secrets_are_masked_unless_asked_for(no_blocks: None) -> None:
    done = await register(save=True, settings=everything())
    assert done == [Registered(slug=slug, document="trilogue", action="saved") for slug in SLUGS]
    async with get_client() as client:
        masked, plain = "", ""
        for slug in SLUGS:
            for secrets in (False, True):
                path = f"/block_types/slug/{slug}/block_documents/name/trilogue"
                answer = await client.request("GET", path, params={"include_secrets": secrets})
                masked, plain = (masked, plain + answer.text) if secrets else (masked + answer.text, plain)
    assert not CANARY.findall(masked)
    assert {f"{kind}-canary-{n}" for n, kind in enumerate(("token", "redis", "key", "database"), 1)} == set(
        CANARY.findall(plain)
    )


async def test_only_what_is_configured_is_saved(no_blocks: None) -> None:
    done = await register(save=True, settings=load_settings(redis_url="redis://dragonfly.example"))
    assert [(each.slug, each.action) for each in done if each.document] == [("dragonfly", "saved")]
    async with get_client() as client:
        with pytest.raises(ObjectNotFound):
            await client.read_block_document_by_name("trilogue", "openrouter")


async def test_saving_again_leaves_nothing_of_the_old_login(no_blocks: None) -> None:
    await register(save=True, settings=everything())
    again = load_settings(vault_addr="https://other.example:8200", vault_role_id="r", vault_secret_id="s")
    await register(save=True, settings=again)
    vault = await blocks.VaultSecrets.aload("trilogue")
    assert vault.address == "https://other.example:8200"
    assert vault.token is None
    assert vault.secret_id is not None
    assert vault.secret_id.get_secret_value() == "s"
    openrouter = await blocks.OpenRouter.aload("trilogue")
    assert openrouter.api_key is not None  # not configured this time, so not touched


async def test_settings_that_a_block_cannot_use_are_named_without_the_value(no_blocks: None) -> None:
    with pytest.raises(Invalid, match="'dragonfly' cannot be used: url: the URL must begin with") as refused:
        await register(save=True, settings=load_settings(redis_url="http://u:redis-canary-2@dragonfly.example"))
    assert not CANARY.findall(str(refused.value))
    async with get_client() as client:
        with pytest.raises(ObjectNotFound):
            await client.read_block_document_by_name("trilogue", "dragonfly")
    with pytest.raises(Invalid, match="set VAULT_TOKEN"):
        await register(save=True, settings=load_settings(vault_addr="https://vault.example:8200"))


@pytest.mark.parametrize("block", [blocks.VaultSecrets, blocks.Dragonfly, blocks.OpenRouter, blocks.LedgerDatabase])
def test_a_bad_block_does_not_quote_its_secrets(block: type[Any]) -> None:
    given = {"address": "nowhere", "token": "token-canary-1", "url": "odd:redis-canary-2", "api_key": "key-canary-3"}
    with pytest.raises(ValidationError) as refused:
        block(**given, base_url="nowhere")
    assert not CANARY.findall(str(refused.value) + repr(refused.value))


async def test_a_prefect_api_out_of_reach_is_unavailable(prefect_server: PrefectServer) -> None:
    for url in ("http://127.0.0.1:9/api", prefect_server.api_url + "/not-the-api"):
        with temporary_settings({PREFECT_API_URL: url}), pytest.raises((Unavailable, Denied), match="PREFECT_API_URL"):
            await register(save=False, settings=load_settings())
