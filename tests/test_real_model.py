"""A real language model takes the main job through every phase, and whatever it says the end is a legal one.

SmolLM2 has 135 million parameters: it follows a schema because the server makes it, and argues like a child.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.language_model import CONTEXT, MODEL_NAME, LanguageModel
from trilogue.actions import ActionKind, Offer, read_turn, turn_schema
from trilogue.agent import Role
from trilogue.entry import Entry, Kind
from trilogue.ledger import Ledger, sqlite_url
from trilogue.ledger.chain import verify
from trilogue.ledger.opening import TENANT
from trilogue.models.endpoint import Endpoint
from trilogue.models.gateway import Gateway
from trilogue.models.question import Question
from trilogue.models.wording import in_words

pytestmark = pytest.mark.model

ENDS = {"COMPLETED", "TIMEOUT", "ORCHESTRATION_FAILED", "FAILED"}
"""All but ORCHESTRATION_ERROR: the server is there, so nothing may be blamed on it."""
EVERYTHING = Offer(
    mandate=frozenset(ActionKind),
    actions=frozenset(ActionKind) - {ActionKind.RULE, ActionKind.DECOMPOSE},
    votable=("p2", "p3"),
    criticisable=("p2", "p3"),
    revisable=("p1",),
    subtasks=("s1",),
    recipients=(Role.BETA,),
)


async def entries_of(home: Path, pipeline_id: str) -> list[Entry]:
    ledger = await Ledger.open(sqlite_url(home / "ledger.db"), migrate=False)
    try:
        return await ledger.entries(TENANT, pipeline_id)
    finally:
        await ledger.close()


def run(home: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`trilogue run` as a user starts it, with limits under which a small model on a small machine ends in time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TRILOGUE_"))}
    environment = kept | {
        "TRILOGUE_HOME": str(home),
        "LOCAL_MODEL_URL": url,
        "TRILOGUE_ANSWER_TOKENS": "256",
        "TRILOGUE_AGENT_TIMEOUT": "120",
        "TRILOGUE_CALL_TIMEOUT": "100",
        "ORCHESTRATION_TIMEOUT": "60",
        "GAMMA_STUCK_THRESHOLD": "15",
    }
    command = [str(Path(sys.executable).with_name("trilogue")), "run", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)
async def test_a_small_model_goes_through_every_phase_to_a_legal_end(
    language_model: LanguageModel, tmp_path: Path
) -> None:
    done = run(tmp_path, language_model.url, "Design a caching strategy for a small web shop", "--json")
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    status, phases = outcome["status"], [span["phase"] for span in outcome["phases"]]
    assert status in ENDS, outcome["error"]
    assert done.returncode == (0 if status == "COMPLETED" else 1)
    if outcome["report"] and outcome["report"]["findings"]:
        assert phases[:4] == ["SPAWN", "RUN", "REPORT", "ORCHESTRATE"]
        assert (phases[-1] == "COMPLETE") == (status == "COMPLETED") == (outcome["consensus"] is not None)
    else:
        assert (status, phases) == ("FAILED", ["SPAWN", "RUN"])
        assert outcome["error"]["code"] in {"no_findings", "no_agent_left"}

    assert (outcome["mode"], outcome["rehearsal"], outcome["model"]) == ("local", False, MODEL_NAME)
    negotiators = outcome["agents"][:2]
    assert [agent["role"] for agent in negotiators] == ["ALPHA", "BETA"]
    for agent in negotiators:
        assert agent["model"] == MODEL_NAME
        assert agent["turns"] > 0
        assert min(agent["tokens"].values()) > 0
        assert agent["cost_usd"] is None  # llama.cpp tells no price: unknown, never zero

    entries = await entries_of(tmp_path, outcome["pipeline_id"])
    assert verify(entries) is None
    assert (len(entries), entries[-1].hash) == (outcome["ledger"]["entries"], outcome["ledger"]["head"])
    turns = [entry.body for entry in entries if entry.kind is Kind.TURN_ENDED]
    acted = [turn for turn in turns if turn["outcome"] == "acted"]
    assert acted or status == "FAILED"
    for turn in acted:
        assert turn["model"] == MODEL_NAME
        assert not turn["usage"]["estimated"]  # counted by the server
        assert 100 < turn["usage"]["input_tokens"] / turn["calls"] < CONTEXT
    begun = {entry.body["turn"] for entry in entries if entry.kind is Kind.TURN_BEGUN}
    assert begun == {turn["turn"] for turn in turns}


@pytest.fixture
async def gateway(language_model: LanguageModel) -> AsyncIterator[Gateway]:
    endpoint = Endpoint(mode="local", base_url=language_model.url)
    opened = Gateway(endpoint, tries=1, retry_wait=0.1, call_timeout=60)
    yield opened
    await opened.close()


async def test_the_server_says_which_model_it_serves(gateway: Gateway) -> None:
    assert await gateway.probe() == [MODEL_NAME]


async def test_an_answer_is_streamed_counted_and_fits_the_schema_of_a_turn(gateway: Gateway) -> None:
    offer = Offer(mandate=frozenset(ActionKind), actions=frozenset({ActionKind.FIND, ActionKind.PASS}))
    question = Question(
        model=MODEL_NAME,
        system="You are a researcher.",
        prompt="What should a small web shop cache? Answer in one short finding.",
        schema=turn_schema(offer),
        schema_name="turn",
        max_tokens=512,
    )
    lengths: list[int] = []
    reply = await gateway.complete(
        question, read=lambda v: read_turn(v, offer), on_text=lambda t: lengths.append(len(t))
    )
    assert len(lengths) > 10
    assert reply.usage.input_tokens > 50
    assert reply.usage.output_tokens > 10
    assert (reply.usage.estimated, reply.usage.cost_nanousd, reply.usage.model) == (False, None, MODEL_NAME)
    if reply.value is not None:  # it may also talk until it is cut
        assert {action.action for action in reply.value} <= offer.actions
    else:
        assert reply.error is not None
        assert "max_tokens" in reply.error.message


def test_a_schema_in_words_takes_less_than_half_of_its_tokens(language_model: LanguageModel) -> None:
    schema = turn_schema(EVERYTHING)
    spelled = language_model.tokens(json.dumps(schema, separators=(",", ":")))
    assert language_model.tokens(in_words(schema)) < spelled / 2
