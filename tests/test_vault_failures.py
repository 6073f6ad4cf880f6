"""Whatever is wrong with Vault, the error says what, where and what to do, and never holds a secret."""

import asyncio
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.vault import AppRole, VaultServer
from trilogue.errors import Denied, Invalid, NotFound, TrilogueError, Unavailable
from trilogue.secrets import vault as reading
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.vault import OPENROUTER_KEY, Vault

TOKEN = "token-canary-5e1d"
SECRET_ID = "secret-id-canary-8b2f"
NEIGHBOUR = "neighbour-canary-0c7a"
CANARIES = (TOKEN, SECRET_ID, NEIGHBOUR)
FULL_PATH = "'secret/data/api-keys/openrouter'"


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def with_token(address: str, token: str = TOKEN) -> VaultAccess:
    return VaultAccess(address=address, token=SecretStr(token))


async def failure(access: VaultAccess, *, secrets: tuple[str, ...] = CANARIES, path: str = OPENROUTER_KEY[0]) -> Any:
    """The error of one read, after looking for secrets wherever an error can carry them."""
    async with Vault(access) as vault:
        with pytest.raises(TrilogueError) as caught:
            await vault.read(path, OPENROUTER_KEY[1])
        shown = [repr(vault), repr(access), str(access)]
    error = caught.value
    assert repr(access.address) in error.message
    assert error.__cause__ is None
    assert error.__context__ is None
    shown += [str(error), repr(error), repr(error.args)]
    below_this_frame = error.__traceback__ and error.__traceback__.tb_next
    shown += traceback.TracebackException(type(error), error, below_this_frame, capture_locals=True).format()
    for secret in secrets:
        assert not [text for text in shown if secret in text]
    return error


@pytest.fixture(autouse=True)
async def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert not [secret for secret in CANARIES if secret in caplog.text]


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that takes any request, sends `answer` and then says nothing more."""
    held: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        for writer in held:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_a_sealed_vault(sealed_vault: VaultServer) -> None:
    approle = VaultAccess(address=sealed_vault.address, role_id="r", secret_id=SecretStr(SECRET_ID))
    for access in (with_token(sealed_vault.address), approle):
        error = await failure(access)
        assert isinstance(error, Unavailable)
        assert error.code == "vault_sealed"
        assert error.retryable
        assert FULL_PATH in error.message
        assert "unseal" in error.message


async def test_an_unreachable_vault() -> None:
    error = await failure(with_token(free_address()))
    assert isinstance(error, Unavailable)
    assert error.code == "vault_unreachable"
    assert FULL_PATH in error.message
    assert "VAULT_ADDR" in error.message


async def test_a_silent_vault_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "TIMEOUT", 0.3)
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n") as address, asyncio.timeout(3):
        error = await failure(with_token(address))
    assert isinstance(error, Unavailable)
    assert error.code == "vault_unreachable"


@pytest.mark.parametrize("approle", [False, True])
async def test_an_address_where_something_else_answers(approle: bool) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    async with answering(page) as address:
        by_role = VaultAccess(address=address, role_id="r", secret_id=SecretStr(SECRET_ID))
        error = await failure(by_role if approle else with_token(address))
    assert isinstance(error, Unavailable)
    assert error.code == "vault_unreachable"


async def test_a_wrong_token(vault_server: VaultServer) -> None:
    error = await failure(with_token(vault_server.address))
    assert isinstance(error, Denied)
    assert error.code == "vault_forbidden"
    assert FULL_PATH in error.message
    assert "token" in error.message


async def test_a_wrong_approle(vault_server: VaultServer, vault_approle: AppRole) -> None:
    for role_id in (vault_approle.role_id, "no-such-role"):
        access = VaultAccess(address=vault_server.address, role_id=role_id, secret_id=SecretStr(SECRET_ID))
        error = await failure(access)
        assert isinstance(error, Denied)
        assert error.code == "vault_forbidden"
        assert "AppRole" in error.message


async def test_a_policy_that_does_not_reach_the_path(vault_server: VaultServer, vault_approle: AppRole) -> None:
    secret = vault_approle.secret_id
    access = VaultAccess(address=vault_server.address, role_id=vault_approle.role_id, secret_id=SecretStr(secret))
    error = await failure(access, secrets=(*CANARIES, secret), path="api-keys/other")
    assert isinstance(error, Denied)
    assert "'secret/data/api-keys/other'" in error.message


async def test_a_missing_path_a_deleted_secret_and_a_missing_mount(vault_server: VaultServer, vault_root: Any) -> None:
    kv = vault_root.secrets.kv.v2
    kv.create_or_update_secret("gone", {"api_key": NEIGHBOUR})
    kv.delete_latest_version_of_secret("gone")
    root = vault_server.root_token
    token = SecretStr(root)
    no_mount = VaultAccess(address=vault_server.address, token=token, mount="no-such-mount")
    no_namespace = VaultAccess(address=vault_server.address, token=token, namespace="no-such-namespace")
    for access, path, words in (
        (with_token(vault_server.address, root), "never/written", "'secret/data/never/written'"),
        (with_token(vault_server.address, root), "gone", "'secret/data/gone'"),
        (no_mount, "gone", "'no-such-mount/data/gone'"),
        (no_namespace, "gone", "in namespace 'no-such-namespace'"),
    ):
        error = await failure(access, secrets=(*CANARIES, root), path=path)
        assert isinstance(error, NotFound)
        assert error.code == "vault_path_missing"
        assert words in error.message


@pytest.mark.parametrize("value", [None, "", 7, {"nested": NEIGHBOUR}])
async def test_a_field_that_is_missing_empty_or_no_text(
    vault_server: VaultServer, vault_root: Any, value: object
) -> None:
    fields = {"other": NEIGHBOUR} if value is None else {"other": NEIGHBOUR, "api_key": value}
    vault_root.secrets.kv.v2.create_or_update_secret("odd", fields)
    root = vault_server.root_token
    error = await failure(with_token(vault_server.address, root), secrets=(*CANARIES, root), path="odd")
    assert isinstance(error, NotFound)
    assert error.code == "vault_field_missing"
    assert "'api_key'" in error.message
    assert "other" in error.message


async def test_a_ca_file_that_is_not_there(tls_vault: VaultServer) -> None:
    access = VaultAccess(address=tls_vault.address, token=SecretStr(TOKEN), verify="/no/such/ca.pem")
    error = await failure(access)
    assert isinstance(error, Unavailable)
    assert "'/no/such/ca.pem'" in error.message


@pytest.mark.parametrize("token", [TOKEN + "\n", f" {TOKEN}", TOKEN + "\u2028", ""])
def test_a_token_that_fits_no_header_is_refused_unseen(token: str) -> None:
    with pytest.raises(Invalid) as refused:
        with_token("http://vault.example:8200", token)
    assert refused.value.code == "vault_credentials"
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["vault.example:8200", "ftp://vault.example", "https://", "http://[half", "http://h:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="must be such as") as refused:
        with_token(address)
    assert repr(address) in refused.value.message


def test_a_password_in_the_address_is_refused_unseen() -> None:
    with pytest.raises(Invalid) as refused:
        with_token(f"https://user:{NEIGHBOUR}@vault.example")
    assert NEIGHBOUR not in str(refused.value)
