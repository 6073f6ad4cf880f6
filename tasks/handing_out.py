"""The launcher `deployment`: what waits is given to the deployment `pipeline/pipeline`, for a process of its own."""

import logging

from prefect.client.orchestration import get_client

from tasks.taking_up import DEPLOYMENT, deployed, start
from trilogue.ledger import PipelineRow

logger = logging.getLogger(__name__)


async def handed_out(row: PipelineRow) -> None:
    """Start a run of the deployment for a pipeline that waits, unless one is on its way. Never raises.

    The pipeline goes on waiting until the run has its lease, so that one that never comes is started again.
    """
    try:
        async with get_client() as client:
            known = await deployed(client, DEPLOYMENT)
            if known is None:
                logger.warning(
                    "%s waits: there is no deployment %s; `prefect deploy --all`", row.pipeline_id, DEPLOYMENT
                )
            else:
                await start(client, known, row)
    except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; the pipeline still waits)
        logger.warning("%s waits: no run could be started: %s", row.pipeline_id, type(error).__name__)
