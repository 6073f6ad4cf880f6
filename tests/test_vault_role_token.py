"""A role token: what Vault's roles and policies can have wrong, and that an AppRole's login is one for all."""

import logging
import traceback
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import SecretStr

import blocks
from tests.fixtures.vault import AppRole, TokenRole, VaultServer, tokens_of
from tests.fixtures.vault_tap import tapped
from trilogue.errors import Denied, Invalid, NotFound, TrilogueError, Unavailable
from trilogue.secrets import role_token
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.role_token import reader_for
from trilogue.secrets.vault import DRAGONFLY_PASSWORD, OPENROUTER_KEY, Vault
from trilogue.settings import load_settings

KEY = "sk-or-canary-key-41"
POLICY = "trilogue-attempt"


def access(server: VaultServer, token: str, role: str = "trilogue") -> VaultAccess:
    return VaultAccess(address=server.address, token=SecretStr(token), token_role=role)


async def read_once(access: VaultAccess, path: tuple[str, str] = OPENROUTER_KEY) -> str:
    async with Vault(access) as vault, reader_for(vault, seconds=30, meta={}) as reader:
        return (await reader.read(*path)).get_secret_value()


async def failure(access: VaultAccess, path: tuple[str, str] = OPENROUTER_KEY) -> TrilogueError:
    """The error of one read; neither it nor its traceback's frames hold a secret."""
    with pytest.raises(TrilogueError) as caught:
        await read_once(access, path)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True).format()
    token = access.token.get_secret_value() if access.token else ""
    assert not [text for text in [*frames, repr(error)] if KEY in text or (token and f"'{token}'" in text)]
    return error


@pytest.fixture(autouse=True)
def _kept(vault_root: Any, vault_role: TokenRole) -> None:
    vault_root.secrets.kv.v2.create_or_update_secret(OPENROUTER_KEY[0], {OPENROUTER_KEY[1]: KEY})
    vault_root.secrets.kv.v2.create_or_update_secret(DRAGONFLY_PASSWORD[0], {DRAGONFLY_PASSWORD[1]: "dragonfly"})


def write_role(root: Any, name: str, **options: Any) -> None:
    root.write_data(f"auth/token/roles/{name}", data=options)


async def test_the_readmes_login_reads_the_key_only_by_the_role_and_dragonflys_password_only_itself(
    vault_server: VaultServer, vault_role: TokenRole
) -> None:
    by_role = access(vault_server, vault_role.login)
    assert await read_once(by_role) == KEY
    assert "role 'trilogue'" in (await failure(by_role, DRAGONFLY_PASSWORD)).message
    async with Vault(by_role) as vault:
        assert (await vault.read(*DRAGONFLY_PASSWORD)).get_secret_value() == "dragonfly"
        with pytest.raises(Denied):
            await vault.read(*OPENROUTER_KEY)


async def test_a_missing_role(vault_server: VaultServer) -> None:
    error = await failure(access(vault_server, vault_server.root_token, "nowhere"))
    assert isinstance(error, NotFound)
    assert error.code == "vault_role_missing"
    assert "`vault write auth/token/roles/nowhere allowed_policies=" in error.message


async def test_a_role_that_the_login_may_not_use(vault_server: VaultServer, vault_role: TokenRole) -> None:
    error = await failure(access(vault_server, vault_role.login, "other"))
    assert isinstance(error, Denied)
    assert error.code == "vault_role_refused"
    assert "`update` on 'auth/token/create/other'" in error.message


async def test_a_role_without_policies_of_its_own_and_a_login_that_may_do_everything(
    vault_server: VaultServer, vault_root: Any
) -> None:
    write_role(vault_root, "unfit", orphan=True)
    error = await failure(access(vault_server, vault_server.root_token, "unfit"))
    assert isinstance(error, Denied)
    assert error.code == "vault_role_unfit"
    assert "allowed_policies=" in error.message
    assert tokens_of(vault_root, "unfit") == []


@pytest.mark.parametrize("kind", ["batch", "default-batch"])
async def test_a_role_whose_tokens_cannot_be_revoked(kind: str, vault_server: VaultServer, vault_root: Any) -> None:
    write_role(vault_root, "batches", allowed_policies=POLICY, token_type=kind, renewable=False, orphan=True)
    error = await failure(access(vault_server, vault_server.root_token, "batches"))
    assert isinstance(error, Denied)
    assert error.code == "vault_role_refused"
    assert "token_type=service" in error.message


async def test_a_role_with_a_period_or_the_default_policy_makes_no_longer_and_no_mightier_token(
    vault_server: VaultServer, vault_root: Any
) -> None:
    write_role(vault_root, "loose", allowed_policies=POLICY, token_period="1h", renewable=True)
    async with (
        Vault(access(vault_server, vault_server.root_token, "loose")) as vault,
        reader_for(vault, seconds=30, meta={}) as reader,
    ):
        await reader.read(*OPENROUTER_KEY)
        (token,) = tokens_of(vault_root, "loose")
    assert token["ttl"] <= 30
    assert token["explicit_max_ttl"] == 30
    assert not token["renewable"]
    assert token["policies"] == [POLICY]


async def test_a_token_that_cannot_be_revoked_is_a_warning_that_says_what_to_write(
    vault_server: VaultServer, vault_root: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    run, told_in = ContextVar("run", default="none"), []
    monkeypatch.setattr(role_token.logger, "filters", [lambda _: told_in.append(run.get()) or True])
    run.set("the caller's")  # as Prefect finds out to which flow run a line belongs
    vault_root.sys.create_or_update_policy("key-only", 'path "secret/data/api-keys/*" { capabilities = ["read"] }')
    write_role(vault_root, "stuck", allowed_policies="key-only", orphan=True)
    assert await read_once(access(vault_server, vault_server.root_token, "stuck")) == KEY
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert told_in == ["the caller's"]
    assert "'stuck'" in warning.getMessage()
    assert "`update` on 'auth/token/revoke-self'" in warning.getMessage()
    assert KEY not in caplog.text
    assert vault_server.root_token not in caplog.text


async def test_a_secret_that_is_not_there_leaves_no_token(vault_server: VaultServer, vault_root: Any) -> None:
    write_role(vault_root, "reader", allowed_policies=POLICY)
    vault_root.secrets.kv.v2.delete_metadata_and_all_versions(OPENROUTER_KEY[0])
    error = await failure(access(vault_server, vault_server.root_token, "reader"))
    assert error.code == "vault_path_missing"
    assert tokens_of(vault_root, "reader") == []


async def test_a_sealed_vault_and_none_at_all(sealed_vault: VaultServer) -> None:
    sealed = await failure(access(sealed_vault, sealed_vault.root_token))
    assert (type(sealed), sealed.code) == (Unavailable, "vault_sealed")
    nobody = VaultAccess(address="http://127.0.0.1:9", token=SecretStr("t"), token_role="trilogue")
    assert (await failure(nobody)).code == "vault_unreachable"


async def test_an_approle_logs_in_once_for_all_readers_and_out_at_the_end(
    vault_server: VaultServer, worker_approle: AppRole, vault_root: Any
) -> None:
    async with tapped(vault_server.address) as tap:
        by_approle = VaultAccess(
            address=tap.address,
            role_id=worker_approle.role_id,
            secret_id=SecretStr(worker_approle.secret_id),
            token_role="trilogue",
        )
        async with Vault(by_approle) as vault:
            for _ in range(2):
                async with reader_for(vault, seconds=30, meta={}) as reader:
                    assert (await reader.read(*OPENROUTER_KEY)).get_secret_value() == KEY
            (login,) = set(tap.tokens("auth/token/create/"))
            assert vault_root.lookup_token(login)["data"]["path"] == "auth/approle/login"
    each = ["auth/token/create/trilogue", "secret/data/api-keys/openrouter", "auth/token/revoke-self"]
    assert tap.paths == ["auth/approle/login", *each, *each, "auth/token/revoke-self"]
    assert tap.asked[-1].token == login


@pytest.mark.parametrize("name", ["", "../create", "a b", "a/b", "-a", "rolé"])
def test_a_role_that_no_vault_has_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="TRILOGUE_VAULT_TOKEN_ROLE") as refused:
        VaultAccess(address="http://vault.example:8200", token=SecretStr("t"), token_role=name)
    assert refused.value.code == "vault_role"


def test_the_environment_names_the_role_and_a_role_without_a_vault_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILOGUE_VAULT_TOKEN_ROLE", "trilogue")
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with pytest.raises(Invalid, match="set VAULT_ADDR"):
        VaultAccess.from_settings(load_settings())
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example:8200")
    monkeypatch.setenv("VAULT_TOKEN", "t")
    found = VaultAccess.from_settings(load_settings())
    assert found is not None
    assert found.token_role == "trilogue"


async def test_a_block_reads_by_its_role_and_one_without_keeps_the_environments(
    vault_server: VaultServer, vault_role: TokenRole
) -> None:
    login = SecretStr(vault_role.login)
    block = blocks.VaultSecrets(address=vault_server.address, token=login, token_role=vault_role.name)
    await block.check()
    assert (await block.read(*OPENROUTER_KEY)).get_secret_value() == KEY
    assert block.overrides()["vault_token_role"] == "trilogue"
    bare = blocks.VaultSecrets(address=vault_server.address, token=login)
    strict = load_settings(vault_token_role="env-role").model_copy(update=bare.overrides())
    assert strict.vault_token_role == "env-role"
    saved = blocks.VaultSecrets.from_settings(
        load_settings(vault_addr="https://v.example", vault_token="t", vault_token_role="r")
    )
    assert saved is not None
    assert saved.token_role == "r"
