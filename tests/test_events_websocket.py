"""Over a WebSocket come the events that were asked for: since a `seq` or from now on, of some pipelines or of all."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.driving import Driver, MakeDriver
from tests.fixtures.book import until
from tests.watching import Event, Scribe, Station, in_turn, scribe
from trilogue.api import serving
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.services import Services
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Ok


@pytest.fixture
async def writer(elsewhere: Services) -> Scribe:
    return await scribe(elsewhere, "p-one")


async def test_with_after_comes_everything_since_and_then_what_happens(events_at: Station, writer: Scribe) -> None:
    await writer.say(4)
    async with events_at.watching("pipeline_id=p-one&after=2") as viewer:
        await viewer.up_to(5)
        await writer.say(3)
        await viewer.up_to(8)
        assert viewer.seqs == in_turn(3, 8)


async def test_without_after_comes_only_what_happens_from_now_on(events_at: Station, writer: Scribe) -> None:
    await writer.say(4)
    async with events_at.watching("pipeline_id=p-one") as viewer:
        await until(lambda: bool(events_at.hub.watched("p-one")))
        await writer.say()
        assert (await viewer.next())["seq"] == 6


async def test_several_pipelines_come_over_one_connection_each_from_its_own_place(
    events_at: Station, elsewhere: Services
) -> None:
    writers = [await scribe(elsewhere, f"p-{name}") for name in ("a", "b", "c")]
    for number, one in enumerate(writers):
        await one.say(3 + number)
    async with events_at.watching("after=p-a:0&after=p-b:2&pipeline_id=p-c") as viewer:
        await until(lambda: bool(events_at.hub.watched("p-c")))
        await asyncio.gather(*(one.say(5) for one in writers))
        heads = {"p-a": 9, "p-b": 10, "p-c": 11}
        seen: dict[str, list[int]] = {name: [] for name in heads}
        while {name: seqs[-1] for name, seqs in seen.items() if seqs} != heads:
            event = await viewer.next()
            seen[event["pipeline_id"]].append(event["seq"])
    assert seen == {"p-a": in_turn(1, 9), "p-b": in_turn(3, 10), "p-c": in_turn(7, 11)}


async def test_all_pipelines_come_after_a_snapshot_new_and_old_ones(events_at: Station, elsewhere: Services) -> None:
    running, ended = await scribe(elsewhere, "p-running"), await scribe(elsewhere, "p-ended")
    await running.say(2)
    await ended.end()
    async with events_at.watching() as viewer:
        snapshot = await viewer.next()
        items = {item["pipeline_id"]: item for item in snapshot["data"]["items"]}
        assert (snapshot["type"], snapshot["seq"], snapshot["pipeline_id"]) == ("snapshot", None, None)
        assert {name: (item["status"], item["seq"]) for name, item in items.items()} == {
            "p-running": ("SPAWNED", 3),
            "p-ended": ("FAILED", 3),
        }
        assert {item["cost_usd"] for item in items.values()} == {0}
        new = await scribe(elsewhere, "p-new")
        await running.say()
        await new.say(3)
        seen: list[tuple[str, int]] = []
        while len(seen) < 5:
            event = await viewer.next()
            seen.append((event["pipeline_id"], event["seq"]))
        assert sorted(seen) == [*(("p-new", seq) for seq in in_turn(1, 4)), ("p-running", 4)]


async def test_a_viewer_of_all_leaves_a_quiet_pipeline_and_hears_of_it_again(
    events_at: Station, writer: Scribe
) -> None:
    events_at.hub.heartbeat = 0.1
    async with events_at.watching() as viewer:
        await viewer.next()
        await writer.say()
        await viewer.up_to(2)
        reading = asyncio.create_task(viewer.up_to(4))
        await until(lambda: not events_at.hub.watched("p-one"))
        await writer.say(2)
        await reading
        assert viewer.seqs == [2, 3, 4]


def turn_texts(events: list[Event]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events:
        if event["type"] == "turn_delta":
            data = event["data"]
            assert len(texts.get(data["turn"], "")) >= data["offset"], "text is missing"
            texts[data["turn"]] = texts.get(data["turn"], "")[: data["offset"]] + data["text"]
    return texts


async def test_a_viewer_who_joins_in_the_middle_of_a_turn_has_its_text_from_the_beginning(
    events_at: Station, writer: Scribe
) -> None:
    live = writer.services.live
    live.poster.may_stream = lambda _tenant, _pipeline_id: True  # the scribe holds its lease by itself
    for offset in range(0, 40, 4):
        live.poster.delta(TENANT, "p-one", Delta(turn=1, agent_id="alpha-1", offset=offset, text="abcd"))
        if offset == 20:
            async with events_at.watching("pipeline_id=p-one") as early:
                await early.until(lambda event: event["type"] == "turn_delta")
    async with events_at.watching("pipeline_id=p-one") as late:
        await late.until(lambda _: turn_texts(late.came) == {1: "abcd" * 10})
        live.poster.delta(TENANT, "p-one", Delta(turn=1, agent_id="alpha-1", offset=40, text="!"))
        await late.until(lambda _: turn_texts(late.came) == {1: "abcd" * 10 + "!"})
        live.poster.delta(TENANT, "p-one", Delta(turn=1, agent_id="alpha-1", offset=0, text="again"))
        last = await late.until(lambda event: event["data"].get("text") == "again")
        assert (last["seq"], last["data"]["offset"]) == (None, 0)


async def test_the_events_of_a_carried_pipeline_arrive_in_order_with_its_text(
    events_at: Station, rehearsed: OpenRouterServer, driver_of: MakeDriver
) -> None:
    rehearsed.plan = lambda _: Ok(pause=0.002)
    driver: Driver = await driver_of(rehearsed)
    pipeline_id = await driver.spawn()
    async with events_at.watching(f"pipeline_id={pipeline_id}&after=0") as viewer:
        course = asyncio.create_task(driver.carry(pipeline_id))
        await viewer.until(lambda event: event["type"] == "orchestration_complete")
        entries = (await course).entries
    assert viewer.seqs == in_turn(1, len(entries))
    kinds = [event["type"] for event in viewer.recorded]
    first = [kinds.index(name) for name in ("agent_spawned", "finding", "orchestration_started", "consensus_reached")]
    assert first == sorted(first)
    begun: set[int] = set()
    for event in viewer.came:
        if event["type"] == "turn_begun":
            begun.add(event["data"]["turn"])
        elif event["type"] == "turn_ended":
            begun.discard(event["data"]["turn"])
        elif event["type"] == "turn_delta":
            assert event["data"]["turn"] in begun
    assert any(turn_texts(viewer.came).values())


@pytest.mark.parametrize(
    ("query", "code", "error"),
    [
        ("pipeline_id=p-none", 4404, "no_pipeline"),
        ("after=p-none:3", 4404, "no_pipeline"),
        ("pipeline_id=%00", 4404, "no_pipeline"),
        ("after=3", 4400, "bad_after"),
        ("pipeline_id=p-one&after=-1", 4400, "bad_after"),
        ("pipeline_id=p-one&after=x", 4400, "bad_after"),
        ("pipeline_id=p-one&after=%D9%A3", 4400, "bad_after"),
        ("pipeline_id=p-one&after=2", 4400, "bad_after"),
        ("pipeline_id=p-one&pipeline_id=p-two&after=1", 4400, "bad_after"),
        ("&".join(f"pipeline_id=p-{number}" for number in range(101)), 4400, "too_many_pipelines"),
    ],
)
async def test_what_cannot_be_given_is_refused_with_the_reason_and_a_code(
    events_at: Station, writer: Scribe, query: str, code: int, error: str
) -> None:
    async with events_at.watching(query) as viewer:
        refused, _ = await viewer.closed()
    assert refused == code
    [told] = viewer.came
    assert (told["type"], told["data"]["error"]) == ("error", error)


async def test_signs_of_life_come_while_nothing_happens_for_longer_than_a_request_may_take(
    events_at: Station, writer: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(serving._SILENT_LIMITS, "head", 0.2)
    events_at.hub.heartbeat = 0.05
    async with events_at.watching("pipeline_id=p-one&after=0") as viewer:
        waiting = asyncio.create_task(viewer.up_to(2))
        await until(lambda: viewer.beats >= 8)
        await writer.say()
        await waiting
        assert viewer.seqs == [1, 2]


async def test_a_viewer_who_talks_is_not_listened_to_and_one_who_talks_too_much_is_sent_away(
    events_at: Station, writer: Scribe
) -> None:
    async with events_at.watching("pipeline_id=p-one&after=0") as viewer:
        for word in ("hello", "{}", b"\xff", '{"type":"stop"}'):
            await viewer.socket.send(word)
        await writer.say()
        await viewer.up_to(2)
        for _ in range(20):
            await viewer.socket.send("x" * 1000)
        assert (await viewer.closed())[0] == 1008


async def test_the_server_that_goes_away_says_so(events_at: Station, writer: Scribe) -> None:
    async with AsyncExitStack() as stack:
        queries = ["pipeline_id=p-one", "", "pipeline_id=p-one&after=0"]
        viewers = [await stack.enter_async_context(events_at.watching(query)) for query in queries]
        await until(lambda: len(events_at.hub.watched("p-one")) == 3)
        events_at.closing()
        assert [(await viewer.closed())[0] for viewer in viewers] == [1012] * 3


async def test_all_feeds_are_let_go_when_nobody_watches(events_at: Station, writer: Scribe) -> None:
    events_at.hub.linger = 0.05
    async with events_at.watching("pipeline_id=p-one&after=0") as viewer, events_at.watching() as of_all:
        await viewer.up_to(1)
        await of_all.next()
        assert events_at.hub.feeds == 1
    await until(lambda: events_at.hub.feeds == 0)
