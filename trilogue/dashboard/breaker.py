"""How the circuit breaker stands that holds a pipeline's model calls up, or lets them go."""

from dataclasses import dataclass
from typing import Literal

from trilogue import clock
from trilogue.board import Board
from trilogue.clock import SECOND, Micros, seconds
from trilogue.services import Services


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """The breaker of a round's endpoint.

    Attributes:
        state: `closed`: calls go; `open`: none goes; `trial`: one is under way, the others wait for how it ends.
        retry_at: when a call may go again, in whole seconds, so that it is the same whenever it is asked for; None
            where the next one may.
        failures: in a row.
    """

    state: Literal["closed", "open", "trial"]
    retry_at: Micros | None
    failures: int


async def breaker_of(services: Services, board: Board) -> Breaker | None:
    """The breaker of the present round's endpoint; None where there is none, or nobody can tell."""
    if board.round:
        mode, rehearsal = board.round.mode, board.round.rehearsal
    elif board.spec:
        mode, rehearsal = board.spec["mode"], board.spec["rehearsal"]
    else:
        return None
    endpoint = services.endpoint_of(mode, rehearsal)
    if endpoint is None:
        return None
    read = (await services.breakers([endpoint]))[endpoint]
    if read is None:
        return None
    retry_at = -(-(clock.now() + seconds(read.retry_in)) // SECOND) * SECOND if read.retry_in else None
    return Breaker(state=read.state, retry_at=retry_at, failures=read.failures)
