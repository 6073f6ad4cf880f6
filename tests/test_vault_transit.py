"""Anchors are signed by a key that never leaves Vault, and only by those whose policy says so."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.vault import TokenRole, VaultServer
from tests.tampering import Office, record
from trilogue.anchoring import anchor_due
from trilogue.errors import Denied, Invalid, NotFound, Unavailable
from trilogue.ledger import Ledger

POLICY = """
path "transit/sign/{name}" {{ capabilities = ["update"] }}
path "transit/keys/{name}" {{ capabilities = ["read"] }}
"""


@pytest.fixture
async def ledger(migrated_sqlite_url: str) -> AsyncIterator[Ledger]:
    opened = await Ledger.open(migrated_sqlite_url, migrate=False)
    await record(opened, "p-1", 1)
    yield opened
    await opened.close()


@pytest.fixture
def transit(vault_root: Any) -> str:
    """A transit key of the test's own, and a policy of the same name that may sign with it."""
    if "transit/" not in vault_root.sys.list_mounted_secrets_engines()["data"]:
        vault_root.sys.enable_secrets_engine("transit")
    name = f"anchors-{uuid.uuid4().hex[:8]}"
    vault_root.secrets.transit.create_key(name, key_type="ed25519")
    vault_root.sys.create_or_update_policy(name, POLICY.format(name=name))
    return name


def _login(root: Any, policy: str) -> str:
    token: str = root.auth.token.create(policies=[policy], no_default_policy=True, ttl="1h")["auth"]["client_token"]
    return token


def _office(ledger: Ledger, home: Path, server: VaultServer, token: str, key: str) -> Office:
    return Office(ledger, home, vault_addr=server.address, vault_token=SecretStr(token), anchor_key=f"vault:{key}")


async def test_anchors_are_signed_in_vault_and_a_rotated_key_is_known_with_the_former_one(
    ledger: Ledger, tmp_path: Path, vault_server: VaultServer, vault_root: Any, transit: str
) -> None:
    office = _office(ledger, tmp_path, vault_server, _login(vault_root, transit), transit)
    assert await anchor_due(office) == 1
    vault_root.secrets.transit.rotate_key(transit)
    await record(ledger, "p-2", 1)
    assert await anchor_due(office) == 1
    keys = await ledger.proof.keys("default")
    assert [(key.origin, key.first, key.last) for key in keys] == [
        (f"vault:{transit}", 1, 1),
        (f"vault:{transit}", 2, 2),
    ]
    verdict = await ledger.proof.verify(keys={key.key_id: key.public_key for key in keys})
    assert verdict.whole, verdict.problems
    assert verdict.anchored == 6
    assert not (tmp_path / "keys").exists()


async def test_an_attempts_token_cannot_sign(
    ledger: Ledger, tmp_path: Path, vault_server: VaultServer, vault_root: Any, transit: str, vault_role: TokenRole
) -> None:
    token = vault_root.auth.token.create(role_name=vault_role.name, ttl="60s")["auth"]["client_token"]
    with pytest.raises(Denied, match=rf"`update` on 'transit/sign/{transit}'"):
        await anchor_due(_office(ledger, tmp_path, vault_server, token, transit))
    assert (await ledger.proof.verify()).anchors == 0


async def test_what_vault_refuses_or_lacks_is_told(
    ledger: Ledger, tmp_path: Path, vault_server: VaultServer, vault_root: Any, transit: str
) -> None:
    root = vault_server.root_token
    with pytest.raises(NotFound, match=r"no transit key 'transit/nothing'.*type=ed25519"):
        await anchor_due(_office(ledger, tmp_path, vault_server, root, "nothing"))
    with pytest.raises(NotFound, match="nowhere"):
        await anchor_due(_office(ledger, tmp_path, vault_server, root, "nowhere/anchors"))
    with pytest.raises(Invalid, match="can be called"):
        await anchor_due(_office(ledger, tmp_path, vault_server, root, "../../sys/raw"))
    vault_root.secrets.transit.create_key(f"{transit}-ec", key_type="ecdsa-p256")
    with pytest.raises(Invalid, match="no Ed25519 key"):
        await anchor_due(_office(ledger, tmp_path, vault_server, root, f"{transit}-ec"))
    away = Office(
        ledger, tmp_path, vault_addr="http://127.0.0.1:1", vault_token=SecretStr("t"), anchor_key=f"vault:{transit}"
    )
    with pytest.raises(Unavailable, match="could not be asked"):
        await anchor_due(away)
    vault_root.sys.create_or_update_policy(transit, POLICY.format(name=transit).split("\n")[1])
    with pytest.raises(Denied, match=rf"`read` on 'transit/keys/{transit}'"):
        await anchor_due(_office(ledger, tmp_path, vault_server, _login(vault_root, transit), transit))
    assert (await ledger.proof.verify()).anchors == 0
