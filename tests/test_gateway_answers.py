"""An answer comes with its value, as it is written, with what it consumed, whatever the server can do."""

import asyncio
import gc
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from tests.fixtures.model_server import KEY, QUESTION, MakeCaller, read_answer
from trilogue.errors import Invalid, Malformed
from trilogue.models.endpoint import Endpoint
from trilogue.models.question import Usage, nanousd
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Hang, Ok, Raw, Status, Step, always


async def test_an_answer_says_who_gave_it_and_what_it_cost(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "cost": 0.00014,
    }
    model_server.plan = [Ok(model="test/two", usage=usage)]
    reply = await caller_of(model_server).ask(replace(QUESTION, fallback_models=("test/two", "test/three")))

    assert reply.value == 42
    assert reply.usage == Usage(
        input_tokens=100,
        output_tokens=20,
        cached_tokens=64,
        cost_nanousd=140_000,
        told_nanousd=140_000,
        calls=1,
        model="test/two",
    )
    (seen,) = model_server.chats
    assert seen.body["models"] == ["test/one", "test/two", "test/three"]
    assert seen.body["max_tokens"] == 100
    assert seen.headers["x-title"] == "Trilogue"
    assert seen.key == "right"


async def test_a_cost_that_a_server_does_not_tell_is_unknown_and_never_zero(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.cost = False
    silent = await caller_of(model_server).ask()
    assert (silent.usage.cost_nanousd, silent.usage.estimated) == (None, False)
    model_server.usage = False
    mute = await caller_of(model_server).ask()
    assert (mute.usage.cost_nanousd, mute.usage.estimated) == (None, True)
    assert mute.usage.input_tokens > 20
    assert mute.usage.output_tokens == 4  # '{"answer": 42}' at four characters a token

    known = Usage(cost_nanousd=5, calls=1, model="a")
    assert (known + silent.usage).cost_nanousd is None
    assert (silent.usage + known).cost_nanousd is None
    assert (known + known).cost_nanousd == 10
    amounts: list[object] = [None, "0.1", True, float("nan"), float("inf"), -1, [], {}]
    for no_amount in amounts:
        assert nanousd(no_amount) is None
    assert nanousd(0.1 + 0.2) == 300_000_001  # rounded up, exactly


async def test_text_is_told_while_the_answer_is_still_being_written(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.plan = [Ok(text='{"answer": 42, "because": "' + "of this " * 12 + '"}', pause=0.02)]
    told: list[tuple[str, bool]] = []
    reply = await caller_of(model_server).ask(
        on_text=lambda text: told.append((text, model_server.chats[0].ended is None))
    )
    assert reply.value == 42
    assert len(told) > 5
    assert all(unfinished for _, unfinished in told[:3])
    assert all(later.startswith(earlier) for (earlier, _), (later, _) in pairwise(told))


async def test_a_server_that_does_not_stream_is_understood(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.plan = [Ok(streams=False)]
    told: list[str] = []
    reply = await caller_of(model_server).ask(on_text=told.append)
    assert (reply.value, told) == (42, ['{"answer": 42}'])
    assert reply.usage.cost_nanousd


@pytest.mark.parametrize(
    ("taken", "first_calls", "structure"),
    [
        (("json_schema", "json_object"), 1, "json_schema"),
        (("json_object",), 2, "json_object"),
        ((), 3, None),
    ],
)
async def test_what_a_server_refuses_is_asked_once_and_remembered(
    taken: tuple[str, ...],
    first_calls: int,
    structure: str | None,
    model_server: OpenRouterServer,
    caller_of: MakeCaller,
) -> None:
    model_server.structures = taken
    model_server.stream_options = False
    caller = caller_of(model_server, mode="local", tries=1)

    first = await caller.ask()
    assert (first.value, first.usage.calls) == (42, first_calls + 1)  # one more for `stream_options`
    assert first.usage.cost_nanousd

    second = await caller.ask()
    assert (second.value, second.usage.calls) == (42, 1)
    assert model_server.chats[-1].structure == structure
    assert '{"answer": integer}' in model_server.chats[-1].body["messages"][0]["content"]

    other = await caller.ask(replace(QUESTION, model="test/other"))
    assert other.usage.calls == first_calls + 1


async def test_a_model_without_structured_output_at_openrouter_is_asked_in_words(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    refusal = Status(code=404, message="No endpoints found that can handle the requested parameters.")
    model_server.plan = lambda seen: refusal if seen.structure else Ok()
    reply = await caller_of(model_server).ask()
    assert (reply.value, reply.usage.calls) == (42, 3)


async def test_no_key_and_nothing_of_openai_is_sent_where_none_belongs(
    model_server: OpenRouterServer, caller_of: MakeCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-openai-secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    model_server.key = None
    reply = await caller_of(model_server, mode="local", key=None).ask(replace(QUESTION, fallback_models=("test/two",)))
    assert reply.value == 42
    (seen,) = model_server.chats
    assert seen.key == "none"
    assert "secret" not in repr(seen)
    assert "models" not in seen.body
    assert "x-title" not in seen.headers
    assert os.environ["OPENAI_API_KEY"] == "sk-openai-secret"


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "http://user:hunter2@host/v1"},
        {"base_url": "http://host/v1?key=hunter2"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://host:hunter/v1"},
        {"base_url": "host/v1"},
        {"api_key": SecretStr("hunter2\n")},
        {"api_key": SecretStr("hunter2 ключ")},
        {"api_key": SecretStr("")},
    ],
)
def test_an_address_or_key_that_cannot_be_used_is_refused_without_showing_it(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        Endpoint(**{"mode": "local", "base_url": "http://host/v1", **options})
    assert "hunter2" not in str(caught.value)


async def until(condition: Callable[[], bool], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the server's log has no event to wait for
            await asyncio.sleep(0.005)


async def test_a_cancelled_call_closes_its_connection_at_once(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    for step in (Hang(), Ok(pause=0.2)):
        model_server.requests.clear()
        model_server.plan = [step]
        caller = caller_of(model_server)
        call = asyncio.create_task(caller.ask())
        await until(lambda: bool(model_server.chats), seconds=2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: model_server.chats[0].ended is not None, seconds=0.5)
        assert model_server.chats[0].gone
        assert [outcome.result for outcome in caller.outcomes] == ["cancelled"]


async def test_many_calls_at_once_share_one_client_and_its_connections(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.latency = 0.1
    caller = caller_of(model_server)
    gc.collect()
    before = sum(isinstance(thing, httpx2.AsyncClient) for thing in gc.get_objects())
    for _ in range(3):
        replies = await asyncio.gather(*(caller.ask() for _ in range(50)))
        assert {reply.value for reply in replies} == {42}
    assert len(model_server.chats) == 150
    assert model_server.connections <= 50
    assert sum(isinstance(thing, httpx2.AsyncClient) for thing in gc.get_objects()) == before


async def test_an_error_in_the_callers_own_code_is_not_taken_for_the_endpoints(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    def faulty(text: str) -> None:
        raise TimeoutError(text)

    caller = caller_of(model_server)
    with pytest.raises(TimeoutError, match="answer"):
        await caller.ask(on_text=faulty)
    with pytest.raises(ZeroDivisionError):
        await caller.gateway.complete(QUESTION, read=lambda _: 1 // 0)
    assert len(model_server.chats) == 2


BAD_ANSWERS: dict[str, Step] = {
    "no JSON": Ok(text="I would rather not say."),
    "JSON of the wrong shape": Ok(text='{"answer": "forty-two"}'),
    "nothing": Ok(text=""),
    "a refusal": Ok(refusal="I cannot help with that."),
    "cut at max_tokens": Ok(text='{"ans', finish_reason="length"),
    "an answer in a list": Ok(text="[42]"),
    "a whole answer of null": Raw(body=b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_bad_answer_is_repaired_once_and_both_calls_are_paid(
    name: str, model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    bad = BAD_ANSWERS[name]
    model_server.plan = [bad]
    repaired = await caller_of(model_server).ask()
    assert (repaired.value, repaired.error, repaired.repaired) == (42, None, True)
    assert repaired.usage.calls == len(model_server.chats) == 2
    said, complaint = model_server.chats[1].body["messages"][-2:]
    assert "cannot be used" in complaint["content"]
    if isinstance(bad, Ok) and bad.text:
        assert (said["role"], said["content"]) == ("assistant", bad.text)

    model_server.requests.clear()
    model_server.plan = always(bad)
    lost = await caller_of(model_server).ask()
    assert isinstance(lost.error, Malformed)
    assert lost.usage.calls == len(model_server.chats) == 2
    assert lost.usage.input_tokens > 0
    expected = {"a refusal": "I cannot help with that.", "cut at max_tokens": "max_tokens=100"}
    assert expected.get(name, "") in lost.error.message


async def test_an_endpoint_that_fails_in_the_repair_turn_still_tells_what_was_spent(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.plan = [Ok(text="no"), Status(code=402)]
    reply = await caller_of(model_server).ask()
    assert reply.error is not None
    assert reply.error.code == "credit_spent"
    assert (reply.usage.calls, reply.usage.cost_nanousd is not None) == (2, True)
    assert reply.usage.output_tokens == 1


async def test_text_that_no_encoding_can_carry_does_not_stop_a_call(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.plan = [Ok(text='{"answer": 42, "x": "\\ud800"}')]
    reply = await caller_of(model_server).gateway.complete(
        replace(QUESTION, prompt="from a shell: \udcff"), read=lambda value: (read_answer(value), value["x"])
    )
    assert reply.value == (42, "\ufffd")


async def test_a_wrong_key_is_denied_by_the_server_itself(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    for key in (None, KEY + "x"):
        reply = await caller_of(model_server, key=key).ask()
        assert reply.error is not None
        assert reply.error.code == "key_refused"
    assert [seen.key for seen in model_server.chats] == ["none", "wrong"]
