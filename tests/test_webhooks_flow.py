"""A pipeline of a flow run tells of its end by itself: whoever carries pipelines sends what is due."""

from typing import Any

from flows.pipeline import pipeline
from tests.fixtures.prefect import SetUp
from tests.fixtures.receiver import SECRET, Receiver

_pipeline: Any = pipeline


async def test_a_flow_run_on_its_own_has_sent_its_webhook_when_it_ends(set_up: SetUp, receiver: Receiver) -> None:
    set_up(TRILOGUE_REHEARSAL_LATENCY="0", TRILOGUE_WEBHOOK_SECRET=SECRET, TRILOGUE_WEBHOOK_ALLOW_PRIVATE="true")
    state = await _pipeline(objective="agree", mode="local", webhook=receiver.url, return_state=True)
    assert state.is_completed(), state
    [seen] = receiver.seen
    assert seen.document["type"] == "pipeline.completed"
