"""The one way to a language model: a structured question in, a value or an error out, and what it cost.

Whether the model is at OpenRouter, on this machine, or the built-in rehearsal, only the
address differs. Retries, weaker forms of asking, and the one repair turn all happen here, so
nobody above needs to know of them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, TypeVar

import httpx2

from trilogue.errors import BudgetSpent, EndpointFault, Exhausted, Invalid, Malformed
from trilogue.governance.budgets import Need, Price, longest_answer
from trilogue.models.answer import Answer
from trilogue.models.endpoint import Endpoint
from trilogue.models.faults import CallFailed
from trilogue.models.guard import Guard, Waits
from trilogue.models.parsing import parse
from trilogue.models.pricing import prices_in
from trilogue.models.question import Observer, Question, Reply, Usage, charged, tokens_in
from trilogue.models.retrying import LONGEST_WAIT, retrying
from trilogue.models.shapes import KnownShapes, Message, messages_for, repair_messages, request_for
from trilogue.models.wire import OnText, Wire

T = TypeVar("T")

logger = logging.getLogger(__name__)

PRICES_TIMEOUT = 10.0
PRICES_HOLD, PRICES_AGAIN = 3600.0, 60.0
"""Seconds until prices are asked for again: once they are known, and where the endpoint did not tell them."""
PROBE_TIMEOUT = 5.0
PROBE_TRIES = 2
PROBE_WAIT = 1.0
LONGEST_QUOTE = 8_000
"""Characters of a bad answer that its repair turn shows to the model."""
LONGEST_COMPLAINT = 1_000
LONGEST_NAME = 200
"""Characters of a served model's name; what is longer, or not printable, is passed over."""


LONGEST_GUARD_WAIT = 1.0
"""Seconds between two questions to an open breaker: another worker's trial may have closed it."""


class Gateway:
    """Calls models at one endpoint; safe to share by all tasks of one event loop.

    Args:
        tries: calls made at most for one answer, as long as failures may pass.
        retry_wait: seconds before the second try; later ones wait longer.
        call_timeout: seconds for one call from sending to the last byte.
        http_client: another transport (the rehearsal's); closed with the gateway.
        observe: told how every single HTTP call of `complete` ended.
        guard: the endpoint's circuit breaker; while it is open calls wait here, and nothing counts.

    Attributes:
        fault: what the endpoint's last call failed of; None where it answered.
        waits: when calls waited for the breaker.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tries: int,
        retry_wait: float,
        call_timeout: float,
        http_client: httpx2.AsyncClient | None = None,
        observe: Observer | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.waits = Waits()
        self.fault: str | None = None
        self._guard = guard
        self._tries = tries
        self._retry_wait = retry_wait
        self._longest_wait = min(LONGEST_WAIT, call_timeout)
        self._wire = Wire(endpoint, call_timeout=call_timeout, http_client=http_client, observe=observe)
        self._shapes = KnownShapes()
        self._prices: Mapping[str, Price] = {}
        self._prices_until = 0.0
        self._learning = asyncio.Lock()

    async def learn_prices(self) -> None:
        """Ask what models cost, once an hour; where the endpoint does not tell, prices stay as they are known."""
        if self.endpoint.mode != "openrouter" or time.monotonic() < self._prices_until:
            return
        async with self._learning:
            if time.monotonic() < self._prices_until:
                return
            try:
                self._prices = prices_in(await self._wire.get("/models", timeout=PRICES_TIMEOUT))
                self._prices_until = time.monotonic() + PRICES_HOLD
            except CallFailed as failed:
                self._prices_until = time.monotonic() + PRICES_AGAIN
                logger.warning("prices cannot be learned: %s", failed.error.message)

    def price(self, model: str) -> Price | None:
        """What a model costs, once `learn_prices` was told."""
        return self._prices.get(model)

    async def close(self) -> None:
        """Close all connections; the gateway cannot be used afterwards."""
        await self._wire.close()

    async def complete(
        self,
        question: Question,
        *,
        read: Callable[[Any], T],
        on_text: OnText | None = None,
        spent: list[Usage] | None = None,
    ) -> Reply[T]:
        """Ask `question`; failures are returned, not raised, so that what was spent is never lost.

        Args:
            read: makes a value of the answer's JSON, or raises `ValueError` or `Invalid` with a message
                that the model is shown in its one repair turn.
            on_text: gets the whole raw text so far each time that it has grown; a retry or a repair
                begins again with a short text.
            spent: gets what each call took; for whoever is cancelled while waiting for the reply.

        Returns:
            A reply whose error, if any, is one of `Malformed` (the repair turn did not help),
            `EndpointFault` (after the last try), `Denied`, `Exhausted` or `Invalid`.
        """
        spent = [] if spent is None else spent
        spent.append(Usage(model=question.model))
        messages: list[Message] = messages_for(question)
        complaint = ""
        for repairing in (False, True):
            try:
                answer = await self._answer(question, messages, spent=spent, on_text=on_text)
            except CallFailed as failed:
                return Reply(error=failed.error, usage=reduce(add, spent))
            try:
                value = await _value(answer, question=question, read=read)
            except Malformed as error:
                complaint = self._wire.scrub(error.message, longest=LONGEST_COMPLAINT)
                messages = repair_messages(messages, answer=answer.text[:LONGEST_QUOTE], complaint=complaint)
            else:
                return Reply(value=value, usage=reduce(add, spent), repaired=repairing)
        return Reply(error=Malformed(complaint), usage=reduce(add, spent))

    async def probe(self) -> list[str]:
        """Check quickly that the endpoint can be used; the ids of the models that a local server serves.

        Raises:
            Denied: the key is refused.
            Exhausted: the key's limit is spent.
            EndpointFault: the endpoint cannot be reached or does not answer.
            Invalid: something answers there, but no OpenAI-compatible server.
        """
        openrouter = self.endpoint.mode == "openrouter"
        try:
            answered = await retrying(
                lambda: self._wire.get("/key" if openrouter else "/models", timeout=PROBE_TIMEOUT),
                tries=min(PROBE_TRIES, self._tries),
                retry_wait=self._retry_wait,
                longest_wait=PROBE_WAIT,
            )
        except CallFailed as failed:
            if openrouter and failed.said and failed.said.status in {404, 405}:
                return []  # another gateway behind OPENROUTER_BASE_URL, which knows no `/key`
            raise failed.error from None
        content = answered.get("data") if isinstance(answered, dict) else None
        if openrouter:
            remaining = content.get("limit_remaining") if isinstance(content, dict) else None
            if isinstance(remaining, int | float) and remaining <= 0:
                raise Exhausted(
                    f"{self.endpoint.base_url}/key says that the key has nothing left; add credit or raise its limit",
                    code="credit_spent",
                )
            return []
        if not isinstance(content, list):
            raise Invalid(
                f"{self.endpoint.base_url}/models answered no list of models; "
                "give the address of an OpenAI-compatible server, which mostly ends in /v1",
                code="bad_model_address",
            )
        named = [item["id"] for item in content if isinstance(item, dict) and isinstance(item.get("id"), str)]
        return [name for name in named if name.isprintable() and 0 < len(name) <= LONGEST_NAME]

    async def _answer(
        self, question: Question, messages: Sequence[Message], *, spent: list[Usage], on_text: OnText | None
    ) -> Answer:
        """One answer, asked for as the model is known to take it; what each call took is added to `spent`."""
        shape = self._shapes.of(question.model)
        asked_tokens = sum(tokens_in(message["content"]) for message in messages)

        async def attempt() -> Answer:
            while True:
                answer = Answer(model=question.model, asked_tokens=asked_tokens)
                affordable = _affordable(question, reduce(add, spent), asked_tokens)
                request = request_for(affordable, messages, endpoint=self.endpoint, shape=shape)
                trial = await self._admitted()
                try:
                    await self._wire.ask(request, answer, on_text=on_text)
                except asyncio.CancelledError:
                    spent.append(answer.usage_when_broken())
                    raise
                except CallFailed as failed:
                    spent.append(failed.usage)
                    fault = isinstance(failed.error, EndpointFault)
                    await self._note(failed.error.message if fault else None)
                    if fault and trial:
                        continue  # an open breaker's trial that fails is nobody's try
                    if failed.said and shape.without(failed.said):
                        failed.again = False  # asking in another way helps, asking again does not
                    raise
                spent.append(answer.usage())
                await self._note(None)
                return answer

        while True:
            try:
                answer = await retrying(
                    attempt, tries=self._tries, retry_wait=self._retry_wait, longest_wait=self._longest_wait
                )
            except CallFailed as failed:
                weaker = shape.without(failed.said) if failed.said else None
                if weaker is None:
                    raise
                shape = weaker
            else:
                self._shapes.keep(question.model, shape)
                return answer

    async def _note(self, fault: str | None) -> None:
        self.fault = fault
        if self._guard:
            await self._guard.note(ok=fault is None)

    async def _admitted(self) -> bool:
        """Wait while the breaker is open; whether the call is its one trial."""
        if self._guard is None:
            return False
        while (admission := await self._guard.admit()).wait > 0:
            with self.waits.waiting():
                await asyncio.sleep(min(admission.wait, LONGEST_GUARD_WAIT))
        return admission.trial


def _affordable(question: Question, spent: Usage, asked_tokens: int) -> Question:
    """The question with as long an answer as is left of what its calls may take together; the first is free to go.

    Raises:
        CallFailed: nothing is left.
    """
    if not spent.calls:
        return question
    models, price = (question.model, *question.fallback_models), question.price
    need = Need(models=models, input_tokens=asked_tokens, answer_tokens=question.max_tokens, price=price)
    taken = charged(need.reserved(need.answer_tokens), spent, price).amount
    length = longest_answer(
        need,
        tokens=None if question.most_tokens is None else question.most_tokens - taken.tokens,
        nanousd=None if question.most_nanousd is None else question.most_nanousd - taken.nanousd,
    )
    if length < (need.answer_tokens if spent.broken_calls else 1):  # what breaks off again is charged whole again
        told = f"the budget was spent on the way, after {spent.tokens:,} tokens in {spent.calls} calls"
        raise CallFailed(BudgetSpent(told), usage=Usage(model=question.model), again=False)
    return replace(question, max_tokens=length)


async def _value(answer: Answer, *, question: Question, read: Callable[[Any], T]) -> T:
    if answer.refusal and not answer.text.strip():
        raise Malformed(f"the model refused: {answer.refusal}")
    try:
        # In a thread: on hostile text it may take most of a second, and everybody shares this loop.
        return read(await asyncio.to_thread(parse, answer.text))
    except (ValueError, Invalid) as error:
        if answer.was_cut:
            raise Malformed(
                f"the answer was cut at max_tokens={question.max_tokens}: {error}; answer more briefly"
            ) from error
        raise Malformed(str(error)) from error
