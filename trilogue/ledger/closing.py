"""The end of a tenant that still has pipelines: nothing of it begins any more, all are stopped, it is deleted."""

import contextlib

from trilogue.errors import IllegalTransition
from trilogue.ledger.identities import By, TenantRow
from trilogue.ledger.ledger import Ledger
from trilogue.ledger.rows import TENANT
from trilogue.ledger.stopping import stop

_AT_ONCE = 100
_REASON = "its tenant is being deleted"


async def stop_and_delete(ledger: Ledger, tenant: str, *, by: By) -> tuple[TenantRow, list[str]]:
    """Suspend a tenant, stop what has not ended, and delete it; done again it goes on where it was interrupted.

    Returns:
        The tenant, and the ids of the pipelines that were stopped.

    Raises:
        NotFound: no such tenant.
        Conflict: it is `default`, or deleted already.
    """
    stopped: list[str] = []
    if tenant != TENANT:
        await ledger.tenants.suspend(tenant, by=by, reason="to be deleted")
        while open_ := await ledger.tenants.open_pipelines(tenant, limit=_AT_ONCE):
            for pipeline_id in open_:
                with contextlib.suppress(IllegalTransition):  # it ended by itself meanwhile
                    await stop(ledger, tenant, pipeline_id, _REASON, by=by)
                    stopped.append(pipeline_id)
    return await ledger.tenants.delete(tenant, by=by), stopped
