"""The servers whose pages are looked at."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.scenes import asking, hostile, rehearsing
from tests.fixtures.served import Served
from trilogue.testing.openrouter import OpenRouterServer


@pytest.fixture
async def stage(tmp_path: Path, valkey_socket: Path) -> AsyncIterator[Served]:
    """A server on which pipelines are rehearsed at a pace that can be watched."""
    async with rehearsing(tmp_path / "served", valkey_socket) as server:
        yield server


@pytest.fixture
async def hostile_stage(tmp_path: Path, valkey_socket: Path) -> AsyncIterator[tuple[Served, OpenRouterServer]]:
    """A server whose agents' model says whatever could harm a page, and that model's server."""
    async with asking(hostile, tmp_path / "served", valkey_socket) as servers:
        yield servers
