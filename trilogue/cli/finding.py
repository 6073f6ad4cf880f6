"""The pipeline that a user means: by its id, or by the beginning of it."""

from trilogue.cli.remote import Record
from trilogue.errors import Invalid, NotFound
from trilogue.ledger.rows import TENANT


async def find(ledger: Record, given: str, tenant: str = TENANT) -> str:
    """The full id, of a tenant's pipelines.

    Raises:
        NotFound: no pipeline's id begins like this.
        Invalid: several do.
    """
    found = await ledger.find_pipelines(tenant, given, 3) if given else []
    exact = [row for row in found if row.pipeline_id == given]
    match exact or found:
        case []:
            raise NotFound(f"no pipeline {given!r}; `trilogue list` shows what there is", code="no_pipeline")
        case [row]:
            return row.pipeline_id
        case rows:
            shown = ", ".join(row.pipeline_id for row in rows)
            raise Invalid(f"{given!r} begins several ids ({shown}, …); give more of it", code="ambiguous_id")
