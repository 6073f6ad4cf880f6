"""How breakers stand can be seen by whoever looks on, in one question, and looking changes nothing."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.driving import MakeDriver
from tests.fixtures.book import until
from tests.fixtures.valkey import OwnServer
from trilogue.desk import local
from trilogue.live import BreakerState, Live, connect, keys
from trilogue.live.breaker import Admission, Breaker
from trilogue.models.rehearsal.script import rehearse
from trilogue.testing.openrouter import serving
from trilogue.testing.plans import Ok, Seen, Step
from trilogue.testing.plans import Status as Answers

ONE, OTHER = "https://one.example/v1", "http://127.0.0.1:1/other"
OPEN, TRIAL = 0.3, 5.0


async def _nothing(*_: object) -> list[object]:
    return []


def _live(url: str) -> Live:
    return Live(url, board_ttl=60, backfill=_nothing)  # type: ignore[arg-type]  # there are no entries to fill in


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[Live]:
    async with _live(redis_url) as live:
        yield live


def _breaker(live: Live, endpoint: str = ONE) -> Breaker:
    return live.breaker(endpoint, failures=3, open_seconds=OPEN, trial_seconds=TRIAL)


async def _seen(live: Live, endpoint: str = ONE) -> BreakerState:
    state = (await live.breakers([endpoint], failures=3, open_seconds=OPEN))[endpoint]
    assert state is not None
    return state


async def test_a_breaker_is_seen_closed_open_in_trial_and_closed_again(live: Live) -> None:
    breaker = _breaker(live)
    assert await _seen(live) == BreakerState(state="closed", retry_in=0, failures=0)
    for _ in range(2):
        await breaker.note(ok=False)
    assert await _seen(live) == BreakerState(state="closed", retry_in=0, failures=2)
    await breaker.note(ok=False)
    opened = await _seen(live)
    assert (opened.state, opened.failures) == ("open", 3)
    assert 0 < opened.retry_in <= OPEN

    async def over() -> bool:
        return (await _seen(live)).retry_in == 0

    await until(over)
    assert (await _seen(live)).state == "open", "until somebody calls"
    assert await breaker.admit() == Admission(trial=True), "no look took the one trial away"
    trial = await _seen(live)
    assert (trial.state, trial.failures) == ("trial", 3)
    assert OPEN < trial.retry_in <= TRIAL
    await breaker.note(ok=True)
    assert await _seen(live) == BreakerState(state="closed", retry_in=0, failures=0)


async def test_looking_changes_nothing_and_is_one_question_for_all(live: Live, redis_url: str) -> None:
    for _ in range(3):
        await _breaker(live).note(ok=False)
    client: Redis = connect(redis_url)
    key = keys.of_breaker(ONE)
    before = await client.hgetall(key), await client.pexpiretime(key)
    async with client.monitor() as monitor:
        looking = asyncio.create_task(live.breakers([ONE, OTHER, ONE], failures=3, open_seconds=OPEN))
        asked: list[str] = []
        while len(asked) < 3:
            told = (await monitor.next_command())["command"]
            if "breaker" in told or told.startswith("TIME"):
                asked.append(told.split()[0])
        states = await looking
    assert asked == ["TIME", "HMGET", "HMGET"]
    assert {endpoint: state and state.state for endpoint, state in states.items()} == {ONE: "open", OTHER: "closed"}
    assert (await client.hgetall(key), await client.pexpiretime(key)) == before
    assert not await client.exists(keys.of_breaker(OTHER))
    await client.aclose()
    assert await live.breakers([], failures=3, open_seconds=OPEN) == {}


async def test_with_redis_away_or_hung_nobody_can_tell_and_nobody_waits_long(valkey_server: OwnServer) -> None:
    unknown = {ONE: None, OTHER: None}
    async with _live("unix:///nowhere/valkey.sock") as away:
        assert await away.breakers([ONE, OTHER], failures=3, open_seconds=OPEN) == unknown
    async with _live(valkey_server.url) as hung:
        assert (await _seen(hung)).state == "closed"
        valkey_server.freeze()
        try:
            began = time.monotonic()
            for _ in range(20):
                assert await hung.breakers([ONE, OTHER], failures=3, open_seconds=OPEN) == unknown
            assert time.monotonic() - began < 1.0
        finally:
            valkey_server.thaw()

        async def back() -> bool:
            return (await hung.breakers([ONE], failures=3, open_seconds=OPEN))[ONE] is not None

        await until(back)


async def test_what_is_seen_is_the_breaker_that_a_pipelines_calls_go_by(driver_of: MakeDriver) -> None:
    def plan(seen: Seen) -> Step:
        return Answers(code=503) if seen.path == "/chat/completions" else Ok()

    async with serving(rehearse, plan=plan) as server:
        driver = await driver_of(server, key="unused", breaker_seconds=30.0, local_model_url=f"{server.url}/")
        services = driver.services
        endpoint = services.endpoint_of("openrouter", False)
        assert endpoint is not None
        pipeline_id = await driver.spawn(mode="openrouter")
        carrying = asyncio.create_task(driver.carry(pipeline_id))

        async def opened() -> bool:
            state = (await services.breakers([endpoint]))[endpoint]
            return state is not None and state.state == "open" and state.failures >= 5  # one may be in flight beyond

        await until(opened)
        await local(services).stop(pipeline_id, "seen")
        await asyncio.gather(carrying, return_exceptions=True)
        assert services.endpoint_of("local", False) == endpoint, "the same address is the same endpoint"
        assert services.endpoint_of("local", True) is None, "a rehearsal has no breaker"
        bare = await driver_of(server)
        assert bare.services.endpoint_of("local", False) is None, "LOCAL_MODEL_URL is not set"
