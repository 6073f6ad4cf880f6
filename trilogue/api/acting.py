"""Routes that change something: spawn, continue, stop, resume, rewind. Workers carry out what they queue."""

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from trilogue.api.answers import ACTING, SPAWNING, router
from trilogue.api.bodies import SpawnRoute
from trilogue.api.context import Announce, AtDesk, Use
from trilogue.api.documents import Accepted, StopDone
from trilogue.api.errors import answer_for
from trilogue.api.repeating import once
from trilogue.api.requests import Continue, IdempotencyKey, PipelineInPath, Resume, Rewind, Spawn, Stop, known
from trilogue.clock import iso
from trilogue.errors import Conflict
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.spec import PipelineSpec

spawning = router("pipelines", route_class=SpawnRoute)
routes = router("pipelines")


@spawning.post("/spawn", status_code=202, response_model=Accepted, responses=SPAWNING)
async def spawn(
    body: Spawn,
    request: Request,
    services: Use,
    desk: AtDesk,
    tickets: Announce,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Record a new pipeline; the next free worker carries it.

    It goes on from REPORT by itself unless `auto_continue` is false.
    """

    async def act(plan: str) -> BaseModel:
        spec = PipelineSpec(**{name: getattr(body, name) for name in body.model_fields_set})
        try:
            await desk.spawn(spec, may_rehearse=request.app.state.may_rehearse, pipeline_id=plan, queued=True)
        except Conflict as conflict:
            if conflict.code != "exists":
                raise
            # This very request recorded it before, and its process died on the way to the answer.
        tickets.send()
        return Accepted(pipeline_id=plan, status=Status.SPAWNED)

    try:
        return await once(services, request, idempotency_key, body, act)
    except Conflict as conflict:
        if conflict.code != "external_id_taken" or body.external_id is None:
            raise
        owner = await services.ledger.find_by_external_id(TENANT, body.external_id)
        return answer_for(request, conflict, pipeline_id=owner)


@routes.post("/pipeline/continue", status_code=202, response_model=Accepted, responses=ACTING, name="continue")
async def continue_(
    body: Continue,
    request: Request,
    services: Use,
    desk: AtDesk,
    tickets: Announce,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Begin a round: of a pipeline that is held at REPORT, or after TIMEOUT, ORCHESTRATION_FAILED or _ERROR."""
    pipeline_id = known(body.pipeline_id)

    async def act(_: str) -> BaseModel:
        await desk.begin_round(pipeline_id, body.round, queued=True)
        tickets.send()
        return await _accepted(services, pipeline_id)

    return await once(services, request, idempotency_key, body, act)


@routes.post("/pipeline/{pipeline_id}/stop", response_model=StopDone, responses=ACTING)
async def stop(
    pipeline_id: PipelineInPath,
    request: Request,
    services: Use,
    desk: AtDesk,
    body: Stop | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The emergency stop: from this commit on the ledger takes nothing from the pipeline's agents."""
    known(pipeline_id)
    asked = body or Stop()

    async def act(_: str) -> BaseModel:
        await desk.stop(pipeline_id, asked.reason)
        row = await services.ledger.get_pipeline(TENANT, pipeline_id)
        at = iso(row.stop_requested_at or row.updated_at)
        return StopDone(
            pipeline_id=pipeline_id, status=row.status, reason=asked.reason, seq=row.head_seq, stopped_at=at
        )

    return await once(services, request, idempotency_key, asked, act, status=200)


@routes.post("/pipeline/{pipeline_id}/resume", status_code=202, response_model=Accepted, responses=ACTING)
async def resume(
    pipeline_id: PipelineInPath,
    request: Request,
    services: Use,
    desk: AtDesk,
    tickets: Announce,
    body: Resume | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Take a pipeline up again where it was: one that failed, was stopped (with a reason), or was interrupted."""
    known(pipeline_id)
    asked = body or Resume()

    async def act(_: str) -> BaseModel:
        await desk.take_up_again(pipeline_id, asked.round)
        tickets.send()
        return await _accepted(services, pipeline_id)

    return await once(services, request, idempotency_key, asked, act)


@routes.post("/pipeline/{pipeline_id}/rewind", status_code=202, response_model=Accepted, responses=ACTING)
async def rewind(
    pipeline_id: PipelineInPath,
    body: Rewind,
    request: Request,
    services: Use,
    desk: AtDesk,
    tickets: Announce,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Go on from a checkpoint: what came after it is undone, except what it cost."""
    known(pipeline_id)

    async def act(_: str) -> BaseModel:
        await desk.go_on_from(pipeline_id, body.checkpoint, body.reason)
        tickets.send()
        return await _accepted(services, pipeline_id)

    return await once(services, request, idempotency_key, body, act)


async def _accepted(services: Services, pipeline_id: str) -> Accepted:
    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    return Accepted(pipeline_id=pipeline_id, status=row.status)
