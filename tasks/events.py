"""Prefect events `trilogue.pipeline.<status>`, so that automations can react."""

from prefect.events import emit_event

from trilogue.attempt import Attempt


def announce(attempt: Attempt) -> None:
    """Tell Prefect's event system where the pipeline is now. Queued; never waits, carries no text of agents."""
    board = attempt.board
    consensus = board.consensus or {}
    emit_event(
        event=f"trilogue.pipeline.{board.status.value.lower()}",
        resource={
            "prefect.resource.id": f"trilogue.pipeline.{attempt.fence.pipeline_id}",
            "prefect.resource.name": attempt.fence.pipeline_id,
            "trilogue.tenant": attempt.fence.tenant,
        },
        payload={
            "pipeline_id": attempt.fence.pipeline_id,
            "status": board.status.value,
            "phase": board.phase.value,
            "round": board.round.number if board.round else 0,
            "seq": board.seq,
            "error": board.error["code"] if board.error else None,
            "decided_by": consensus.get("decided_by", "").split(":")[0] or None,
        },
    )
