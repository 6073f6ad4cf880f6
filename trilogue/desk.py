"""What people do with pipelines: spawn, continue, stop, resume, go on from a checkpoint. Each as somebody, who may,
within a tenant, and on record in its audit."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from trilogue import clock
from trilogue.agent import Role
from trilogue.board import Board, fold
from trilogue.entry import Draft
from trilogue.errors import Conflict, NotFound
from trilogue.gateways import AROUND
from trilogue.identity import Access, Caller, Right
from trilogue.interventions import (
    check_continuable,
    check_resumable,
    check_rewindable,
    resumed,
    rewound,
    round_begun,
)
from trilogue.ledger import PipelineRow
from trilogue.ledger.identities import By, Deed
from trilogue.ledger.opening import TENANT
from trilogue.ledger.rows import named_checkpoint
from trilogue.ledger.stopping import stop
from trilogue.limits import Limits
from trilogue.models.modes import Choice, choose
from trilogue.phases import model_of, spawned
from trilogue.pipeline import Status, new_pipeline_id
from trilogue.services import Services
from trilogue.spec import PipelineSpec, RoundSpec
from trilogue.webhooks import settled_receiver


def local(services: Services, *, tenant: str = TENANT, actor: str | None = None) -> "Desk":
    """The desk of whoever has the installation to himself: a terminal, a flow run, the open server on loopback."""
    caller = Caller(tenant=tenant, access=Access.ADMIN)
    return Desk(services, caller, by=By(actor=actor or caller.actor))


class Desk:
    """One caller's.

    Every method raises `Denied` where the caller may not, and `NotFound` for what is not within its reach.
    """

    def __init__(self, services: Services, caller: Caller, *, by: By) -> None:
        self.caller = caller
        self._services = services
        self._by = by

    @property
    def tenant(self) -> str:
        return self.caller.tenant

    async def pipeline(self, pipeline_id: str) -> PipelineRow:
        """A pipeline as recorded."""
        self.caller.require(Right.READ)
        row = await self._services.ledger.get_pipeline(self.tenant, pipeline_id)
        if not self.caller.covers(row.project):
            raise NotFound(f"no pipeline {pipeline_id!r}", code="no_pipeline")
        return row

    async def board(self, pipeline_id: str) -> Board:
        """A pipeline's board as recorded."""
        await self.pipeline(pipeline_id)
        return fold(await self._services.ledger.entries(self.tenant, pipeline_id))

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
        pipeline_id = pipeline_id or new_pipeline_id()
        async with self._on_record("pipeline.spawn", pipeline_id, project=spec.project) as deed:
            if not self.caller.covers(spec.project):
                raise NotFound(f"no project {spec.project!r}", code="no_project")
            settings = self._services.settings
            choice = choose(settings, mode=spec.mode, model=spec.model, may_rehearse=may_rehearse)
            drafts = spawned(
                spec,
                mode=choice.mode,
                rehearsal=choice.rehearsal,
                model=choice.model or "",
                timeout=spec.timeout or settings.orchestration_timeout,
                agent_timeout=spec.agent_timeout or settings.agent_timeout,
                limits=Limits.from_settings(settings),
                webhook=settled_receiver(spec.webhook, settings),
            )
            entries = await self._services.ledger.spawn(
                self.tenant, pipeline_id, drafts, at=clock.now(), queued=queued, deed=deed
            )
        self._services.live.poster.post(entries)
        return pipeline_id

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
        async with self._on_record("pipeline.continue", pipeline_id, reason=asked.reason) as deed:
            board = await self.board(pipeline_id)
            check_continuable(board)
            choice = self._next_choice(board, asked)
            kept = {} if asked.mode or asked.model else {role: model_of(board, role) for role in Role}
            async with self._services.gateways.opening(seconds=AROUND, meta={"pipeline": pipeline_id}) as opener:
                models = await self._services.served_models(opener, choice, kept)
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
                deed=deed,
            )

    async def resume(self, pipeline_id: str, asked: RoundSpec, *, queued: bool = False) -> None:
        """Take a FAILED or STOPPED pipeline back into the phase it was in, with the reason and limits to raise.

        Raises:
            NotFound: no such pipeline.
            Conflict: it did not end so, no reason is given for a stopped one, or somebody works on it.
        """
        async with self._on_record("pipeline.resume", pipeline_id, reason=asked.reason) as deed:
            board = await self.board(pipeline_id)
            models = {role: model_of(board, role) for role in Role}
            await self._append_outside(
                pipeline_id, board, lambda: resumed(board, clock.now(), models, asked), queued=queued, deed=deed
            )

    async def take_up_again(self, pipeline_id: str, asked: RoundSpec) -> None:
        """Have any worker go on with a pipeline that failed, was stopped (`resume`) or was interrupted.

        Raises:
            NotFound: no such pipeline.
            Conflict: as `resume`; or somebody works on it.
        """
        row = await self.pipeline(pipeline_id)
        if row.status.ended:
            await self.resume(pipeline_id, asked, queued=True)
            return
        async with self._on_record("pipeline.resume", pipeline_id, reason=asked.reason) as deed:
            await self._services.ledger.queue(self.tenant, pipeline_id)
            await self._services.ledger.audit.append(self.tenant, deed)

    async def go_on_from(self, pipeline_id: str, checkpoint: str, reason: str) -> None:
        """Have any worker go on from a checkpoint, given by its name or its `seq`, whatever the pipeline was there.

        Raises:
            NotFound: no such pipeline or checkpoint.
            Conflict: as `rewind`; or it was stopped there, and no reason is given.
            Invalid, Denied, Unavailable, Exhausted, EndpointFault: as `begin_round`; it is back at the checkpoint.
        """
        board = await self.board(pipeline_id)
        chosen = named_checkpoint(await self._services.ledger.checkpoints(self.tenant, pipeline_id), checkpoint)
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
        detail = {"checkpoint": checkpoint, "to_seq": to_seq, "reason": reason}
        async with self._on_record("pipeline.rewind", pipeline_id, **detail) as deed:
            board = await self.board(pipeline_id)
            await self._append_outside(
                pipeline_id, board, lambda: rewound(board, to_seq, checkpoint, reason), queued=queued, deed=deed
            )
        return await self.board(pipeline_id)

    async def stop(self, pipeline_id: str, reason: str) -> None:
        """The emergency stop: from its commit on the ledger takes nothing from agents.

        Raises:
            NotFound: no such pipeline.
            IllegalTransition: it has ended already.
        """
        async with self._on_record("pipeline.stop", pipeline_id, reason=reason):
            if self.caller.project is not None:
                await self.pipeline(pipeline_id)
        entries = await stop(self._services.ledger, self.tenant, pipeline_id, reason, by=self._by)
        self._services.live.poster.post(entries)

    @asynccontextmanager
    async def _on_record(self, action: str, about: str, **detail: Any) -> AsyncIterator[Deed]:
        """The deed, to be recorded with what it changes; where it comes to nothing, that is recorded here."""
        deed = Deed(by=self._by, action=action, object=about, detail=detail)
        try:
            self.caller.require(Right.OPERATE)
            yield deed
        except Exception as error:
            with contextlib.suppress(Exception):  # the first error is the one that is told
                await self._services.ledger.audit.refused(self.tenant, deed, error)
            raise

    async def _append_outside(
        self,
        pipeline_id: str,
        board: Board,
        build: Callable[[], list[Draft]],
        *,
        queued: bool,
        deed: Deed,
    ) -> None:
        """Append what was built on `board`, unless the pipeline has gone on from it meanwhile."""

        def decide(row: PipelineRow) -> list[Draft]:
            if row.leased or row.head_seq != board.seq:
                raise Conflict(f"pipeline {pipeline_id!r} is being worked on; try again when it stands still")
            return build()

        entries = await self._services.ledger.append_outside(
            self.tenant, pipeline_id, decide, at=clock.now(), queued=queued, begins=True, deed=deed
        )
        self._services.live.poster.post(entries)

    def _next_choice(self, board: Board, asked: RoundSpec) -> Choice:
        last: Any = board.round
        mode = last.mode if last else board.spec["mode"]
        rehearsal = last.rehearsal if last else board.spec["rehearsal"]
        if asked.mode is None and asked.model is None:
            return Choice(mode=mode, rehearsal=rehearsal, model=model_of(board, Role.ALPHA))
        model = asked.model or (model_of(board, Role.ALPHA) if asked.mode == mode else None)
        return choose(self._services.settings, mode=asked.mode or mode, model=model, may_rehearse=False)
