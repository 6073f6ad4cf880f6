"""A killed worker's Vault token ends by its time; the attempt that takes its pipeline up has another one."""

import signal
from typing import Any

import pytest

from tests.fixtures.vault import TokenRole, VaultServer
from tests.fixtures.vault_attempts import AliveTokens, keep_key
from tests.terminals import Installation, until
from tests.test_canary import aside
from trilogue.models.rehearsal.script import rehearse
from trilogue.testing.openrouter import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

KEY = "sk-or-v1-of-a-killed-worker"


def test_what_a_killed_worker_leaves_in_vault_is_one_token_with_an_end(
    installation: Installation,
    vault_server: VaultServer,
    vault_root: Any,
    vault_role: TokenRole,
    alive_tokens: AliveTokens,
) -> None:
    keep_key(vault_root, KEY)
    with aside(serving(rehearse, key=KEY, latency=0.3)) as server:
        variables = {
            "OPENROUTER_BASE_URL": server.url,
            "VAULT_ADDR": vault_server.address,
            "VAULT_TOKEN": vault_role.login,
            "TRILOGUE_VAULT_TOKEN_ROLE": vault_role.name,
            "TRILOGUE_LEASE_SECONDS": "1",
        }
        terminal = installation.start("run", "Design a caching strategy", "--timeout", "50", env=variables)
        until(lambda: bool(server.chats), within=60)
        terminal.send(signal.SIGKILL).ended()
        (left,) = alive_tokens()
        assert left["explicit_max_ttl"] == 120 + 50 + 60
        assert not left["renewable"]
        (pipeline,) = installation.run("list", "--json").document["items"]
        assert left["meta"] == {"pipeline": pipeline["pipeline_id"], "attempt": "1"}
        until(lambda: not _leased(installation), within=15)
        resumed = installation.run("resume", pipeline["pipeline_id"], "--json", env=variables)
        assert resumed.document["status"] == "COMPLETED"
        assert [token["accessor"] for token in alive_tokens()] == [left["accessor"]]


def _leased(installation: Installation) -> bool:
    (pipeline,) = installation.run("list", "--json").document["items"]
    return not pipeline["orphaned"]
