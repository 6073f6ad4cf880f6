"""The only place where parts are wired together, from plain values.

`Services` are those of one process and one event loop: one ledger, one Redis client, one
gateway a mode, one loop that renews leases. Where nothing is configured it brings the
embedded ones.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from pydantic import SecretStr

from trilogue import embedded
from trilogue.agent import Role
from trilogue.attempt import Attempt
from trilogue.board import fold
from trilogue.deliberation.room import Rules
from trilogue.deliberation.turns import lost_turns
from trilogue.entry import Entry
from trilogue.errors import Invalid, NotFound
from trilogue.gateways import Gateways, OpenGateway, attempt_seconds
from trilogue.governance.mandates import missing
from trilogue.holding import Holds
from trilogue.ledger import Claim, Ledger, PipelineRow
from trilogue.ledger.opening import TENANT, open_ledger
from trilogue.limits import nanousd_of
from trilogue.live import BreakerState, Live
from trilogue.mediation import Thresholds
from trilogue.models.modes import Choice
from trilogue.secrets.access import VaultAccess
from trilogue.secrets.vault import DRAGONFLY_PASSWORD, Vault
from trilogue.settings import Settings


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
        return await self.served_models(attempt.open_gateway, choice, named)

    async def served_models(self, opener: OpenGateway, choice: Choice, named: Mapping[Role, str]) -> dict[Role, str]:
        """The model of each role under `choice`: the role's own in `named`, else the one chosen, else the one served.

        Raises as `models_for`.
        """
        served = await (await opener(choice.mode, choice.rehearsal)).probe()
        model = choice.model or next(iter(served), None)
        if model is None:
            raise Invalid(
                f"{self.settings.local_model_url!r} serves no model; load one there, or name one with --model",
                code="no_model_served",
            )
        return {role: named.get(role, model) for role in Role}

    @asynccontextmanager
    async def attempt(self, tenant: str, pipeline_id: str, *, flow_run_id: str | None) -> AsyncIterator[Attempt]:
        """Take a pipeline's lease and go on from its entries; on leaving, give the lease back.

        Raises:
            NotFound: no such pipeline.
            Conflict: somebody else works on it, or it has ended.
            Fenced: on the way: it was stopped, or another attempt has taken it up.
        """
        async with (
            self.holds.taken(tenant, pipeline_id, flow_run_id=flow_run_id) as hold,
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
