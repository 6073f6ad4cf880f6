"""The deployments of `prefect.yaml` on the Prefect server in use, and the process worker that runs them.

What stands there already is left alone, with what somebody edited in the Prefect UI: it is deployed anew only
when a deployment is missing, or when the file or the flows' parameters have changed since.
"""

import asyncio
import hashlib
import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # Prefect brings it without stubs
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

from trilogue.errors import Conflict, Unavailable

logger = logging.getLogger(__name__)

POOL = "trilogue"

_DEPLOYED = "trilogue_deployed"
"""The Prefect variable that says what was deployed last."""

_NIGHTLY = ("pipeline", "nightly")

_PACKAGES = Path(__file__).parents[1]
_FILE = _PACKAGES / "flows" / "prefect.yaml"
"""A link in a checkout, the file itself in an installation."""

_SHAPING = ("flows/*.py", "trilogue/spec.py")
"""What the parameters of the deployments are made from, besides the file."""


async def serve(ready: Callable[[], None]) -> None:
    """Deploy what is missing, then run flow runs of the work pool until cancelled.

    Args:
        ready: called when the worker has registered with the server.

    Raises:
        Conflict: the work pool is there, but not for processes.
        Unavailable: `prefect deploy` failed.
    """
    async with get_client() as client:
        await _ensure_pool(client)
        await _ensure_deployed(client)
    # One name for all lives, or the server would list each of them for ever.
    worker = ProcessWorker(work_pool_name=POOL, name=f"trilogue-up-{socket.gethostname()}")

    def started(message: str) -> None:
        logger.info(message)
        ready()

    await worker.start(printer=started)


async def _ensure_pool(client: PrefectClient) -> None:
    try:
        pool = await client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        try:
            pool = await client.create_work_pool(
                WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
            )
        except ObjectAlreadyExists:
            pool = await client.read_work_pool(POOL)
    if pool.type != ProcessWorker.type:
        raise Conflict(
            f"the work pool {POOL!r} of the Prefect server is of type {pool.type!r}, not 'process'; "
            "start its own worker with `trilogue api` and `trilogue worker` instead of `trilogue up`",
            code="work_pool_type",
        )


async def _ensure_deployed(client: PrefectClient) -> None:
    names = {str(deployment["name"]) for deployment in yaml.safe_load(_FILE.read_text())["deployments"]}
    version = _version()
    found = await client.read_deployments(
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=sorted(names)))
    )
    known: Any = await Variable.aget(_DEPLOYED, default=None)
    if known == version and {deployment.name for deployment in found} >= names:
        return
    await _deploy()
    if _NIGHTLY[1] not in {deployment.name for deployment in found}:
        await _pause_nightly(client)
    await Variable.aset(_DEPLOYED, version, overwrite=True)
    logger.info("deployed %s", ", ".join(sorted(names)))


async def _pause_nightly(client: PrefectClient) -> None:
    """Whoever starts `trilogue up` has not asked for a pipeline every night; one click in the Prefect UI does."""
    nightly = await client.read_deployment_by_name("/".join(_NIGHTLY))
    for schedule in nightly.schedules:
        await client.update_deployment_schedule(nightly.id, schedule.id, active=False)


async def _deploy() -> None:
    command = (sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(_FILE))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise Unavailable(f"`prefect deploy` failed: {' '.join(said.decode(errors='replace').split())[-500:]}")


def _version() -> str:
    shaping = sorted(path for pattern in _SHAPING for path in _PACKAGES.glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in (_FILE, *shaping))).hexdigest()
