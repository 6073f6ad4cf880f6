"""A pipeline of a flow run tells of its end by itself: whoever carries pipelines sends what is due."""

from pathlib import Path
from typing import Any

import pytest

from flows.pipeline import pipeline
from tests.fixtures.prefect import PrefectServer
from tests.fixtures.receiver import SECRET, Receiver

_pipeline: Any = pipeline


async def test_a_flow_run_on_its_own_has_sent_its_webhook_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    migrated_sqlite_url: str,
    redis_url: str,
    no_blocks: None,
    prefect_server: PrefectServer,
    receiver: Receiver,
) -> None:
    for name in ("LOCAL_MODEL_URL", "VAULT_ADDR", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "AUTO_ORCHESTRATE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "PREFECT_API_URL": prefect_server.api_url,
        "TRILOGUE_HOME": str(tmp_path / "home"),
        "TRILOGUE_DATABASE_URL": migrated_sqlite_url,
        "REDIS_URL": redis_url,
        "TRILOGUE_REHEARSAL_LATENCY": "0",
        "TRILOGUE_WEBHOOK_SECRET": SECRET,
        "TRILOGUE_WEBHOOK_ALLOW_PRIVATE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    state = await _pipeline(objective="agree", mode="local", webhook=receiver.url, return_state=True)
    assert state.is_completed(), state
    [seen] = receiver.seen
    assert seen.document["type"] == "pipeline.completed"
