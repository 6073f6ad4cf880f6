"""A server that speaks OpenRouter's protocol on loopback: a real socket, scripted answers, faults on request.

    async with serving(lambda request: '{"answer": 42}', key="secret", plan=[Status(code=503)]) as server:
        ...  # server.url is the base URL; the first request gets 503, later ones the answer
        assert len(server.chats) == 2

By itself: `python -m trilogue.testing.openrouter --port 8080 --latency 0.5 --answer '{"answer": 42}'`.
"""

import argparse
import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from trilogue.testing.plans import (
    Drop,
    ErrorInBody,
    ErrorInStream,
    Hang,
    Ok,
    Plan,
    Raw,
    Seen,
    Status,
    Step,
    Trickle,
    step_for,
)
from trilogue.testing.wire import Exchange, Listener, listening

Brain = Callable[[Mapping[str, Any]], str]
"""Says the text of an answer, given the request's body."""

USD_PER_INPUT_TOKEN = 3e-6
USD_PER_OUTPUT_TOKEN = 15e-6
PIECE = 8
"""Characters in one event of a streamed answer."""
BASE_PATH = "/api/v1"
_PRICED = ("prompt", "completion")
_EVENT_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache"}
_JSON = {"content-type": "application/json"}


@dataclass(kw_only=True)
class OpenRouterServer:
    """A running server; its attributes may be changed while it runs.

    Attributes:
        key: the bearer key it asks for; without one it asks for none.
        latency: seconds of thought before every answer.
        structures: the `response_format` types it takes; others get 400.
        stream_options: whether it knows that parameter; if not, it gets 400.
        usage: whether answers say what they consumed; `cost`: also in dollars.
        models: what it serves; a chat with another one gets 400. Empty: any.
        prices: dollars for a token in and a token out, of models that cost otherwise than the usual; listed too.
        limit_remaining: what `/key` says is left, in dollars; `None` is no limit.
        requests: everything it has seen, oldest first.
    """

    brain: Brain
    key: str | None = None
    plan: Plan = ()
    latency: float = 0.0
    structures: Sequence[str] = ("json_schema", "json_object")
    stream_options: bool = True
    usage: bool = True
    cost: bool = True
    models: Sequence[str] = ()
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limit_remaining: float | None = None
    requests: list[Seen] = field(default_factory=list)
    _listener: Listener | None = None

    @property
    def url(self) -> str:
        """The base URL, up to and with `/api/v1`."""
        assert self._listener is not None
        return self._listener.url + BASE_PATH

    @property
    def connections(self) -> int:
        """TCP connections accepted so far."""
        return self._listener.connections if self._listener else 0

    @property
    def chats(self) -> list[Seen]:
        """The requests for `/chat/completions`."""
        return [seen for seen in self.requests if seen.path == "/chat/completions"]

    async def serve(self, exchange: Exchange) -> None:
        """Answer one request as the plan says."""
        seen = self._see(exchange)
        self.requests.append(seen)
        try:
            if self.key is not None and seen.key != "right":
                await _error(exchange, Status(code=401, message="No auth credentials found"))
            else:
                await self._follow(step_for(self.plan, seen), exchange, seen)
        except (OSError, asyncio.CancelledError):
            seen.gone = True
            raise
        finally:
            seen.ended = time.monotonic()

    def _see(self, exchange: Exchange) -> Seen:
        path = exchange.path.removeprefix(BASE_PATH)
        headers = dict(exchange.headers)
        sent = headers.pop("authorization", None)
        right = self.key is not None and sent is not None and secrets.compare_digest(sent, f"Bearer {self.key}")
        body = exchange.json()
        return Seen(
            number=sum(1 for earlier in self.requests if earlier.path == path),
            path=path,
            headers=headers,
            body=body if isinstance(body, dict) else {},
            key="none" if sent is None else "right" if right else "wrong",
            began=time.monotonic(),
        )

    async def _follow(self, step: Step, exchange: Exchange, seen: Seen) -> None:
        match step:
            case Status():
                await _error(exchange, step)
            case ErrorInBody():
                error = {"code": step.code, "message": step.message, "metadata": dict(step.metadata)}
                await exchange.answer(200, _dump({"error": error}), headers=_JSON)
            case Drop(after=None):
                exchange.drop()
            case Raw():
                await exchange.answer(200, step.body, headers={"content-type": step.content_type})
            case Trickle():
                await exchange.begin(200, headers=_EVENT_STREAM)
                while True:
                    await exchange.send(b": OPENROUTER PROCESSING\n\n")
                    await asyncio.sleep(step.pause)
            case Hang():
                await asyncio.sleep(step.seconds)
                await self._reply(Ok(), exchange, seen)
            case Ok() | ErrorInStream() | Drop():
                await self._reply(step, exchange, seen)

    async def _reply(self, step: Ok | ErrorInStream | Drop, exchange: Exchange, seen: Seen) -> None:
        if (exchange.method, seen.path) == ("GET", "/models"):
            data: Any = [
                {"id": name, "object": "model", "pricing": dict(zip(_PRICED, map(str, self._price(name)), strict=True))}
                for name in dict.fromkeys((*self.models, *self.prices))
            ]
            await exchange.answer(200, _dump({"object": "list", "data": data}), headers=_JSON)
        elif (exchange.method, seen.path) == ("GET", "/key"):
            data = {"label": "test", "usage": 0, "limit": self.limit_remaining, "limit_remaining": self.limit_remaining}
            await exchange.answer(200, _dump({"data": data}), headers=_JSON)
        elif (exchange.method, seen.path) != ("POST", "/chat/completions"):
            await _error(exchange, Status(code=404, message=f"no such route: {exchange.method} {seen.path}"))
        elif objection := self._objection(seen):
            await _error(exchange, Status(code=400, message=objection))
        else:
            await asyncio.sleep(self.latency)
            await self._chat(step, exchange, seen)

    def _objection(self, seen: Seen) -> str | None:
        if seen.structure is not None and seen.structure not in self.structures:
            return f"response_format of type {seen.structure!r} is not supported"
        if "stream_options" in seen.body and not self.stream_options:
            return "Unrecognized request argument supplied: stream_options"
        if self.models and seen.model not in self.models:
            return f"{seen.model} is not a valid model ID"
        return None

    async def _chat(self, step: Ok | ErrorInStream | Drop, exchange: Exchange, seen: Seen) -> None:
        how = step if isinstance(step, Ok) else Ok()
        text = "" if how.refusal else self.brain(seen.body) if how.text is None else how.text
        identity = {"id": f"gen-{seen.number}", "created": int(time.time()), "model": how.model or seen.model}
        usage = {"usage": self._usage(seen.body, text, how)} if self.usage else {}
        if not (seen.body.get("stream") and how.streams):
            message = {"role": "assistant", "content": text, "refusal": how.refusal}
            choice = {"index": 0, "message": message, "finish_reason": how.finish_reason}
            whole = {**identity, "object": "chat.completion", "choices": [choice], **usage}
            await exchange.answer(200, _dump(whole), headers=_JSON)
            return

        async def tell(choices: list[dict[str, Any]], **more: Any) -> None:
            await exchange.send(_event({**identity, "object": "chat.completion.chunk", "choices": choices, **more}))

        await exchange.begin(200, headers=_EVENT_STREAM)
        for delta in islice(_deltas(text, how.refusal), None if isinstance(step, Ok) else step.after):
            await asyncio.sleep(how.pause)
            await tell([{"index": 0, "delta": delta, "finish_reason": None}])
        if isinstance(step, Drop):
            exchange.drop()
            return
        if isinstance(step, ErrorInStream):
            error = {"code": step.code, "message": step.message}
            await tell([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], error=error)
            await exchange.end()
            return
        await tell([{"index": 0, "delta": {}, "finish_reason": how.finish_reason}])
        if usage:
            await tell([], **usage)
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    def _price(self, model: str) -> tuple[float, float]:
        return self.prices.get(model, (USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN))

    def _usage(self, body: Mapping[str, Any], text: str, how: Ok) -> dict[str, Any]:
        given = math.ceil(len(json.dumps(body.get("messages"))) / 4)
        made = math.ceil(len(text) / 4)
        counted: dict[str, Any] = {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        if self.cost:
            of_input, of_output = self._price(how.model or str(body.get("model")))
            counted["cost"] = round(given * of_input + made * of_output, 9)
        counted.update(how.usage)
        return {name: value for name, value in counted.items() if value is not None}


def _deltas(text: str, refusal: str | None) -> Iterator[dict[str, str]]:
    yield {"role": "assistant", "content": ""}
    if refusal:
        yield {"refusal": refusal}
    for at in range(0, len(text), PIECE):
        yield {"content": text[at : at + PIECE]}


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _event(value: object) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


async def _error(exchange: Exchange, step: Status) -> None:
    error = {"code": step.code, "message": step.message, "metadata": dict(step.metadata)}
    await exchange.answer(step.code, _dump({"error": error}), headers={**_JSON, **step.headers})


@asynccontextmanager
async def serving(brain: Brain, *, port: int = 0, **options: Any) -> AsyncIterator[OpenRouterServer]:
    """A server on 127.0.0.1 for as long as the block lasts.

    Args:
        port: 0 is any free one.
        options: attributes of `OpenRouterServer`.
    """
    server = OpenRouterServer(brain=brain, **options)
    async with listening(server.serve, port=port) as listener:
        server._listener = listener
        yield server


async def _serve_forever(arguments: argparse.Namespace) -> None:
    async with serving(lambda _: arguments.answer, port=arguments.port, latency=arguments.latency) as server:
        print(server.url, flush=True)  # noqa: T201 - what the caller waits for
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A server that speaks OpenRouter's protocol on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--answer", default="{}", help="what every answer says")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(parser.parse_args()))
