"""Whoever only wants to know that something is new hears of it, and shares one watcher with all who do."""

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.fixtures.book import until
from tests.watching import Station, scribe
from trilogue.services import Services


@dataclass(eq=False)
class Ear:
    heard: list[tuple[str, int]] = field(default_factory=list)

    def news(self, pipeline_id: str, seq: int) -> None:
        self.heard.append((pipeline_id, seq))

    def at(self, pipeline_id: str) -> int:
        return max((seq for heard, seq in self.heard if heard == pipeline_id), default=0)


def watchers() -> int:
    return sum(task.get_name() == "news of the tenant" for task in asyncio.all_tasks())


async def test_whatever_is_recorded_while_one_listens_is_heard_of_each_once(
    events_at: Station, elsewhere: Services
) -> None:
    before = await scribe(elsewhere, "p-before")
    ear = Ear()
    async with events_at.hub.hearing(ear):
        new = await scribe(elsewhere, "p-new")
        await before.say()
        await new.say(3)
        await until(lambda: (ear.at("p-before"), ear.at("p-new")) == (before.head, new.head))
        assert len(ear.heard) == len(set(ear.heard))
    heard = list(ear.heard)
    other = Ear()
    async with events_at.hub.hearing(other):
        await new.say()
        await until(lambda: other.at("p-new") == new.head)
    assert ear.heard == heard, "who has gone hears nothing more"


async def test_all_listeners_and_viewers_of_all_share_one_watcher_that_ends_with_the_last(
    events_at: Station, elsewhere: Services
) -> None:
    assert watchers() == 0
    writer = await scribe(elsewhere, "p-one")
    first, second = Ear(), Ear()
    async with events_at.hub.hearing(first), events_at.watching() as viewer:
        await viewer.next()
        async with events_at.hub.hearing(second):
            assert watchers() == 1
            await writer.say()
            await viewer.up_to(writer.head)
            await until(lambda: first.at("p-one") == second.at("p-one") == writer.head)
        await writer.say()
        await until(lambda: first.at("p-one") == writer.head)
        assert second.at("p-one") == writer.head - 1
        assert watchers() == 1
    await until(lambda: watchers() == 0)


async def test_one_who_fails_leaves_no_watcher_behind_and_the_next_hears_again(
    events_at: Station, elsewhere: Services
) -> None:
    async def fail() -> None:
        async with events_at.hub.hearing(Ear()):
            raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await fail()
    assert watchers() == 0
    ear = Ear()
    async with events_at.hub.hearing(ear):
        writer = await scribe(elsewhere, "p-one")
        await until(lambda: ear.at("p-one") == writer.head)


async def test_news_come_from_the_ledger_where_redis_is_away(
    events_at: Station, elsewhere: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere.live.poster, "post", lambda _entries: None)  # a worker that has lost Redis
    ear = Ear()
    async with events_at.hub.hearing(ear):
        writer = await scribe(elsewhere, "p-one")
        await writer.say()
        await until(lambda: ear.at("p-one") == writer.head)
