"""The only place where parts are wired together, from plain values.

`Services` are those of one process and one event loop: one ledger, one Redis client, one
gateway a mode, one loop that renews leases. Where nothing is configured it brings the
embedded ones.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from trilogue import clock, embedded
from trilogue.agent import Role
from trilogue.attempt import Attempt
from trilogue.board import Board, fold
from trilogue.deliberation.room import Rules
from trilogue.deliberation.turns import lost_turns
from trilogue.entry import Draft, Entry
from trilogue.errors import Conflict, Invalid, NotFound
from trilogue.gateways import AROUND, Gateways, OpenGateway, attempt_seconds
from trilogue.governance.mandates import missing
from trilogue.holding import Holds
from trilogue.interventions import (
    check_continuable,
    check_resumable,
    check_rewindable,
    resumed,
    rewound,
    round_begun,
)
from trilogue.ledger import Claim, Ledger, PipelineRow
from trilogue.ledger.opening import TENANT, open_ledger
from trilogue.ledger.rows import named_checkpoint
from trilogue.ledger.stopping import stop
from trilogue.limits import Limits, nanousd_of
from trilogue.live import BreakerState, Live
from trilogue.mediation import Thresholds
from trilogue.models.modes import Choice, choose
from trilogue.phases import model_of, spawned
from trilogue.pipeline import Status, new_pipeline_id
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.vault import DRAGONFLY_PASSWORD, Vault
from trilogue.settings import Settings
from trilogue.spec import PipelineSpec, RoundSpec
from trilogue.webhooks import settled_receiver


class Services:
    """What a process needs to carry pipelines; made by `open_services`."""

    def __init__(self, *, settings: Settings, ledger: Ledger, live: Live) -> None:
        self.settings = settings
        self.ledger = ledger
        self.live = live
        self.holds = Holds(ledger, lease_seconds=settings.lease_seconds)
        live.poster.may_stream = self.holds.may_stream
        self.gateways = Gateways(settings, live)
        self.taking_up: set[str] = set()  # orphans that are about to be carried here: one try at a time is enough

    async def models_for(self, attempt: Attempt) -> dict[Role, str]:
        """The model of each role for a pipeline's first phases: the role's own, else the pipeline's, else served.

        Asks the endpoint whether it can be used at all, so that a wrong key or address is known
        before any agent works.

        Raises:
            Invalid, Denied, NotFound, Unavailable, Exhausted, EndpointFault: it cannot.
        """
        spec = attempt.board.spec
        choice = Choice(mode=spec["mode"], rehearsal=spec["rehearsal"], model=spec["model"] or None)
        named = {Role(role): model for role, model in spec["models"].items()}
        return await self._models(attempt.open_gateway, choice, named)

    async def _models(self, opener: OpenGateway, choice: Choice, named: Mapping[Role, str]) -> dict[Role, str]:
        served = await (await opener(choice.mode, choice.rehearsal)).probe()
        model = choice.model or next(iter(served), None)
        if model is None:
            raise Invalid(
                f"{self.settings.local_model_url!r} serves no model; load one there, or name one with --model",
                code="no_model_served",
            )
        return {role: named.get(role, model) for role in Role}

    async def begin_round(self, pipeline_id: str, asked: RoundSpec, *, queued: bool = False) -> None:
        """Begin another round from outside, as asked; what is not asked for stays as in the last one.

        Args:
            queued: any worker is to draw it; else the caller carries it.

        Raises:
            NotFound: no such pipeline.
            Conflict: it is not where a round can begin, or somebody works on it.
            Invalid, Denied, Unavailable, Exhausted, EndpointFault: the round's models cannot be used; nothing
                was changed.
        """
        board = await self.board(pipeline_id)
        check_continuable(board)
        choice = self._next_choice(board, asked)
        kept = {} if asked.mode or asked.model else {role: model_of(board, role) for role in Role}
        async with self.gateways.opening(seconds=AROUND, meta={"pipeline": pipeline_id}) as opener:
            models = await self._models(opener, choice, kept)
        await self._append_outside(
            pipeline_id,
            board,
            lambda: round_begun(
                board,
                clock.now(),
                models,
                asked=asked,
                mode=choice.mode,
                rehearsal=choice.rehearsal,
                timeout=asked.timeout or (board.round.timeout if board.round else board.spec["timeout"]),
            ),
            queued=queued,
        )

    async def resume(self, pipeline_id: str, asked: RoundSpec, *, queued: bool = False) -> None:
        """Take a FAILED or STOPPED pipeline back into the phase it was in, with the reason and limits to raise.

        Raises:
            NotFound: no such pipeline.
            Conflict: it did not end so, no reason is given for a stopped one, or somebody works on it.
        """
        board = await self.board(pipeline_id)
        models = {role: model_of(board, role) for role in Role}
        await self._append_outside(
            pipeline_id, board, lambda: resumed(board, clock.now(), models, asked), queued=queued
        )

    async def take_up_again(self, pipeline_id: str, asked: RoundSpec) -> None:
        """Have any worker go on with a pipeline that failed, was stopped (`resume`) or was interrupted.

        Raises:
            NotFound: no such pipeline.
            Conflict: as `resume`; or somebody works on it.
        """
        row = await self.ledger.get_pipeline(TENANT, pipeline_id)
        if row.status.ended:
            await self.resume(pipeline_id, asked, queued=True)
        else:
            await self.ledger.queue(TENANT, pipeline_id)

    async def go_on_from(self, pipeline_id: str, checkpoint: str, reason: str) -> None:
        """Have any worker go on from a checkpoint, given by its name or its `seq`, whatever the pipeline was there.

        Raises:
            NotFound: no such pipeline or checkpoint.
            Conflict: as `rewind`; or it was stopped there, and no reason is given.
            Invalid, Denied, Unavailable, Exhausted, EndpointFault: as `begin_round`; it is back at the checkpoint.
        """
        board = await self.board(pipeline_id)
        chosen = named_checkpoint(await self.ledger.checkpoints(TENANT, pipeline_id), checkpoint)
        check_rewindable(board, chosen.to_seq)
        former = board.snapshots[chosen.to_seq]
        if former.status in {Status.FAILED, Status.STOPPED}:
            check_resumable(former, reason)
        await self.rewind(pipeline_id, chosen.to_seq, chosen.name, reason, queued=not former.status.ended)
        if former.status in {Status.FAILED, Status.STOPPED}:
            await self.resume(pipeline_id, RoundSpec(reason=reason), queued=True)
        elif former.status.ended:
            await self.begin_round(pipeline_id, RoundSpec(reason=reason), queued=True)

    async def rewind(
        self, pipeline_id: str, to_seq: int, checkpoint: str, reason: str, *, queued: bool = False
    ) -> Board:
        """Take a pipeline back to its checkpoint at `to_seq`; returns the board, which may be an ended one.

        Raises:
            NotFound: no such pipeline or checkpoint.
            Conflict: it has completed, or somebody works on it.
        """
        board = await self.board(pipeline_id)
        await self._append_outside(
            pipeline_id, board, lambda: rewound(board, to_seq, checkpoint, reason), queued=queued
        )
        return await self.board(pipeline_id)

    async def _append_outside(
        self, pipeline_id: str, board: Board, build: Callable[[], list[Draft]], *, queued: bool = False
    ) -> None:
        """Append what was built on `board`, unless the pipeline has gone on from it meanwhile."""

        def decide(row: PipelineRow) -> list[Draft]:
            if row.leased or row.head_seq != board.seq:
                raise Conflict(f"pipeline {pipeline_id!r} is being worked on; try again when it stands still")
            return build()

        self.live.poster.post(
            await self.ledger.append_outside(TENANT, pipeline_id, decide, at=clock.now(), queued=queued)
        )

    def _next_choice(self, board: Board, asked: RoundSpec) -> Choice:
        last: Any = board.round
        mode = last.mode if last else board.spec["mode"]
        rehearsal = last.rehearsal if last else board.spec["rehearsal"]
        if asked.mode is None and asked.model is None:
            return Choice(mode=mode, rehearsal=rehearsal, model=model_of(board, Role.ALPHA))
        model = asked.model or (model_of(board, Role.ALPHA) if asked.mode == mode else None)
        return choose(self.settings, mode=asked.mode or mode, model=model, may_rehearse=False)

    async def spawn(
        self, spec: PipelineSpec, *, may_rehearse: bool, pipeline_id: str | None = None, queued: bool = False
    ) -> str:
        """Record a new pipeline and return its id.

        Args:
            queued: any worker is to draw it; else the caller carries it.

        Raises:
            Invalid: mode and model do not go together, or nothing says which model to use; a webhook that
                may not or cannot be sent.
            Conflict: the id or external id is taken.
        """
        choice = choose(self.settings, mode=spec.mode, model=spec.model, may_rehearse=may_rehearse)
        drafts = spawned(
            spec,
            mode=choice.mode,
            rehearsal=choice.rehearsal,
            model=choice.model or "",
            timeout=spec.timeout or self.settings.orchestration_timeout,
            agent_timeout=spec.agent_timeout or self.settings.agent_timeout,
            limits=Limits.from_settings(self.settings),
            webhook=settled_receiver(spec.webhook, self.settings),
        )
        pipeline_id = pipeline_id or new_pipeline_id()
        self.live.poster.post(await self.ledger.spawn(TENANT, pipeline_id, drafts, at=clock.now(), queued=queued))
        return pipeline_id

    async def board(self, pipeline_id: str) -> Board:
        """The board as recorded. Raises `NotFound` for an unknown id."""
        await self.ledger.get_pipeline(TENANT, pipeline_id)
        return fold(await self.ledger.entries(TENANT, pipeline_id))

    @asynccontextmanager
    async def attempt(self, pipeline_id: str, *, flow_run_id: str | None) -> AsyncIterator[Attempt]:
        """Take a pipeline's lease and go on from its entries; on leaving, give the lease back.

        Raises:
            NotFound: no such pipeline.
            Conflict: somebody else works on it, or it has ended.
            Fenced: on the way: it was stopped, or another attempt has taken it up.
        """
        async with (
            self.holds.taken(TENANT, pipeline_id, flow_run_id=flow_run_id) as hold,
            contextlib.AsyncExitStack() as work,
        ):
            try:
                yield await self._taken_up(hold.claim, work)
            finally:
                hold.ended()  # what follows tidies up
            if hold.lost:
                raise hold.lost
            await self.live.poster.flush(timeout=2.0)

    async def orphans(self, limit: int) -> list[PipelineRow]:
        """Pipelines that any worker may take up. One that was just let go is still its user's: for a lease's length."""
        return await self.ledger.orphans(let_go_seconds=self.settings.lease_seconds, limit=limit)

    async def _taken_up(self, claim: Claim, work: contextlib.AsyncExitStack) -> Attempt:
        fence = claim.fence
        board = fold(await self.ledger.entries(fence.tenant, fence.pipeline_id))
        meta = {"pipeline": fence.pipeline_id, "attempt": str(fence.attempt)}
        opener = await work.enter_async_context(self.gateways.opening(seconds=attempt_seconds(board), meta=meta))
        attempt = Attempt(
            claim=claim,
            board=board,
            rules=self._rules(claim.pipeline.spec),
            ledger=self.ledger,
            live=self.live,
            open_gateway=opener,
            answer_tokens=self.settings.answer_tokens,
            fallback_models=self.settings.fallbacks,
        )
        await attempt.append(lambda board: [*lost_turns(board), *missing(board, attempt.now())])
        return attempt

    def _rules(self, spec: Mapping[str, object]) -> Rules:
        settings = self.settings
        return Rules(
            thresholds=Thresholds(
                stuck=settings.stuck_threshold,
                conflict=settings.conflict_threshold,
                complexity=settings.complexity_threshold,
                turn_limit=settings.turn_limit,
            ),
            agent_timeout=float(str(spec["agent_timeout"])),
        )

    async def stop(self, pipeline_id: str, reason: str) -> None:
        """The emergency stop: from its commit on the ledger takes nothing from agents.

        Raises:
            NotFound: no such pipeline.
            IllegalTransition: it has ended already.
        """
        self.live.poster.post(await stop(self.ledger, TENANT, pipeline_id, reason))

    def endpoint_of(self, mode: str, rehearsal: bool) -> str | None:
        """The model endpoint that rounds of a mode call, as its circuit breaker knows it; None without a breaker."""
        return self.gateways.endpoint_of(mode, rehearsal)

    async def breakers(self, endpoints: Collection[str]) -> Mapping[str, BreakerState | None]:
        """How the circuit breakers of `endpoints` stand; None while nobody can tell (`Live.breakers`)."""
        settings = self.settings
        return await self.live.breakers(
            endpoints, failures=settings.breaker_failures, open_seconds=settings.breaker_seconds
        )

    async def close(self) -> None:
        await self.gateways.close()


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services of this process, closed in order on leaving.

    Raises:
        Invalid, Unavailable, RevisionMismatch, Denied, NotFound: what is configured cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        ledger = await open_ledger(settings)
        stack.push_async_callback(ledger.close)
        url, password = await _redis(settings, stack)

        async def backfill(tenant: str, pipeline_id: str, after: int) -> list[Entry]:
            return await ledger.entries(tenant, pipeline_id, after=after)

        live = Live(url, password=password, board_ttl=settings.board_ttl, backfill=backfill)
        await stack.enter_async_context(live)
        await _limit_tenant(ledger, settings)
        services = Services(settings=settings, ledger=ledger, live=live)
        stack.push_async_callback(services.close)
        renewing = asyncio.create_task(services.holds.renew())
        watching = asyncio.create_task(services.holds.watch())
        stack.callback(renewing.cancel)
        stack.callback(watching.cancel)
        yield services


async def _limit_tenant(ledger: Ledger, settings: Settings) -> None:
    """What all pipelines together may spend, where the settings say so; `none` lifts a limit.

    A process that says nothing leaves it alone: a terminal without the variable is no way around it.
    """
    tokens, cost = settings.tenant_max_tokens, settings.tenant_max_cost
    if tokens is None and cost is None:
        return
    rows = await ledger.budgets(TENANT, "")
    present = (rows[0].tokens_limit, rows[0].nanousd_limit) if rows else (None, None)
    wanted = (
        present[0] if tokens is None else None if tokens == "none" else tokens,
        present[1] if cost is None else None if cost == "none" else nanousd_of(cost),
    )
    if wanted != present:
        await ledger.limit_tenant(TENANT, tokens=wanted[0], nanousd=wanted[1])


async def _redis(settings: Settings, stack: contextlib.AsyncExitStack) -> tuple[str, SecretStr | None]:
    """Address and password of Redis: as configured, with the password from Vault where it has none; else embedded."""
    if settings.redis_url is None:
        using = embedded.serving(settings.home, prefect=False)
        servers = await asyncio.to_thread(using.__enter__)
        stack.callback(using.__exit__, None, None, None)
        assert servers.redis_url is not None
        return servers.redis_url, None
    url = settings.redis_url.get_secret_value()
    if _has_password(url) or not (access := VaultAccess.from_settings(settings)):
        return url, None
    try:
        async with Vault(access) as vault:
            return url, await vault.read(*DRAGONFLY_PASSWORD)
    except NotFound:
        return url, None  # a Redis without a password needs none in Vault


def _has_password(url: str) -> bool:
    return "@" in url.partition("://")[2].partition("/")[0]
