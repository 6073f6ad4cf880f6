"""A page is told what it does not have: the parts that changed, the log's new rows, and the text of running turns."""

import pytest

from tests.fixtures.book import until
from tests.watching import Event, Scribe, Station, Watching, scribe
from trilogue.agent import Mandate, Role, Tier
from trilogue.dashboard.drawing import PARTS
from trilogue.dashboard.house import House
from trilogue.dashboard.rendering import assets_version
from trilogue.dashboard.stage import ROWS_AT_ONCE
from trilogue.entry import Draft, Kind
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.services import Services

ONE = "pipeline_id=p-one"
_TURN = {"turn": 1, "agent_id": "alpha-1", "phase": "RUN", "round": 0}


@pytest.fixture
async def writer(elsewhere: Services) -> Scribe:
    return await scribe(elsewhere, "p-one")


def house(station: Station) -> House:
    found: House = station.app.state.house
    return found


async def first(page: Watching) -> Event:
    """What a page is told at once: everything."""
    assert (await page.next())["assets"] == assets_version()
    return await page.next()


def rows(page: Watching, *, had: int = 0) -> int:
    """How many rows the log of a page has that heeds what it is told."""
    last = had
    for message in page.came:
        if message["type"] == "parts":
            begun = message["rows_after"]
            assert begun == last or len(message["rows"]) == ROWS_AT_ONCE, (begun, last)
            last = begun + len(message["rows"])
            assert last == message["seq"]
    return last


async def told_up_to(page: Watching, seq: int) -> None:
    await page.until(lambda message: message.get("seq") == seq)


async def test_a_page_is_told_every_part_first_and_then_only_those_that_changed(
    events_at: Station, writer: Scribe
) -> None:
    async with events_at.watching(ONE, path="/live") as page:
        assert (await first(page))["parts"].keys() == PARTS.keys()
        await writer.say()
        await told_up_to(page, 2)
        changed = page.came[-1]["parts"].keys()
        assert "middle" in changed
        assert not {"stepper", "report", "checkpoints"} & changed


async def test_the_logs_rows_come_each_once_however_fast_they_are_written(events_at: Station, writer: Scribe) -> None:
    async with events_at.watching(ONE, path="/live") as page:
        await first(page)
        for _ in range(10):
            await writer.say(7)
        await told_up_to(page, 71)
        assert rows(page) == 71


async def test_a_page_that_comes_back_is_told_only_the_rows_that_it_lacks(events_at: Station, writer: Scribe) -> None:
    await writer.say(9)
    async with events_at.watching(f"{ONE}&seq=6", path="/live") as page:
        message = await first(page)
        assert (message["rows_after"], len(message["rows"]), message["seq"]) == (6, 4, 10)


@pytest.mark.parametrize("had", [0, 3, 900])
async def test_a_page_far_behind_or_of_another_ledger_gets_the_latest_rows_in_place_of_its_own(
    events_at: Station, writer: Scribe, had: int
) -> None:
    await writer.say(ROWS_AT_ONCE + 20)
    async with events_at.watching(f"{ONE}&seq={had}", path="/live") as page:
        message = await first(page)
        assert (message["rows_after"], message["seq"]) == (21, ROWS_AT_ONCE + 21)
        assert len(message["rows"]) == ROWS_AT_ONCE


async def begun(writer: Scribe) -> None:
    """A turn under way."""
    agent = {"agent_id": "alpha-1", "role": "ALPHA", "tier": 1, "runtime": "python", "model": "m"}
    mandate = Mandate(
        agent_id="alpha-1",
        role=Role.ALPHA,
        tier=Tier.NEGOTIATE,
        actions={"RUN": ("find",)},
        tokens=None,
        expires_at=2**50,
    )
    reserved = {"tokens": 0, "cost_nanousd": 0}
    turn = {**_TURN, "seen": 1, "model": "m", "fallbacks": [], "max_tokens": 10, "reserved": reserved}
    await writer.write(
        [
            Draft(kind=Kind.AGENT_SPAWNED, body=agent),
            Draft(kind=Kind.MANDATE, body=mandate.as_json()),
            Draft(kind=Kind.TURN_BEGUN, actor="alpha-1", body=turn),
        ]
    )
    writer.services.live.poster.may_stream = lambda _tenant, _pipeline_id: True  # the scribe holds its own lease


def stream(writer: Scribe, offset: int, text: str) -> None:
    writer.services.live.poster.delta(TENANT, "p-one", Delta(turn=1, agent_id="alpha-1", offset=offset, text=text))


def heard(page: Watching) -> str:
    """The text of turn 1 on a page that heeds what it is told."""
    text = ""
    for message in page.came:
        if message["type"] == "text":
            text = ("" if message["anew"] else text) + message["text"]
    return text


async def test_the_text_of_a_running_turn_comes_while_it_is_produced_and_whole_to_who_joins(
    events_at: Station, writer: Scribe
) -> None:
    await begun(writer)
    async with events_at.watching(ONE, path="/live") as early:
        for offset in range(0, 40, 4):
            stream(writer, offset, "ab😀d")
        await early.until(lambda _: heard(early) == "ab😀d" * 10)
        async with events_at.watching(ONE, path="/live") as late:
            await late.until(lambda _: heard(late) == "ab😀d" * 10)
            stream(writer, 0, "a call that is tried again")
            for page in (early, late):
                await page.until(lambda _, page=page: heard(page) == "a call that is tried again")  # type: ignore[misc]


async def test_a_part_is_drawn_once_however_many_pages_look(events_at: Station, writer: Scribe) -> None:
    async with (
        events_at.watching(ONE, path="/live") as one,
        events_at.watching(ONE, path="/live") as two,
    ):
        drawn = [await first(one), await first(two)]
        await writer.say(3)
        for page in (one, two):
            await told_up_to(page, 4)
        assert len(house(events_at).stages) == 1
        assert drawn[0]["parts"] == drawn[1]["parts"]
        assert one.came[-1] == two.came[-1]


async def test_a_stage_ends_soon_after_its_last_page_has_left(
    events_at: Station, writer: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilogue.dashboard.house.LINGER", 0.05)
    async with events_at.watching(ONE, path="/live") as page:
        await first(page)
        assert house(events_at).stages
    await until(lambda: not house(events_at).stages)


async def test_a_page_that_hears_nothing_for_long_gets_a_sign_of_life(events_at: Station, writer: Scribe) -> None:
    house(events_at).heartbeat = 0.05
    await writer.end()
    async with events_at.watching(ONE, path="/live") as page:
        await page.until(lambda message: message["type"] == "beat")


async def test_a_server_that_goes_away_sends_its_pages_away_first(events_at: Station, writer: Scribe) -> None:
    async with events_at.watching(ONE, path="/live") as page:
        await first(page)
        events_at.closing()
        assert (await page.closed())[0] == 1012


@pytest.mark.parametrize(("query", "code"), [("pipeline_id=p-none", 4404), ("pipeline_id=%00", 4404)])
async def test_what_cannot_be_shown_is_refused_with_the_reason(events_at: Station, query: str, code: int) -> None:
    async with events_at.watching(query, path="/live") as page:
        assert (await page.closed())[0] == code
        assert page.came[-1]["type"] == "error"


async def test_a_stage_that_cannot_go_on_tells_its_pages_so(events_at: Station, writer: Scribe) -> None:
    async with events_at.watching(ONE, path="/live") as page:
        await first(page)
        bad = Draft(kind=Kind.CRITIQUE, actor="alpha-1", body={"id": "c1"})  # lacks what a critique has
        await writer.write([bad])
        assert (await page.closed())[0] == 1011
    async with events_at.watching(ONE, path="/live") as page:
        assert (await page.closed())[0] == 1011
