"""The long story is one that a worker could have written."""

from collections import Counter

import pytest

from tests.driving import MakeDriver
from trilogue.board import fold
from trilogue.entry import Kind
from trilogue.ledger import verify
from trilogue.ledger.opening import TENANT
from trilogue.outcome import outcome_json
from trilogue.pipeline import Status
from trilogue.testing.long_story import LEAST, write_long_story
from trilogue.testing.openrouter import OpenRouterServer


@pytest.mark.parametrize(("completed", "status"), [(False, Status.ORCHESTRATING), (True, Status.COMPLETED)])
async def test_a_long_story_is_whole_and_varied(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, completed: bool, status: Status
) -> None:
    services = (await driver_of(rehearsed)).services
    board = await write_long_story(services.ledger, TENANT, "p-long", entries=600, completed=completed)
    entries = await services.ledger.entries(TENANT, "p-long")
    assert 600 <= len(entries) <= 620
    assert verify(entries) is None
    assert fold(entries) == board
    assert board.status is status
    kinds = Counter(entry.kind for entry in entries)
    every = {Kind.FINDING, Kind.PROPOSAL, Kind.REVISION, Kind.CRITIQUE, Kind.VOTE, Kind.MESSAGE, Kind.MEDIATION_ENDED}
    assert every <= kinds.keys()
    assert len(board.open_turns) == (0 if completed else 2)
    assert {agent.status.value for agent in board.voters()} == {"COMPLETED" if completed else "RUNNING"}
    row = await services.ledger.get_pipeline(TENANT, "p-long")
    assert row.orphaned is False
    usage = await services.ledger.usage(TENANT, "p-long")
    assert outcome_json(row, board, usage)["status"] == status.value


async def test_a_story_is_never_too_short_to_be_one(rehearsed: OpenRouterServer, driver_of: MakeDriver) -> None:
    services = (await driver_of(rehearsed)).services
    board = await write_long_story(services.ledger, TENANT, "p-short", entries=1, completed=True)
    assert (board.status, board.seq >= LEAST) == (Status.COMPLETED, True)
