"""Requests that come again under their `Idempotency-Key` are carried out once (`ledger.idempotency`)."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from trilogue.api.errors import answer_for, request_id
from trilogue.errors import Conflict, TrilogueError, Unavailable
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import new_pipeline_id
from trilogue.services import Services
from trilogue.spec import digest

logger = logging.getLogger(__name__)

_ASK_AGAIN = {"Retry-After": "1"}


async def once(
    services: Services,
    request: Request,
    key: str | None,
    asked: BaseModel,
    act: Callable[[str], Awaitable[BaseModel]],
    *,
    status: int = 202,
) -> Response:
    """The answer to a request that changes something: `act`'s, or the one that the same request had before.

    Args:
        act: is given the id for what it makes; the same one when it goes on with what another process began.
            An error means that nothing was changed, unless it is `Unavailable` or unexpected.

    Raises:
        Invalid: the key was used for another request.
    """
    if key is None:
        return _answer(status, (await act(new_pipeline_id())).model_dump_json())
    ledger = services.ledger
    same = digest(f"{request.method} {request.url.path}\n{asked.model_dump_json()}")
    try:
        known = await ledger.begin_request(TENANT, key, same, plan=new_pipeline_id())
    except Conflict as conflict:
        answer = answer_for(request, conflict)
        answer.headers.update(_ASK_AGAIN)
        return answer
    if known.status is not None:
        return _answer(known.status, known.body, replayed=True)
    try:
        body = (await act(known.plan)).model_dump_json()
    except BaseException as error:
        refused = isinstance(error, TrilogueError) and not isinstance(error, Unavailable)
        settle = ledger.forget_request if refused else ledger.give_request_up
        with contextlib.suppress(TrilogueError):  # out of reach: it counts as given up after a while
            await asyncio.shield(settle(TENANT, key))
        raise
    try:
        await ledger.answer_request(TENANT, key, status, body)
    except TrilogueError as error:
        logger.warning("request %s: its answer was not kept: %s", request_id(request), error.message)
    return _answer(status, body)


def _answer(status: int, body: str, *, replayed: bool = False) -> Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else None
    return Response(body, status, headers, media_type="application/json")
