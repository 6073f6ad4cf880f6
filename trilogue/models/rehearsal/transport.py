"""The rehearsal behind the chat-completions protocol, without a socket.

httpx2's own `ASGITransport` would buffer a streamed answer until its end; this one hands on
each part as it is produced.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from trilogue.models.rehearsal.script import SCENARIOS, rehearse, situation_in

BASE_URL = "http://rehearsal.invalid/v1"
_PARTS = 24


def rehearsal_client(latency: float) -> httpx2.AsyncClient:
    """An HTTP client behind which the rehearsal answers; `latency` as for `RehearsalTransport`."""
    return httpx2.AsyncClient(transport=RehearsalTransport(latency))


class RehearsalTransport(httpx2.AsyncBaseTransport):
    """Answers `/chat/completions` and `/models` in process.

    Args:
        latency: seconds that one answer takes, spread over its parts so that streaming can be seen.
    """

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._asked: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/models"):
            return _json({"object": "list", "data": [{"id": name, "object": "model"} for name in SCENARIOS]})
        asked = json.loads(await request.aread())
        if asked.get("model") not in SCENARIOS:
            return _error(404, f"no rehearsal is called {asked.get('model')!r}; there are: {', '.join(SCENARIOS)}")
        text = rehearse(asked)
        fault = self._fault(asked)
        if fault == "unavailable":
            return _error(503, "rehearsed: the endpoint is overloaded")
        if fault == "malformed":
            text = "Certainly! Here is what I think about it, in plain words and without any JSON."
        if not asked.get("stream"):
            await asyncio.sleep(self._latency)
            return _json(_whole(asked, text))
        stream = _Stream(asked, text, self._latency, breaks=fault == "breaks")
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    def _fault(self, asked: Mapping[str, Any]) -> str | None:
        """What goes wrong in `rehearsal/faulty`; a question asked again, or in its repair turn, is answered well."""
        if asked["model"] != "rehearsal/faulty":
            return None
        shown = situation_in(asked)
        key = hashlib.sha256(json.dumps(asked["messages"]).encode()).hexdigest()
        self._asked[key] += 1
        repairing = any(message["role"] == "assistant" for message in asked["messages"])
        if shown is None or repairing or self._asked[key] > 1:
            return None
        if shown["phase"] == "RUN":
            return "unavailable" if shown["you"] == "ALPHA" else "malformed"
        return "breaks" if shown["you"] == "ALPHA" else None


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, asked: Mapping[str, Any], text: str, latency: float, *, breaks: bool) -> None:
        self._asked = asked
        self._text = text
        self._latency = latency
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = max(1, -(-len(self._text) // _PARTS))
        parts = [self._text[start : start + size] for start in range(0, len(self._text), size)]
        for number, part in enumerate(parts):
            await asyncio.sleep(self._latency / len(parts))
            if self._breaks and number == len(parts) // 2:
                yield _event({"error": {"code": 502, "message": "rehearsed: the stream broke"}})
                return
            yield _event(_chunk(self._asked, {"content": part}))
        yield _event({**_chunk(self._asked, {}, finish="stop"), "usage": _usage(self._asked, self._text)})
        yield b"data: [DONE]\n\n"


def _usage(asked: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Counted as four characters a token. Nothing is charged: the cost is known and zero."""
    prompt = sum(len(message["content"]) for message in asked["messages"]) // 4
    completion = max(1, len(text) // 4)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost": 0.0,
    }


def _chunk(asked: Mapping[str, Any], delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "rehearsal",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": asked["model"],
        "choices": [{"index": 0, "delta": dict(delta), "finish_reason": finish}],
    }


def _whole(asked: Mapping[str, Any], text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "rehearsal",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(asked, text),
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _json(value: Mapping[str, Any], status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json=dict(value))


def _error(status: int, message: str) -> httpx2.Response:
    return _json({"error": {"code": status, "message": message}}, status)
