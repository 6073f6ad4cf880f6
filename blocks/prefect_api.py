"""A client of the Prefect API whose failures are Trilogue's errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import JSONDecodeError

from httpx import HTTPStatusError, RequestError
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL

from trilogue.errors import Denied, Unavailable

TIMEOUT = 30.0
"""Seconds for all that is asked of the API at once. The client waits out 503s of a busy server by itself,
for a minute and more; whoever loads or registers blocks is at a start and must learn what is wrong."""


@asynccontextmanager
async def prefect_api() -> AsyncIterator[PrefectClient]:
    """A started client of the API that Prefect's settings name.

    Raises:
        Unavailable: `prefect_unreachable`: nobody answers, or not as a Prefect API does.
        Denied: `prefect_forbidden`: the API wants other credentials.
    """
    try:
        async with asyncio.timeout(TIMEOUT), get_client() as client:
            yield client
    except HTTPStatusError as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise Denied(
                f"the Prefect API at {_address()} refused its client ({status}):"
                " set PREFECT_API_AUTH_STRING or PREFECT_API_KEY",
                code="prefect_forbidden",
            ) from None
        raise _unreachable(f"it answered {status}") from None
    except JSONDecodeError:
        raise _unreachable("it did not answer in JSON") from None
    except (RequestError, TimeoutError) as error:
        raise _unreachable(type(error).__name__) from None


def _unreachable(reason: str) -> Unavailable:
    return Unavailable(
        f"the Prefect API at {_address()} could not be used ({reason}): check PREFECT_API_URL, which ends in /api,"
        " and that the server is up",
        code="prefect_unreachable",
    )


def _address() -> str:
    url = PREFECT_API_URL.value()
    return repr(url.rpartition("@")[2]) if url else "its own temporary address"
