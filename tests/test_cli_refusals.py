"""What is configured and cannot be used ends `run` in one clear line, and the ledger tells what happened, if anything.

The Prefect server is there; everything else is taken away.
"""

import json
import logging
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Command
from tests.fixtures.prefect import PrefectServer
from tests.fixtures.valkey import OwnServer
from tests.fixtures.vault import VaultServer
from trilogue.ledger import schema

OBJECTIVE = "Design a caching strategy"
SECRET = "s3cret-canary-71"


@pytest.fixture(autouse=True)
def prefect_is_there(
    command: Command, prefect_server: PrefectServer, no_blocks: None, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.api_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "0")
    monkeypatch.setenv("TRILOGUE_RETRY_WAIT", "0.01")
    # The command quietens Prefect before it imports it; here it was imported long ago.
    for logger in [*logging.root.manager.loggerDict.values(), logging.root]:
        for handler in getattr(logger, "handlers", ()):
            if type(handler).__module__.startswith("prefect."):
                monkeypatch.setattr(handler, "level", logging.CRITICAL)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A loopback address at which nobody answers, and nobody can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def nothing_recorded(command: Command) -> bool:
    return bool(command("list", "--json").document["items"] == [])


def failed_document(command: Command, *arguments: str) -> dict[str, object]:
    """What `run --json` gave that ended FAILED: recorded, told on stderr, and the same in the ledger afterwards."""
    ended = command("run", OBJECTIVE, *arguments, "--json")
    assert ended.code == 1, ended
    document = ended.document
    assert isinstance(document, dict)
    assert document["status"] == "FAILED", document
    assert document["error"]["message"] in ended.err
    assert "Traceback" not in ended.err
    assert SECRET not in ended.out + ended.err
    assert command("status", document["pipeline_id"], "--json").document == document
    error: dict[str, object] = document["error"]
    return error


def test_with_everything_there_a_run_completes(command: Command) -> None:
    ended = command("run", OBJECTIVE, "--json")
    assert (ended.code, ended.document["status"]) == (0, "COMPLETED")
    assert ended.out == json.dumps(ended.document, ensure_ascii=False, indent=2) + "\n"


@pytest.mark.parametrize(
    "url", [f"http://{SECRET}@host", f"redis://:{SECRET}/x@host:port", "unix://", "redis://host/not-a-number"]
)
def test_a_redis_url_that_cannot_be_used_is_bad_usage_and_nothing_is_recorded(
    command: Command, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    with monkeypatch.context() as bad:
        bad.setenv("REDIS_URL", url)
        ended = command("run", OBJECTIVE, "--json")
    assert ended.code == 2
    assert ended.document["error"] == "bad_redis_url"
    assert SECRET not in ended.out + ended.err
    assert nothing_recorded(command)


def test_redis_away_at_the_start_is_said_and_the_run_completes_without_it(
    command: Command, valkey_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    valkey_server.kill()
    ended = command("run", OBJECTIVE, "--json")
    assert (ended.code, ended.document["status"]) == (0, "COMPLETED")
    assert f"Redis at '127.0.0.1:{valkey_server.port}' cannot be used" in ended.err
    assert "going on without it" in ended.err


def test_a_wrong_redis_password_is_said_and_not_shown(
    command: Command, guarded_valkey: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@127.0.0.1:{guarded_valkey.port}/0")
    ended = command("run", OBJECTIVE, "--json")
    assert (ended.code, ended.document["status"]) == (0, "COMPLETED")
    assert "it refused the password" in ended.err
    assert SECRET not in ended.out + ended.err


def test_a_model_server_away_at_the_start_is_no_quiet_rehearsal(
    command: Command, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", f"http://{nowhere}/v1")
    error = failed_document(command)
    assert error["code"] == "endpoint_unreachable"
    assert nowhere in str(error["message"])


def test_openrouter_without_a_key_says_where_to_put_one(command: Command) -> None:
    error = failed_document(command, "--mode", "openrouter")
    assert error["code"] == "no_api_key"
    assert "OPENROUTER_API_KEY" in str(error["message"])


def test_a_local_model_without_a_server_is_bad_usage_and_nothing_is_recorded(command: Command) -> None:
    ended = command("run", OBJECTIVE, "--mode", "local", "--model", "llama")
    assert ended.code == 2
    assert "needs LOCAL_MODEL_URL" in ended.err.splitlines()[-1]
    assert nothing_recorded(command)


@pytest.mark.parametrize("model", ["rehearsal/none", "rehearsal/"])
def test_an_unknown_rehearsal_is_bad_usage_and_nothing_is_recorded(command: Command, model: str) -> None:
    ended = command("run", OBJECTIVE, "--model", model, "--json")
    assert (ended.code, ended.document["error"]) == (2, "invalid_model")
    assert "rehearsal/conflict" in ended.document["detail"]
    assert nothing_recorded(command)


def test_a_sealed_vault_is_told_with_address_and_path_and_nothing_is_recorded(
    command: Command, sealed_vault: VaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", sealed_vault.address)
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    ended = command("run", OBJECTIVE, "--json")
    assert (ended.code, ended.document["error"]) == (1, "vault_sealed")
    assert f"Vault at '{sealed_vault.address}' is sealed" in ended.err
    assert "secret/data/services/dragonfly" in ended.err
    assert SECRET not in ended.out + ended.err
    assert nothing_recorded(command)


def test_a_vault_out_of_reach_is_told_and_no_rehearsal_takes_its_place(
    command: Command, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ADDR", f"http://{nowhere}")
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    ended = command("run", OBJECTIVE)
    assert ended.code == 1
    assert nowhere in ended.err.splitlines()[-1]
    assert SECRET not in ended.out + ended.err
    assert nothing_recorded(command)


def test_an_external_id_is_taken_once(command: Command) -> None:
    assert command("run", OBJECTIVE, "--hold", "--external-id", "order-7").code == 0
    ended = command("run", "Another", "--external-id", "order-7", "--json")
    assert (ended.code, ended.document["error"]) == (1, "external_id_taken")
    assert len(command("list", "--json").document["items"]) == 1


def test_a_ledger_of_a_newer_version_is_refused_before_anything_is_recorded(command: Command, tmp_path: Path) -> None:
    command("db", "upgrade")
    with sqlite3.connect(tmp_path / "home" / "ledger.db") as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    ended = command("run", OBJECTIVE)
    assert ended.code == 1
    assert "'9999', which this version of Trilogue does not know" in ended.err.splitlines()[-1]


def test_a_database_server_out_of_reach_is_refused_without_its_password(
    command: Command, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILOGUE_DATABASE_URL", f"postgresql://trilogue:{SECRET}@{nowhere}/trilogue")
    ended = command("run", OBJECTIVE, "--json")
    assert (ended.code, set(ended.document)) == (1, {"error", "detail"})
    assert nowhere.partition(":")[0] in ended.err
    assert SECRET not in ended.out + ended.err


def test_a_bug_is_one_line_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trilogue.cli.reading.fold", lambda _: 1 / 0)
    command("run", OBJECTIVE, "--hold")
    pipeline_id = command("list", "--json").document["items"][0]["pipeline_id"]
    ended = command("status", pipeline_id, "--json")
    assert (ended.code, ended.document["error"]) == (1, "internal")
    assert "unexpected ZeroDivisionError: division by zero; `--debug` shows where" in ended.document["detail"]
    assert "Traceback" in command("status", pipeline_id, "--debug").err
