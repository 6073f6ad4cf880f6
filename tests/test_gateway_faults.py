"""Every way in which an endpoint can fail has one outcome and a known number of calls."""

import json
import logging
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fixtures.model_server import KEY, MakeCaller
from trilogue.errors import Denied, EndpointFault, Exhausted, Invalid, TrilogueError
from trilogue.models.faults import retry_after
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Drop, ErrorInBody, ErrorInStream, Hang, Ok, Raw, Status, Step, Trickle, always

TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Row:
    """A step that the server takes every time, and what must come of it."""

    step: Step
    family: type[TrilogueError]
    code: str
    calls: int = TRIES
    says: str = ""
    call_timeout: float = 5.0


ROWS = {
    "400": Row(step=Status(code=400), family=Invalid, code="model_request_refused", calls=2),  # a weaker form, no retry
    "401": Row(step=Status(code=401), family=Denied, code="key_refused", calls=1),
    "402": Row(step=Status(code=402), family=Exhausted, code="credit_spent", calls=1),
    "402 to wait for": Row(step=Status(code=402, headers={"Retry-After": "0"}), family=Exhausted, code="credit_spent"),
    "403": Row(step=Status(code=403), family=Denied, code="key_refused", calls=1),
    "403 moderation": Row(
        step=Status(code=403, metadata={"reasons": ["violence"]}), family=Denied, code="text_refused", calls=1
    ),
    "404": Row(
        step=Status(code=404, message="no such model"),
        family=Invalid,
        code="model_request_refused",
        calls=1,
        says="no such model",
    ),
    "408": Row(step=Status(code=408), family=EndpointFault, code="endpoint_timeout"),
    "413": Row(step=Status(code=413), family=Invalid, code="model_request_refused", calls=1),
    "429": Row(step=Status(code=429), family=EndpointFault, code="endpoint_rate_limited"),
    "500": Row(step=Status(code=500), family=EndpointFault, code="endpoint_error"),
    "501": Row(step=Status(code=501), family=Invalid, code="model_request_refused", calls=1),
    "502": Row(step=Status(code=502, message="x" * 5000), family=EndpointFault, code="endpoint_error", says="502"),
    "503": Row(step=Status(code=503), family=EndpointFault, code="endpoint_error"),
    "504": Row(step=Status(code=504), family=EndpointFault, code="endpoint_timeout"),
    "529": Row(step=Status(code=529), family=EndpointFault, code="endpoint_error"),
    "redirect": Row(
        step=Status(code=307, headers={"Location": "http://127.0.0.1:9/elsewhere"}),
        family=Invalid,
        code="model_request_refused",
        calls=1,
        says="final address",
    ),
    "401 in a 200": Row(step=ErrorInBody(code=401), family=Denied, code="key_refused", calls=1),
    "402 in a 200": Row(step=ErrorInBody(code=402), family=Exhausted, code="credit_spent", calls=1),
    "429 in a 200": Row(step=ErrorInBody(code=429), family=EndpointFault, code="endpoint_rate_limited"),
    "502 in a 200": Row(
        step=ErrorInBody(code=502, message="line\n\x1bbreaks"), family=EndpointFault, code="endpoint_error"
    ),
    "the provider's words in a 200": Row(
        step=ErrorInBody(code=502, metadata={"provider_name": "P", "raw": "out of memory"}),
        family=EndpointFault,
        code="endpoint_error",
        says="out of memory",
    ),
    "an unknown error in a 200": Row(step=ErrorInBody(code="odd"), family=EndpointFault, code="endpoint_error"),
    "402 in the stream": Row(step=ErrorInStream(code=402), family=Exhausted, code="credit_spent", calls=1),
    "429 by name in the stream": Row(
        step=ErrorInStream(code="rate_limit_exceeded"), family=EndpointFault, code="endpoint_rate_limited"
    ),
    "502 in the stream": Row(
        step=ErrorInStream(code=502), family=EndpointFault, code="endpoint_error", says="the provider disconnected"
    ),
    "dropped before the answer": Row(step=Drop(), family=EndpointFault, code="endpoint_error", says="broke"),
    "dropped in the answer": Row(step=Drop(after=1), family=EndpointFault, code="endpoint_error", says="broke"),
    "no answer in time": Row(
        step=Hang(), family=EndpointFault, code="endpoint_timeout", says="0.3 s", call_timeout=0.3
    ),
    "signs of life for ever": Row(
        step=Trickle(), family=EndpointFault, code="endpoint_timeout", says="0.3 s", call_timeout=0.3
    ),
    "an answer slower than the time": Row(
        step=Ok(pause=0.15), family=EndpointFault, code="endpoint_timeout", call_timeout=0.3
    ),
    "a web page": Row(
        step=Raw(body=b"<html>Welcome to the hotel</html>", content_type="text/html"),
        family=EndpointFault,
        code="endpoint_error",
        says="no JSON",
    ),
    "half a JSON": Row(step=Raw(body=b'{"choices": ['), family=EndpointFault, code="endpoint_error", says="no JSON"),
    "nothing": Row(step=Raw(body=b""), family=EndpointFault, code="endpoint_error"),
    "a list": Row(step=Raw(body=b"[1]"), family=EndpointFault, code="endpoint_error", says="no JSON object"),
    "no choices": Row(step=Raw(body=b'{"id": 1}'), family=EndpointFault, code="endpoint_error", says="choices"),
    "choices of text": Row(step=Raw(body=b'{"choices": "x"}'), family=EndpointFault, code="endpoint_error"),
    "content of numbers": Row(
        step=Raw(body=b'{"choices": [{"message": {"content": 7}}]}'), family=EndpointFault, code="endpoint_error"
    ),
    "deeper than any stack": Row(step=Raw(body=b"[" * 200_000), family=EndpointFault, code="endpoint_error"),
    "an endless answer": Row(
        step=Raw(body=b" " * 5_000_000), family=EndpointFault, code="endpoint_error", says="longer than"
    ),
    "an empty stream": Row(
        step=Raw(body=b"data: [DONE]\n\n", content_type="text/event-stream"),
        family=EndpointFault,
        code="endpoint_error",
    ),
    "a stream of no JSON": Row(
        step=Raw(body=b"data: {oops\n\n", content_type="text/event-stream"),
        family=EndpointFault,
        code="endpoint_error",
        says="no JSON",
    ),
    "a stream of lists": Row(
        step=Raw(body=b"data: [1]\n\n", content_type="text/event-stream"), family=EndpointFault, code="endpoint_error"
    ),
    "a stream that is no text": Row(
        step=Raw(body=b"data: \xff\xfe\n\n", content_type="text/event-stream"),
        family=EndpointFault,
        code="endpoint_error",
    ),
    "a stream without its end": Row(
        step=Raw(
            body=b'data: {"choices": [{"delta": {"content": "{\\"answer\\": 1"}}]}\n\n',
            content_type="text/event-stream",
        ),
        family=EndpointFault,
        code="endpoint_error",
        says="before its end",
    ),
    "vLLM's way to report": Row(
        step=Raw(body=b'{"object": "error", "message": "too long", "code": 400, "type": "BadRequest"}'),
        family=Invalid,
        code="model_request_refused",
        calls=2,
        says="too long",
    ),
}


@pytest.mark.parametrize("name", ROWS)
async def test_each_fault_has_its_outcome_and_number_of_calls(
    name: str, model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    row = ROWS[name]
    model_server.plan = always(row.step)
    caller = caller_of(model_server, tries=TRIES, call_timeout=row.call_timeout)

    reply = await caller.ask()

    assert reply.value is None
    assert (type(reply.error), reply.error.code if reply.error else None) == (row.family, row.code)
    assert reply.error is not None
    assert len(model_server.chats) == reply.usage.calls == len(caller.outcomes) == row.calls
    assert f"{model_server.url}/chat/completions" in reply.error.message
    assert row.says in reply.error.message
    assert len(reply.error.message) < 600
    assert reply.error.message.isprintable()
    assert {outcome.result for outcome in caller.outcomes} == {"fault" if row.family is EndpointFault else "refused"}


@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if row.calls == TRIES and row.family is EndpointFault]
)
async def test_a_fault_that_passes_leaves_only_the_answer(
    name: str, model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    row = ROWS[name]
    model_server.plan = [row.step]
    caller = caller_of(model_server, call_timeout=row.call_timeout)

    reply = await caller.ask()

    assert (reply.value, reply.error, reply.repaired) == (42, None, False)
    assert len(model_server.chats) == reply.usage.calls == 2
    assert [outcome.result for outcome in caller.outcomes] == ["fault", "ok"]


async def test_a_server_that_is_not_there_is_unreachable(caller_of: MakeCaller) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        caller = caller_of(f"http://127.0.0.1:{reserved.getsockname()[1]}/v1")
        reply = await caller.ask()
    assert isinstance(reply.error, EndpointFault)
    assert reply.error.code == "endpoint_unreachable"
    assert (reply.usage.calls, reply.usage.input_tokens, reply.usage.cost_nanousd) == (3, 0, 0)


async def test_retry_after_is_waited_for_but_not_longer_than_a_call_may_take(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    for header, call_timeout, least, most in (("0.4", 5.0, 0.4, 1.0), ("3600", 0.3, 0.3, 1.0)):
        model_server.requests.clear()
        model_server.plan = [Status(code=429, headers={"Retry-After": header})]
        reply = await caller_of(model_server, call_timeout=call_timeout).ask()
        first, second = model_server.chats
        assert reply.value == 42
        assert first.ended is not None
        assert least <= second.began - first.ended < most


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    now = datetime(2026, 11, 22, 9, 0, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "7"}, now=now) == 7
    assert retry_after({"retry-after": "Sun, 22 Nov 2026 09:00:30 GMT"}, now=now) == 30
    assert retry_after({"retry-after": "Sun, 22 Nov 2026 08:00:00 GMT"}, now=now) == 0
    for nonsense in ("", "soon", "-5", "nan", "inf", "9" * 400, "Sun, 99 Nov 2026"):
        assert retry_after({"retry-after": nonsense}, now=now) is None


ECHO = f"your header was Bearer {KEY}, your key {KEY}"


@pytest.mark.parametrize(
    "step",
    [
        Status(code=401, message=ECHO),
        Status(code=503, message="x" * 180 + KEY),
        Status(code=400, message=ECHO, metadata={"headers": {"authorization": KEY}}),
        ErrorInBody(code=402, message=ECHO),
        ErrorInStream(code=502, message=ECHO),
        Raw(body=json.dumps({"error": ECHO}).encode()),
        Ok(refusal=ECHO),
    ],
)
async def test_the_key_is_shown_nowhere_even_if_the_server_repeats_it(
    step: Step, model_server: OpenRouterServer, caller_of: MakeCaller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model_server.plan = always(step)
    caller = caller_of(model_server)
    reply = await caller.ask()
    assert reply.error is not None
    shown: list[Any] = [reply, reply.error, caller.outcomes, caller.gateway.endpoint, vars(reply.error), caplog.text]
    shown += [model_server.requests]
    for text in map(repr, shown):
        assert KEY not in text
        assert KEY[:16] not in text


async def test_what_a_broken_call_took_is_estimated_and_its_cost_is_unknown(
    model_server: OpenRouterServer, caller_of: MakeCaller
) -> None:
    model_server.plan = [Drop(after=2)]
    broken = await caller_of(model_server).ask()
    model_server.requests.clear()
    model_server.plan = [Status(code=503)]
    refused = await caller_of(model_server).ask()

    assert (broken.usage.cost_nanousd, broken.usage.estimated) == (None, True)
    assert not refused.usage.estimated
    assert refused.usage.cost_nanousd
    assert broken.usage.input_tokens > refused.usage.input_tokens > 0


async def test_waits_grow_and_are_spread(model_server: OpenRouterServer, caller_of: MakeCaller) -> None:
    model_server.plan = always(Status(code=503))
    began = time.monotonic()
    await caller_of(model_server, tries=4, retry_wait=0.05).ask()
    took = time.monotonic() - began
    gaps = [
        later.began - earlier.began for earlier, later in zip(model_server.chats, model_server.chats[1:], strict=False)
    ]
    assert gaps[0] < gaps[2]
    assert 0.175 <= took < 1.0
