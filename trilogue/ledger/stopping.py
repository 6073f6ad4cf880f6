"""The emergency stop: one commit by whoever stops, with nothing but the ledger."""

from trilogue import clock
from trilogue.entry import Draft, Entry
from trilogue.interventions import stopped
from trilogue.ledger.identities import By, Deed
from trilogue.ledger.ledger import Ledger
from trilogue.ledger.rows import PipelineRow


async def stop(ledger: Ledger, tenant: str, pipeline_id: str, reason: str, *, by: By) -> list[Entry]:
    """Stop a pipeline: from this commit on the ledger takes nothing from its agents.

    Args:
        by: whose doing it is, for the audit, which also tells where it was refused.

    Raises:
        NotFound: no such pipeline.
        IllegalTransition: it has ended already.
    """

    def decide(row: PipelineRow) -> list[Draft]:
        return stopped(status=row.status, phase=row.phase, round_=row.round, head_seq=row.head_seq, reason=reason)

    deed = Deed(by=by, action="pipeline.stop", object=pipeline_id, detail={"reason": reason})
    try:
        return await ledger.append_outside(tenant, pipeline_id, decide, at=clock.now(), deed=deed)
    except Exception as error:
        await ledger.audit.refused(tenant, deed, error)
        raise
