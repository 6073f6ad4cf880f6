"""SIGTERM reaches a command that carries a pipeline also while somebody else's handler stands before its own."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from trilogue.cli.carrying import _sigterm_reaches_the_loop, ending_like_ctrl_c


@pytest.fixture
def interrupted() -> Iterator[asyncio.Event]:
    """Set by what Ctrl-C raises."""
    seen = asyncio.Event()
    before = signal.signal(signal.SIGINT, lambda *_: seen.set())
    yield seen
    signal.signal(signal.SIGINT, before)


async def test_sigterm_is_ctrl_c_whoever_handles_it_besides(interrupted: asyncio.Event) -> None:
    with ending_like_ctrl_c():
        own = signal.getsignal(signal.SIGTERM)
        with _sigterm_reaches_the_loop():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(interrupted.wait(), 5)
            interrupted.clear()
            signal.signal(signal.SIGTERM, lambda *_: None)  # as Prefect does at a flow's start; it gets lost there
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(interrupted.wait(), 5)
        assert signal.getsignal(signal.SIGTERM) is own
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
