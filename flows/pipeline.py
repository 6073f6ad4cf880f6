"""SPAWN → RUN → REPORT → ORCHESTRATE → COMPLETE."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

import tasks
from trilogue.spec import (
    AgentTimeout,
    AutoContinue,
    Context,
    Errors,
    ExternalId,
    Labels,
    MaxCost,
    MaxTokens,
    ModeChoice,
    Model,
    Models,
    Objective,
    PipelineId,
    PipelineSpec,
    Project,
    Replacements,
    Timeout,
    Webhook,
)


@flow(name="pipeline", flow_run_name=tasks.run_name, **tasks.FLOW_OPTIONS)
async def pipeline(
    objective: Objective,
    auto_continue: AutoContinue = True,
    mode: ModeChoice = None,
    model: Model = None,
    timeout: Timeout = None,
    agent_timeout: AgentTimeout = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    errors: Errors = None,
    replacements: Replacements = None,
    context: Context = (),
    models: Models = None,
    project: Project = "default",
    labels: Labels = (),
    external_id: ExternalId = None,
    webhook: Webhook = None,
    pipeline_id: PipelineId = None,
) -> State[Any]:
    """Take an objective from SPAWN to COMPLETE: two agents research it, then negotiate to one agreed text."""
    spec = PipelineSpec(
        objective=objective,
        auto_continue=auto_continue,
        mode=mode,
        model=model,
        timeout=timeout,
        agent_timeout=agent_timeout,
        max_tokens=max_tokens,
        max_cost=max_cost,
        errors=errors,
        replacements=replacements,
        context=context,
        models=models,
        project=project,
        labels=labels,
        external_id=external_id,
        webhook=webhook,
    )
    async with tasks.started(pipeline_id, spec) as session:
        await tasks.spawn()
        await tasks.research()
        if await tasks.report():
            await tasks.begin_round()
            await tasks.negotiation()
            await tasks.complete()
    return session.state()
