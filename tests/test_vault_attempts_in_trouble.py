"""An attempt whose Vault is slow, hangs or refuses: nothing is left behind, and what is wrong is said."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from tests.driving import Driver, MakeDriver
from tests.fixtures.model_server import KEY
from tests.fixtures.vault import ROOT_TOKEN
from tests.fixtures.vault_attempts import FOR_EACH_ATTEMPT, AliveTokens, reading_attempt
from tests.fixtures.vault_tap import Tap
from trilogue import interventions
from trilogue.errors import Denied, NotFound, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.secrets import vault as reading
from trilogue.testing.openrouter import OpenRouterServer


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - Vault tells nobody when a token ends
            await asyncio.sleep(0.01)


async def _in_and_out(driver: Driver) -> None:
    async with reading_attempt(driver):
        pass


@pytest.mark.parametrize("moment", FOR_EACH_ATTEMPT)
async def test_cut_off_while_vault_is_asked_nothing_is_left(
    moment: str, driver_with_role: MakeDriver, vault_tap: Tap, alive_tokens: AliveTokens
) -> None:
    driver = await driver_with_role()
    vault_tap.held = lambda asked: asked.path == f"/v1/{moment}"
    task = asyncio.create_task(_in_and_out(driver))
    await until(lambda: moment in vault_tap.paths)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # also while the token is being given back
    vault_tap.release.set()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    await until(lambda: vault_tap.paths[-1] == "auth/token/revoke-self")
    await until(lambda: alive_tokens() == [])


async def test_a_slow_vault_holds_up_its_own_attempt_only(driver_with_role: MakeDriver, vault_tap: Tap) -> None:
    driver = await driver_with_role(rehearsal_latency=0.0)
    vault_tap.held = lambda _: True  # what asked on the event loop would hold up the tap too, until it gave up
    slow = asyncio.create_task(_in_and_out(driver))
    await until(lambda: bool(vault_tap.paths))
    for _ in range(3):
        async with reading_attempt(driver, await driver.spawn(mode="local", model="rehearsal")):
            pass
    assert not slow.done()
    vault_tap.release.set()
    await slow


async def test_a_vault_that_hangs_at_the_end_does_not_keep_the_lease(
    driver_with_role: MakeDriver, vault_tap: Tap, alive_tokens: AliveTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await driver_with_role()
    pipeline_id = await driver.spawn()
    vault_tap.held = lambda asked: asked.path.endswith("revoke-self")
    async with reading_attempt(driver, pipeline_id):
        monkeypatch.setattr(reading, "TIMEOUT", 0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    row = await driver.services.ledger.get_pipeline(TENANT, pipeline_id)
    assert not row.leased
    vault_tap.release.set()
    await until(lambda: alive_tokens() == [])


@pytest.mark.parametrize(
    ("settings", "error", "code", "advice"),
    [
        ({"vault_token_role": "nowhere"}, Denied, "vault_role_refused", "'auth/token/create/nowhere'"),
        (
            {"vault_token": SecretStr(ROOT_TOKEN), "vault_token_role": "nowhere"},
            NotFound,
            "vault_role_missing",
            "vault write auth/token/roles/nowhere",
        ),
    ],
)
async def test_a_role_that_is_missing_or_refused_ends_the_attempt_and_no_other_key_stands_in(
    settings: dict[str, Any],
    error: type[TrilogueError],
    code: str,
    advice: str,
    driver_with_role: MakeDriver,
    rehearsed: OpenRouterServer,
) -> None:
    driver = await driver_with_role(openrouter_api_key=SecretStr(KEY), **settings)
    with pytest.raises(error, match=advice) as refused:
        await _in_and_out(driver)
    assert refused.value.code == code
    assert repr(settings.get("vault_token_role", "trilogue")) in refused.value.message
    assert rehearsed.requests == []


async def test_a_login_that_has_ended_is_refused_by_name(driver_with_role: MakeDriver, vault_root: Any) -> None:
    login = vault_root.auth.token.create(policies=["trilogue"])["auth"]["client_token"]
    driver = await driver_with_role(vault_token=SecretStr(login))
    vault_root.auth.token.revoke(login)
    with pytest.raises(Denied, match="check that the token is still valid"):
        await _in_and_out(driver)


async def test_what_is_wrong_with_the_role_is_on_record_as_the_pipelines_end(driver_with_role: MakeDriver) -> None:
    driver = await driver_with_role()
    held = await driver.run(auto_continue=False)
    broken = await driver_with_role(vault_token_role="nowhere")
    with pytest.raises(Denied, match="'nowhere'"):
        await broken.carry_on(held.pipeline_id)
    assert await driver.course(held.pipeline_id) == held
    async with driver.services.attempt(TENANT, held.pipeline_id, flow_run_id=None) as attempt:
        await attempt.append(lambda board: interventions.first_round(board, attempt.now()))
    course = await broken.carry(await broken.spawn())
    assert course.board.status is Status.FAILED
    assert course.board.error
    assert "auth/token/create/nowhere" in course.board.error["message"]
    course = await broken.carry(held.pipeline_id)
    assert course.board.status is Status.ORCHESTRATION_ERROR
    assert course.board.error
    assert course.board.error["code"] == "vault_role_refused"
