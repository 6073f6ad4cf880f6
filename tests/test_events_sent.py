"""The same events as server-sent events, for `curl -N` and for browsers that come back with `Last-Event-ID`."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.book import until
from tests.watching import Scribe, Station, in_turn, scribe
from trilogue.api.app import create_app
from trilogue.events import DATA
from trilogue.services import Services
from trilogue.settings import load_settings


@pytest.fixture
async def writer(elsewhere: Services) -> Scribe:
    return await scribe(elsewhere, "p-one")


@asynccontextmanager
async def stream(here: Station, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The events of `p-one` as fields; a comment is a field without a name."""
    url = f"{here.url}/api/pipelines/p-one/events{query}"
    async with httpx.AsyncClient(timeout=20) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"

        async def events() -> AsyncIterator[dict[str, str]]:
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.strip()
                elif fields:
                    yield fields
                    fields = {}

        yield events()


async def test_an_event_has_its_seq_as_id_its_type_and_its_document(events_at: Station, writer: Scribe) -> None:
    await writer.say(2)
    async with stream(events_at, "?after=0") as events:
        assert await anext(events) == {"retry": "1000"}
        came = [await anext(events) for _ in range(3)]
        assert [event["id"] for event in came] == ["1", "2", "3"]
        assert [event["event"] for event in came] == ["pipeline_status", "agent_message", "agent_message"]
        document = json.loads(came[1]["data"])
        assert (document["type"], document["seq"]) == ("agent_message", 2)
        await writer.say()
        assert (await anext(events))["id"] == "4"


async def test_who_comes_back_with_the_last_id_has_what_it_missed_whatever_the_address_says(
    events_at: Station, writer: Scribe
) -> None:
    await writer.say(4)
    async with stream(events_at, "?after=1", **{"Last-Event-ID": "3"}) as events:
        await anext(events)
        assert [(await anext(events))["id"] for _ in range(2)] == ["4", "5"]


async def test_signs_of_life_are_comments(events_at: Station, writer: Scribe) -> None:
    events_at.hub.heartbeat = 0.05
    async with stream(events_at) as events:
        await anext(events)
        assert await anext(events) == {"": "heartbeat"}


async def test_a_stream_until_the_end_ends_with_the_pipeline_and_is_not_begun_again(
    events_at: Station, writer: Scribe
) -> None:
    await writer.say()
    async with stream(events_at, "?after=0&until=end") as events:
        await anext(events)
        await anext(events)
        await writer.end()
        rest = [event["id"] async for event in events]
    assert [int(id_) for id_ in rest] == in_turn(2, writer.head)
    async with stream(events_at, "?after=2&until=end") as events:
        assert [event["id"] async for event in events if "id" in event] == ["3", "4"]
    async with httpx.AsyncClient() as client:
        again = await client.get(
            f"{events_at.url}/api/pipelines/p-one/events?until=end", headers={"Last-Event-ID": "4"}
        )
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize(
    ("path", "headers", "status", "error"),
    [
        ("p-none/events", {}, 404, "no_pipeline"),
        ("p-one/events?after=-1", {}, 422, "invalid_after"),
        ("p-one/events?after=2", {}, 422, "bad_after"),
        ("p-one/events", {"Last-Event-ID": "one"}, 422, "bad_after"),
        ("p-one/events?until=never", {}, 422, "invalid_until"),
    ],
)
async def test_what_cannot_be_given_is_refused_in_the_shape_of_all_errors(
    events_at: Station, writer: Scribe, path: str, headers: dict[str, str], status: int, error: str
) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{events_at.url}/api/pipelines/{path}", headers=headers)
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["error"]) == (status, error)
    assert document["detail"]


async def test_a_stream_ends_when_its_viewer_leaves_or_the_server_does(events_at: Station, writer: Scribe) -> None:
    async with stream(events_at) as events:
        await anext(events)
        assert events_at.hub.watched("p-one")
    await until(lambda: not events_at.hub.watched("p-one"))
    async with stream(events_at) as events:
        await anext(events)
        events_at.closing()
        assert [event async for event in events] == []


def test_the_document_describes_every_type_of_event(tmp_path: Path) -> None:
    async def on_queued() -> None:
        """Nothing is queued."""

    app = create_app(load_settings(home=tmp_path), may_rehearse=True, on_queued=on_queued)
    route = app.openapi()["paths"]["/api/pipelines/{pipeline_id}/events"]["get"]
    assert "text/event-stream" in route["responses"]["200"]["content"]
    assert all(
        f"`{type_}`" in route["description"] for type_ in DATA if type_ not in {"snapshot", "heartbeat", "error"}
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_shows_events_as_they_happen(events_at: Station, writer: Scribe) -> None:
    url = f"{events_at.url}/api/pipelines/p-one/events?after=0&until=end"
    curl = await asyncio.create_subprocess_exec("curl", "-sN", url, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    async with asyncio.timeout(20):
        while (await curl.stdout.readline()).strip() != b"id: 1":
            pass
        await writer.end()
        rest = await curl.stdout.read()
        assert await curl.wait() == 0
    assert b"event: orchestration_complete" in rest
