"""Each attempt works with a Vault token of its own: it reads the key and nothing else, and nothing once it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import hvac
import pytest
from hvac.exceptions import Forbidden
from pydantic import SecretStr

from tests.driving import Driver, MakeDriver
from tests.fixtures.model_server import KEY
from tests.fixtures.vault import AppRole, VaultServer
from tests.fixtures.vault_attempts import FOR_EACH_ATTEMPT, AliveTokens, keep_key, reading_attempt
from tests.fixtures.vault_tap import Tap
from trilogue import interventions, phases
from trilogue.attempt import Attempt
from trilogue.deliberation.turns import lost_turns
from trilogue.desk import local
from trilogue.errors import Denied, Fenced, Unavailable
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.secrets.vault import OPENROUTER_KEY
from trilogue.testing.openrouter import OpenRouterServer

LASTS = 20 + 20 + 60
"""Seconds: what the driver's pipelines give an agent in RUN and a round, and the minute around them."""


def may(vault_server: VaultServer, token: str, act: Callable[[Any], object]) -> bool:
    """Whether Vault lets `token` do that."""
    client = hvac.Client(url=vault_server.address, token=token, timeout=5)
    try:
        act(client)
    except Forbidden:
        return False
    finally:
        client.adapter.close()
    return True


def read_key(client: Any) -> None:
    answer = client.secrets.kv.v2.read_secret_version(OPENROUTER_KEY[0], raise_on_deleted_version=True)
    assert answer["data"]["data"]["api_key"]


async def test_an_attempts_token_reads_the_key_and_may_do_nothing_else(
    driver_with_role: MakeDriver, vault_tap: Tap, vault_server: VaultServer, vault_root: Any
) -> None:
    kv = vault_root.secrets.kv.v2
    for path in ("api-keys/other", "api-keys/openrouter/below"):
        kv.create_or_update_secret(path, {"password": "p"})
    async with reading_attempt(await driver_with_role()):
        (token,) = vault_tap.tokens()
        assert may(vault_server, token, read_key)
        own = {"api_key": "mine"}
        forbidden: dict[str, Callable[[Any], object]] = {
            "read its neighbour": lambda c: c.read("secret/data/api-keys/other"),
            "read below its path": lambda c: c.read("secret/data/api-keys/openrouter/below"),
            "read what the processes read": lambda c: c.read("secret/data/services/dragonfly"),
            "read metadata": lambda c: c.read("secret/metadata/api-keys/openrouter"),
            "list": lambda c: c.list("secret/metadata/api-keys"),
            "write its own path": lambda c: c.secrets.kv.v2.create_or_update_secret("api-keys/openrouter", own),
            "delete its own path": lambda c: c.secrets.kv.v2.delete_latest_version_of_secret("api-keys/openrouter"),
            "create a token": lambda c: c.auth.token.create(),
            "create a token of its role": lambda c: c.auth.token.create(role_name="trilogue"),
            "renew itself": lambda c: c.auth.token.renew_self(),
            "look at itself": lambda c: c.auth.token.lookup_self(),
            "use the cubbyhole": lambda c: c.write_data("cubbyhole/x", data={"a": "b"}),
            "list accessors": lambda c: c.list("auth/token/accessors"),
            "read its role": lambda c: c.read("auth/token/roles/trilogue"),
            "read its policy": lambda c: c.sys.read_policy("trilogue-attempt"),
            "list mounts": lambda c: c.sys.list_mounted_secrets_engines(),
        }
        assert [what for what, act in forbidden.items() if may(vault_server, token, act)] == []
    assert not may(vault_server, token, read_key)


async def test_the_token_lasts_as_long_as_the_attempt_may_and_vault_knows_whose_it_is(
    driver_with_role: MakeDriver, alive_tokens: AliveTokens
) -> None:
    driver = await driver_with_role()
    async with reading_attempt(driver) as attempt:
        (token,) = alive_tokens()
        assert token["creation_ttl"] == token["explicit_max_ttl"] == LASTS
        assert LASTS - 5 <= token["ttl"] <= LASTS
        assert token["policies"] == ["trilogue-attempt"]
        assert (token["renewable"], token["type"], token["orphan"]) == (False, "service", True)
        assert token["meta"] == {"pipeline": attempt.fence.pipeline_id, "attempt": "1"}
    longer = await driver.spawn(timeout=0.5, agent_timeout=7200.2)
    async with reading_attempt(driver, longer):
        (token,) = alive_tokens()
        assert token["creation_ttl"] == 7200 + 1 + 60


async def _in_peace(driver: Driver, attempt: Attempt) -> None:
    return


async def _with_an_error(driver: Driver, attempt: Attempt) -> None:
    raise Unavailable("the ledger is away")


async def _as_a_recorded_failure(driver: Driver, attempt: Attempt) -> None:
    await attempt.append(lambda board: lost_turns(board) + phases.failed(board, Denied("the key is refused")))


async def _stopped(driver: Driver, attempt: Attempt) -> None:
    await local(driver.services).stop(attempt.fence.pipeline_id, "enough")
    await asyncio.sleep(10)


async def _taken_up_by_another(driver: Driver, attempt: Attempt) -> None:
    ledger = driver.services.ledger
    await ledger.release(attempt.fence, owner=driver.services.holds.owner)
    await ledger.claim(TENANT, attempt.fence.pipeline_id, owner="other", lease_seconds=60, flow_run_id=None)
    await asyncio.sleep(10)


async def _cancelled(driver: Driver, attempt: Attempt) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        (_in_peace, None),
        (_with_an_error, Unavailable),
        (_as_a_recorded_failure, None),
        (_stopped, Fenced),
        (_taken_up_by_another, Fenced),
        (_cancelled, asyncio.CancelledError),
    ],
)
async def test_however_an_attempt_ends_its_token_reads_nothing_any_more(
    end: Callable[[Driver, Attempt], Awaitable[None]],
    raised: type[BaseException] | None,
    driver_with_role: MakeDriver,
    vault_tap: Tap,
    vault_server: VaultServer,
    alive_tokens: AliveTokens,
) -> None:
    driver = await driver_with_role()

    async def work() -> None:
        async with reading_attempt(driver) as attempt:
            assert len(alive_tokens()) == 1
            await end(driver, attempt)

    (ended,) = await asyncio.gather(asyncio.create_task(work()), return_exceptions=True)
    assert type(ended) is (raised or type(None))
    (token,) = vault_tap.tokens()
    assert not may(vault_server, token, read_key)
    assert alive_tokens() == []


async def test_two_attempts_at_once_have_tokens_of_their_own(
    driver_with_role: MakeDriver, vault_tap: Tap, vault_server: VaultServer
) -> None:
    driver = await driver_with_role()
    async with reading_attempt(driver):
        async with reading_attempt(driver):
            longer, shorter = vault_tap.tokens()
            assert longer != shorter
            assert may(vault_server, shorter, read_key)
        assert not may(vault_server, shorter, read_key)
        assert may(vault_server, longer, read_key)
    assert not may(vault_server, longer, read_key)


async def test_an_attempt_costs_vault_three_questions_however_many_agents_it_has(
    driver_with_role: MakeDriver, vault_tap: Tap
) -> None:
    driver = await driver_with_role()
    async with driver.services.attempt(TENANT, await driver.spawn(), flow_run_id=None) as attempt:
        models = await asyncio.gather(*(driver.services.models_for(attempt) for _ in range(5)))
        assert len({tuple(named.items()) for named in models}) == 1
    assert vault_tap.paths == FOR_EACH_ATTEMPT


async def test_an_approle_logs_in_once_for_all_attempts_of_a_process(
    driver_with_role: MakeDriver, vault_tap: Tap, worker_approle: AppRole
) -> None:
    secret_id = SecretStr(worker_approle.secret_id)
    driver = await driver_with_role(vault_token=None, vault_role_id=worker_approle.role_id, vault_secret_id=secret_id)
    for _ in range(2):
        async with reading_attempt(driver):
            pass
    assert vault_tap.paths == ["auth/approle/login", *FOR_EACH_ATTEMPT, *FOR_EACH_ATTEMPT]


async def test_an_attempt_that_calls_no_openrouter_asks_vault_nothing(
    driver_with_role: MakeDriver, vault_tap: Tap
) -> None:
    driver = await driver_with_role(rehearsal_latency=0.0)
    rehearsal = await driver.spawn(mode="local", model="rehearsal")
    async with reading_attempt(driver, rehearsal):
        pass
    assert vault_tap.paths == []


async def test_a_whole_pipeline_and_another_round_of_it(
    driver_with_role: MakeDriver, vault_tap: Tap, alive_tokens: AliveTokens
) -> None:
    driver = await driver_with_role()
    held = await driver.run(auto_continue=False)
    assert held.board.status is Status.REPORT
    assert vault_tap.paths == FOR_EACH_ATTEMPT
    done = await driver.carry_on(held.pipeline_id, timeout=20)
    assert done.board.status is Status.COMPLETED
    assert vault_tap.paths == FOR_EACH_ATTEMPT * 3  # the round's probe, then its attempt
    assert len(set(vault_tap.tokens())) == 3
    assert alive_tokens() == []


async def test_an_attempt_that_begins_in_a_round_needs_no_time_for_run(
    driver_with_role: MakeDriver, alive_tokens: AliveTokens
) -> None:
    driver = await driver_with_role()
    held = await driver.run(auto_continue=False)
    async with driver.services.attempt(TENANT, held.pipeline_id, flow_run_id=None) as attempt:
        await attempt.append(lambda board: interventions.first_round(board, attempt.now()))
    async with reading_attempt(driver, held.pipeline_id):
        (token,) = alive_tokens()
        assert token["creation_ttl"] == 20 + 60


async def test_a_rotated_key_reaches_the_next_attempt_and_the_same_key_shares_a_gateway(
    driver_with_role: MakeDriver, rehearsed: OpenRouterServer, vault_root: Any
) -> None:
    driver = await driver_with_role()
    gateways = []
    for key in (KEY, KEY, "sk-or-rotated"):
        keep_key(vault_root, key)
        rehearsed.key = key
        async with reading_attempt(driver):  # probes the endpoint, which knows no other key
            pass
        async with driver.services.gateways.opening(seconds=60, meta={}) as opener:
            gateways.append(await opener("openrouter", False))
            keep_key(vault_root, "sk-or-too-late")
            assert await opener("openrouter", False) is gateways[-1]
    first, same, rotated = gateways
    assert first is same
    assert rotated is not first
    assert [gateway.endpoint.key for gateway in gateways] == [KEY, KEY, "sk-or-rotated"]


async def test_without_a_role_each_attempt_reads_with_the_logins_own_token(
    driver_with_role: MakeDriver, vault_tap: Tap, vault_server: VaultServer
) -> None:
    driver = await driver_with_role(vault_token_role=None, vault_token=SecretStr(vault_server.root_token))
    for _ in range(2):
        async with reading_attempt(driver):
            pass
    assert vault_tap.paths == ["secret/data/api-keys/openrouter"] * 2
    assert set(vault_tap.tokens()) == {vault_server.root_token}
