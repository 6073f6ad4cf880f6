"""One attempt at one pipeline: the `Room` in which its agents deliberate.

It holds the board, appends under its fence, tells whoever waits, posts to Redis, and asks
the models. What the ledger took stays; what it refused never reached the board.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from trilogue import clock
from trilogue.actions import Action, Offer, read_turn, turn_schema
from trilogue.agent import Role
from trilogue.board import Agent, Board, OpenTurn, apply
from trilogue.clock import SECOND, Micros
from trilogue.deliberation.room import Answer, Rules
from trilogue.entry import Draft, Entry
from trilogue.errors import Fenced, Unavailable, Violation
from trilogue.governance.budgets import Need, Price, Settlement, cheaper
from trilogue.ledger import Claim, Ledger
from trilogue.live import Delta, Live
from trilogue.mediation import Trigger
from trilogue.models import prompts
from trilogue.models.gateway import Gateway
from trilogue.models.question import Question, Reply, Usage, charged, tokens_in
from trilogue.models.readable import TextStream
from trilogue.models.shapes import messages_for
from trilogue.phases import model_of
from trilogue.pipeline import Phase

logger = logging.getLogger(__name__)

_LEDGER_PATIENCE = 30.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0


class Attempt:
    """The room of one pipeline under one fence.

    Args:
        open_gateway: opens the gateway of a mode (`mode`, `rehearsal`), or gives the one that is open.
        answer_tokens: where one answer is cut.
    """

    def __init__(
        self,
        *,
        claim: Claim,
        board: Board,
        rules: Rules,
        ledger: Ledger,
        live: Live,
        open_gateway: Callable[[str, bool], Awaitable[Gateway]],
        answer_tokens: int,
        fallback_models: tuple[str, ...],
    ) -> None:
        self.claim = claim
        self.fence = claim.fence
        self.board = board
        self.rules = rules
        self.open_gateway = open_gateway
        self._asked: Gateway | None = None
        self._ledger = ledger
        self._live = live
        self._answer_tokens = answer_tokens
        self._fallback_models = fallback_models
        self._calls: dict[int, list[Usage]] = {}
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()

    def now(self) -> Micros:
        return clock.now()

    def stood_still(self, since: Micros) -> Micros:
        return self._asked.waits.since(since, self.now()) if self._asked else 0

    def fault(self) -> str | None:
        return self._asked.fault if self._asked else None

    async def append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        # Shielded: a commit whose caller was cancelled must still reach the board.
        appending = asyncio.ensure_future(self._append(build))
        try:
            await asyncio.shield(appending)
        except asyncio.CancelledError:
            appending.add_done_callback(_look_at)
            raise

    async def _append(self, build: Callable[[Board], Sequence[Draft]]) -> None:
        async with self._lock:
            drafts = list(build(self.board))
            if not drafts:
                return
            entries = await self._commit(drafts)
            for entry in entries:
                apply(self.board, entry)
            self._live.poster.post(entries)
            self._news.set()
            self._news = asyncio.Event()

    async def _commit(self, drafts: Sequence[Draft]) -> list[Entry]:
        """Append, waiting out a ledger that is out of reach for a while.

        A commit whose answer was lost is found again instead of being made twice: under this
        fence nobody else appends.
        """
        give_up = asyncio.get_running_loop().time() + _LEDGER_PATIENCE
        wait = _FIRST_WAIT
        while True:
            try:
                if wait > _FIRST_WAIT and (taken := await self._already_taken()):
                    return taken
                return await self._ledger.append(self.fence, drafts, at=self.now())
            except Unavailable as error:
                if asyncio.get_running_loop().time() + wait > give_up:
                    raise
                logger.warning("%s; trying again", error.message)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _already_taken(self) -> list[Entry]:
        found = await self._ledger.entries(self.fence.tenant, self.fence.pipeline_id, after=self.board.seq)
        return [entry for entry in found if entry.attempt == self.fence.attempt]

    async def catch_up(self) -> None:
        """Fold what others appended from outside, such as the stop that ended this attempt."""
        async with self._lock:
            entries = await self._ledger.entries(self.fence.tenant, self.fence.pipeline_id, after=self.board.seq)
            for entry in entries:
                apply(self.board, entry)
            self._live.poster.post(entries)

    async def changed(self, after: int, until: Micros | None = None) -> None:
        while self.board.seq <= after:
            news = self._news
            try:
                async with asyncio.timeout(None if until is None else max(0.0, (until - self.now()) / SECOND)):
                    await news.wait()
            except TimeoutError:
                return

    def model_for(self, role: Role) -> str:
        return model_of(self.board, role)

    def compose(self, agent: Agent, phase: Phase, offer: Offer, trigger: Trigger | None) -> str:
        return prompts.prompt(self.board, agent, phase, offer, trigger)

    async def ready(self) -> None:
        round_ = self.board.round
        mode = round_.mode if round_ else str(self.board.spec["mode"])
        rehearsal = round_.rehearsal if round_ else bool(self.board.spec["rehearsal"])
        self._asked = await self.open_gateway(mode, rehearsal)
        await self._asked.learn_prices()

    def needs(self, agent: Agent, prompt: str, offer: Offer) -> Sequence[Need]:
        question = self._question(agent, prompt, offer)
        input_tokens = sum(tokens_in(message["content"]) for message in messages_for(question))

        def need(*models: str) -> Need:
            return Need(
                models=models,
                input_tokens=input_tokens,
                answer_tokens=self._answer_tokens,
                price=self._price(models, input_tokens),
            )

        spare = [model for model in self._fallback_models if model != agent.model]
        own = need(agent.model, *spare)
        return [own, *cheaper(own, [need(model) for model in (agent.model, *spare)])]

    def _question(self, agent: Agent, prompt: str, offer: Offer) -> Question:
        return Question(
            model=agent.model,
            system=prompts.part(agent.role),
            prompt=prompt,
            schema=turn_schema(offer),
            schema_name="turn",
            max_tokens=self._answer_tokens,
        )

    def _price(self, models: Sequence[str], input_tokens: int) -> Price | None:
        """The highest price among models, any of which may answer."""
        known = [price for model in models if self._asked and (price := self._asked.price(model))]
        return max(known, key=lambda price: price.of(input_tokens, self._answer_tokens), default=None)

    async def ask(self, agent: Agent, turn: OpenTurn, prompt: str, offer: Offer) -> Answer:
        assert self._asked is not None
        question = replace(
            self._question(agent, prompt, offer),
            model=turn.models[0],
            fallback_models=turn.models[1:],
            max_tokens=turn.max_tokens,
            most_tokens=self._tokens_left(agent.agent_id),
            most_nanousd=self._nanousd_left(turn),
            price=self._price(turn.models, 0),
        )
        calls = self._calls[turn.turn] = []
        raw = ""
        stream = TextStream(lambda offset, text: self._delta(turn, offset, text))

        def on_text(so_far: str) -> None:
            nonlocal raw
            raw = so_far
            stream.update(so_far)

        reply: Reply[tuple[Action, ...] | Violation] = await self._asked.complete(
            question, read=lambda value: _read(value, offer), on_text=on_text, spent=calls
        )
        stream.finish(raw)
        spent = _spent(reply.usage, repaired=reply.repaired)
        settled = self._charged(turn, reply.usage)
        if isinstance(reply.value, Violation):
            return Answer(error=reply.value, spent=spent, settled=settled)
        return Answer(actions=reply.value or (), error=reply.error, spent=spent, settled=settled)

    def cut_off(self, turn: OpenTurn) -> Answer:
        usage = sum(self._calls[turn.turn], Usage(model=turn.models[0]))
        spent = _spent(usage, repaired=False)
        if usage.calls == usage.broken_calls:
            spent["usage"] = None  # unknown, not guessed
        return Answer(spent=spent, settled=self._charged(turn, usage))

    def _tokens_left(self, agent_id: str) -> int | None:
        """What an agent's present turn may take at most, its repair and retries included."""
        limit = self.board.mandates[agent_id].tokens
        return None if limit is None else limit - self.board.spending_of(agent_id).spent.tokens

    def _nanousd_left(self, turn: OpenTurn) -> int | None:
        """What a turn may take at most: what the pipeline has neither spent nor reserved for other turns."""
        limit, in_all = self.board.max_nanousd, self.board.spending_in_all()
        return None if limit is None else limit - (in_all.spent + in_all.reserved - turn.reserved).nanousd

    def _charged(self, turn: OpenTurn, usage: Usage) -> Settlement:
        return charged(turn.reserved, usage, self._price((usage.model,), 0) or self._price(turn.models, 0))

    def _delta(self, turn: OpenTurn, offset: int, text: str) -> None:
        delta = Delta(turn=turn.turn, agent_id=turn.agent_id, offset=offset, text=text)
        self._live.poster.delta(self.fence.tenant, self.fence.pipeline_id, delta)


def _look_at(appending: "asyncio.Future[None]") -> None:
    """Nobody waits any more for an append whose caller was cancelled; only its failure is worth a line."""
    if not appending.cancelled() and (error := appending.exception()) and not isinstance(error, Fenced):
        logger.warning("an append after a cancellation failed: %s", error)


def _read(value: object, offer: Offer) -> tuple[Action, ...] | Violation:
    """A violation is an answer, not a mistake to be mended: no repair turn may hide it."""
    try:
        return read_turn(value, offer)
    except Violation as violation:
        return violation


def _spent(usage: Usage, *, repaired: bool) -> dict[str, object]:
    return {
        "model": usage.model,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "estimated": usage.estimated,
        },
        "cost_nanousd": usage.cost_nanousd,
        "calls": usage.calls,
        "repaired": repaired,
    }
