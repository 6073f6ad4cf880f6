"""One HTTP call to an OpenAI-compatible server: from a request to an `Answer` or a `CallFailed`.

Owns the connection pool and the key. Every way in which a call can go wrong on the network
or in what comes back becomes a `CallFailed` here; nothing is retried here.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncAPIResponse,
    AsyncOpenAI,
    AsyncStream,
    Omit,
    omit,
)

from trilogue.errors import EndpointFault
from trilogue.models.answer import LONGEST_ANSWER, Answer, ErrorInAnswer, NoAnswer
from trilogue.models.endpoint import Endpoint
from trilogue.models.faults import (
    FAILED,
    TIMED_OUT,
    UNREACHABLE,
    CallFailed,
    Said,
    Scrubber,
    can_retry,
    error_for,
    retry_after,
    said_by,
)
from trilogue.models.question import CallOutcome, Observer, Usage

LONGEST_CONNECT = 10.0
"""Seconds to a connection. Longer means unreachable, however long an answer may take."""
CONNECTIONS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30)

OnText = Callable[[str], None]
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_BROKEN = (httpx2.HTTPError, ssl.SSLError, anyio.EndOfStream)


class Wire:
    """The client of one endpoint. `http_client`, when given, is closed with it."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        call_timeout: float,
        http_client: httpx2.AsyncClient | None,
        observe: Observer | None,
    ) -> None:
        self._endpoint = endpoint
        self._call_timeout = call_timeout
        self._observe = observe
        self.scrub = Scrubber(key=endpoint.key)
        self._client = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.key or "none",  # never sent: `_headers` decides
            max_retries=0,
            # A little longer than `ask` waits for the whole, so that it is `ask` that ends a slow call.
            timeout=httpx2.Timeout(call_timeout + 1, connect=min(call_timeout, LONGEST_CONNECT)),
            http_client=http_client or _http_client(endpoint),
        )
        # The SDK adds what its own environment variables say; that is for OpenAI, not for this address.
        self._headers: dict[str, str | Omit] = {
            "Authorization": f"Bearer {endpoint.key}" if endpoint.key else omit,
            "OpenAI-Organization": omit,
            "OpenAI-Project": omit,
        }
        if endpoint.mode == "openrouter":
            self._headers["X-Title"] = "Trilogue"

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, request: Mapping[str, Any], answer: Answer, *, on_text: OnText | None) -> None:
        """Send `request` and fill `answer`.

        Args:
            on_text: gets the whole text so far, each time that it has grown.

        Raises:
            CallFailed: whatever went wrong with the call.
        """
        began = time.monotonic()
        failed: CallFailed | None = None
        ended = False
        try:
            async with asyncio.timeout(self._call_timeout) as limit:
                await self._exchange(request, answer, on_text)
            ended = True
        except TimeoutError:
            if not limit.expired():
                raise  # somebody else's: `on_text` raised it
            failed = self._timed_out(answer)
            raise failed from None
        except CallFailed as failure:
            failed = failure
            raise
        finally:
            self._tell(request["model"], failed=failed, ended=ended, seconds=time.monotonic() - began)

    async def get(self, path: str, *, timeout: float) -> Any:
        """The JSON that `path` below the address answers.

        Raises:
            CallFailed: whatever went wrong.
        """
        answer = Answer(model="", asked_tokens=0)
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.get(path, cast_to=httpx2.Response, options={"headers": self._headers})
                return _json(response.content)
        except TimeoutError:
            raise self._timed_out(answer, path=path, seconds=timeout) from None
        except (APIError, NoAnswer) as error:
            raise self._translate(error, answer, path=path) from None

    async def _exchange(self, request: Mapping[str, Any], answer: Answer, on_text: OnText | None) -> None:
        def grew() -> None:
            if on_text:
                on_text(answer.text)

        create = self._client.chat.completions.with_streaming_response.create
        try:
            async with create(**request, extra_headers=self._headers) as response:
                if "event-stream" in response.headers.get("content-type", ""):
                    async with aclosing(_events(response)) as events:
                        async for event in events:
                            if answer.take_chunk(event):
                                grew()
                elif answer.take_whole(_json(await _body(response))):
                    grew()
                answer.check_complete()
        except (APIError, NoAnswer, ErrorInAnswer) as error:
            # Without its cause: that one holds the request, and with it the key.
            raise self._translate(error, answer) from None

    def _translate(
        self, error: APIError | NoAnswer | ErrorInAnswer, answer: Answer, *, path: str = "/chat/completions"
    ) -> CallFailed:
        address = self._endpoint.base_url + path
        untouched = Usage(calls=1, model=answer.model)
        begun = answer.usage_when_broken() if answer.text or answer.counted else untouched
        if isinstance(error, APIStatusError):
            said = said_by(error.body, status=error.status_code, retry_after=retry_after(error.response.headers))
            return self._failed(said, answer, address=address, usage=untouched)
        if isinstance(error, ErrorInAnswer):
            return self._failed(said_by(error.error), answer, address=address, usage=begun)
        if isinstance(error, APIConnectionError):
            cause = error.__cause__
            why = self.scrub(str(cause) or type(cause).__name__)
            if isinstance(cause, _NEVER_SENT):
                fault = EndpointFault(f"{address} is out of reach: {why}", code=UNREACHABLE)
                return CallFailed(fault, usage=untouched, again=True)
            code = TIMED_OUT if isinstance(cause, httpx2.TimeoutException) else FAILED
            fault = EndpointFault(f"the connection to {address} broke: {why}", code=code)
            return CallFailed(fault, usage=answer.usage_when_broken(), again=True)
        if isinstance(error, APIError):  # how the SDK reports an error in the stream
            return self._failed(said_by(error.body), answer, address=address, usage=begun)
        fault = EndpointFault(f"{address} answered something else than an answer: {error}", code=FAILED)
        return CallFailed(fault, usage=begun, again=True)

    def _failed(self, said: Said, answer: Answer, *, address: str, usage: Usage) -> CallFailed:
        error = error_for(said, address=address, model=answer.model, scrub=self.scrub)
        return CallFailed(error, usage=usage, said=said, again=can_retry(said))

    def _timed_out(
        self, answer: Answer, *, path: str = "/chat/completions", seconds: float | None = None
    ) -> CallFailed:
        address = self._endpoint.base_url + path
        fault = EndpointFault(
            f"{address} did not finish its answer within {seconds or self._call_timeout:g} s", code=TIMED_OUT
        )
        return CallFailed(fault, usage=answer.usage_when_broken(), again=True)

    def _tell(self, model: str, *, failed: CallFailed | None, ended: bool, seconds: float) -> None:
        if not self._observe:
            return
        if failed is None:
            self._observe(CallOutcome(result="ok" if ended else "cancelled", model=model, seconds=seconds))
            return
        self._observe(
            CallOutcome(
                result="fault" if isinstance(failed.error, EndpointFault) else "refused",
                model=model,
                seconds=seconds,
                code=failed.error.code,
                status=failed.said.status if failed.said else None,
            )
        )


def _http_client(endpoint: Endpoint) -> httpx2.AsyncClient:
    plain = endpoint.on_loopback and endpoint.base_url.startswith("http:")
    return httpx2.AsyncClient(
        limits=CONNECTIONS,
        follow_redirects=False,  # they would carry the prompt to an address that nobody configured
        trust_env=not endpoint.on_loopback,  # no proxy between us and this machine
        verify=not plain,  # reading the certificates, needless there, stops the event loop for some 50 ms
    )


async def _events(response: AsyncAPIResponse[Any]) -> AsyncGenerator[object, None]:
    """The JSON values of a stream's events."""
    stream = await response.parse(to=AsyncStream[object])
    try:
        async for event in stream:
            yield event
    except (ValueError, RecursionError) as error:
        raise NoAnswer("an event in the stream is no JSON") from error


async def _body(response: AsyncAPIResponse[Any]) -> bytes:
    body = bytearray()
    try:
        async for piece in response.iter_bytes():
            body += piece
            if len(body) > LONGEST_ANSWER:
                raise NoAnswer(f"the answer is longer than {LONGEST_ANSWER} bytes")
    except _BROKEN as error:
        raise APIConnectionError(request=response.http_request) from error
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswer("its body is no JSON") from None
