"""The circuit breaker: shared by all workers, one trial at a time, and no obstacle with Redis away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.fixtures.book import until
from trilogue.live import connect
from trilogue.live.breaker import Admission, Breaker

OPEN = 0.2


def _breaker(client: Redis) -> Breaker:
    return Breaker(client, endpoint="https://models.example/v1", threshold=5, open_seconds=OPEN, trial_seconds=0.5)


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[list[Breaker]]:
    """Three workers' views of one endpoint."""
    clients = [connect(redis_url) for _ in range(3)]
    yield [_breaker(client) for client in clients]
    for client in clients:
        await client.aclose()


async def test_five_failures_seen_by_different_workers_open_it_for_all(workers: list[Breaker]) -> None:
    for number in range(5):
        assert await workers[0].admit() == Admission()
        await workers[number % 3].note(ok=False)
    for worker in workers:
        admission = await worker.admit()
        assert 0 < admission.wait <= OPEN
        assert not admission.trial


async def test_an_answer_between_failures_begins_the_count_anew(workers: list[Breaker]) -> None:
    for _ in range(3):
        for _ in range(4):
            await workers[0].note(ok=False)
        await workers[1].note(ok=True)
    assert [await worker.admit() for worker in workers] == [Admission()] * 3


async def test_one_trial_goes_at_a_time_and_its_answer_closes_it(workers: list[Breaker]) -> None:
    for _ in range(5):
        await workers[0].note(ok=False)
    await _time_for_a_trial(workers[0])
    await workers[0].note(ok=False)
    last = await workers[0].admit()
    await asyncio.sleep(last.wait)  # the one thing to wait for is the breaker's own clock
    admissions = await asyncio.gather(*(worker.admit() for worker in workers * 10))
    assert sum(admission.trial for admission in admissions) == 1
    assert all(admission.trial or admission.wait > 0 for admission in admissions)
    await workers[2].note(ok=True)
    assert await workers[0].admit() == Admission()


async def test_a_failed_trial_opens_it_anew_and_a_lost_one_is_replaced(workers: list[Breaker]) -> None:
    for _ in range(5):
        await workers[0].note(ok=False)
    await _time_for_a_trial(workers[0])
    await workers[0].note(ok=False)
    assert (await workers[1].admit()).wait > 0
    await _time_for_a_trial(workers[1])
    assert (await workers[2].admit()).wait > 0
    await _time_for_a_trial(workers[2])  # the second worker never tells how its trial went


async def test_with_redis_away_a_worker_goes_by_what_it_has_seen_itself() -> None:
    client = connect("unix:///nowhere/valkey.sock")
    breaker = _breaker(client)
    for _ in range(5):
        assert await breaker.admit() == Admission()
        await breaker.note(ok=False)
    assert (await breaker.admit()).wait > 0
    await _time_for_a_trial(breaker)
    assert (await breaker.admit()).wait > 0
    await breaker.note(ok=True)
    assert await breaker.admit() == Admission()
    await client.aclose()


async def _time_for_a_trial(breaker: Breaker) -> None:
    async def admitted() -> bool:
        return (await breaker.admit()).trial

    await until(admitted)
