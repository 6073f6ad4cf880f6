"""What there is to be seen: servers that carry pipelines at a pace to watch, and pipelines of every kind on them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from tests.fixtures.browser import PATIENCE
from tests.fixtures.model_server import KEY
from tests.fixtures.served import Served, served_at
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status, new_pipeline_id
from trilogue.services import open_services
from trilogue.testing.long_story import write_long_story
from trilogue.testing.openrouter import OpenRouterServer, serving

OBJECTIVE = "Design a caching strategy for the product catalogue"
CONFLICT = "rehearsal/conflict"
"""The model that proposes against itself until GAMMA rules, over dissent."""
WATCHABLE = 0.8
"""Seconds that an answer takes to be written, so that a person, or a test, sees it come."""

WORD = "Donaudampfschiff" * 1875
"""30,000 characters without a place to break the line."""
SCRIPT = "<script>window.owned = 'script'; alert('script')</script>"
IMAGE = "<img src=http://elsewhere.invalid/a.png onerror=\"window.owned = 'image'\"><svg/onload=alert('svg')>"
BREAKING_OUT = "</title></textarea></template></li></section></main>\"'><iframe src=http://elsewhere.invalid></iframe>"
LINKS = (
    "[script](javascript:alert('link')) [data](data:text/html,<script>alert(1)</script>) "
    "![picture](http://elsewhere.invalid/b.png) [elsewhere](https://elsewhere.invalid/ \"' onclick='alert(1)\")"
)
MARKS = "\u202eesrever\u202c \u2067\u200fمرحبا بالعالم\u2069 👩‍🚀🏳️‍🌈👍🏽"  # fmt: skip
HOSTILE = f"{SCRIPT} {IMAGE} {BREAKING_OUT} {LINKS} {MARKS}"
"""Everything that a text may try on a page, but for its length."""


@asynccontextmanager
async def rehearsing(home: Path, valkey: Path, *, latency: float = WATCHABLE, **settings: Any) -> AsyncIterator[Served]:
    """A server that carries what is spawned with the built-in rehearsal, at a pace that can be watched."""
    with served_at(home, valkey, rehearsal_latency=latency, **settings) as server:
        yield server


@asynccontextmanager
async def asking(
    brain: Callable[[Mapping[str, Any]], str], home: Path, valkey: Path, **settings: Any
) -> AsyncIterator[tuple[Served, OpenRouterServer]]:
    """A server whose agents ask a model server behind which `brain` answers."""
    async with serving(brain, key=KEY) as models:
        known = {"openrouter_base_url": models.url, "openrouter_api_key": SecretStr(KEY)}
        with served_at(home, valkey, **(known | settings)) as server:
            yield server, models


async def spawn(server: Served, objective: str = OBJECTIVE, **options: Any) -> str:
    """Spawn a pipeline as anybody would, and return its id."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.post("/api/spawn", json={"objective": objective, **options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["pipeline_id"])


async def take_on(server: Served, pipeline_id: str, **asked: Any) -> None:
    """Continue a held pipeline, as anybody would."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.post("/api/pipeline/continue", json={"pipeline_id": pipeline_id, **asked})
    assert answer.status_code == 202, answer.text


async def stop(server: Served, pipeline_id: str, reason: str) -> None:
    """Stop a pipeline, as anybody would."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.post(f"/api/pipeline/{pipeline_id}/stop", json={"reason": reason})
    assert answer.status_code == 200, answer.text


async def status_of(server: Served, pipeline_id: str, *awaited: str) -> str:
    """The pipeline's status, once it is one of `awaited`."""
    deadline = time.monotonic() + 4 * PATIENCE
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        while True:
            status = str((await client.get(f"/api/pipelines/{pipeline_id}")).json()["status"])
            if not awaited or status in awaited:
                return status
            over = Status(status).ended or time.monotonic() > deadline
            assert not over, f"{pipeline_id} is {status}, not {' or '.join(awaited)}"
            await asyncio.sleep(0.05)


async def head_of(server: Served, pipeline_id: str) -> int:
    """The `seq` of the pipeline's last entry."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        return int((await client.get(f"/api/pipelines/{pipeline_id}")).json()["ledger"]["entries"])


async def long_story(server: Served, *, entries: int = 2_000, completed: bool = False) -> str:
    """A pipeline of so many entries in the server's ledger; returns its id."""
    pipeline_id = new_pipeline_id()
    async with open_services(server.settings) as services:
        await write_long_story(services.ledger, TENANT, pipeline_id, entries=entries, completed=completed)
    return pipeline_id


def hostile(request: Mapping[str, Any]) -> str:
    """The rehearsal's answer, with everything that a text may try on a page in each of it, and a long word in one."""
    answer = json.loads(rehearse(request))
    for action in answer["actions"]:
        for name in ("title", "text", "reason", "content", "evidence"):
            if name in action:
                action[name] = f"{MARKS} {HOSTILE} {action[name]}"
    longest = next((name for name in ("text", "content", "reason") if name in action), "title")
    action[longest] += f" {WORD}"
    return json.dumps(answer)
