"""Another round for a pipeline that is held at REPORT, or whose last round ended without agreement."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

import tasks
from trilogue.spec import Guidance, KnownPipelineId, MaxCost, MaxTokens, ModeChoice, Model, Reason, RoundSpec, Timeout


@flow(name="continuation", flow_run_name=tasks.run_name, **tasks.FLOW_OPTIONS)
async def continue_pipeline(
    pipeline_id: KnownPipelineId,
    mode: ModeChoice = None,
    model: Model = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    reason: Reason = "",
    guidance: Guidance = "",
) -> State[Any]:
    """Take a pipeline on from its checkpoint as a new round, with a person's reason and guidance.

    What is not given stays as in the round before.
    """
    asked = RoundSpec(
        mode=mode,
        model=model,
        timeout=timeout,
        max_tokens=max_tokens,
        max_cost=max_cost,
        reason=reason,
        guidance=guidance,
    )
    async with tasks.continued(pipeline_id, asked) as session:
        await tasks.negotiation()
        await tasks.complete()
    return session.state()
