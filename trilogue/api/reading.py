"""Routes that only read."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import PlainTextResponse, Response

from trilogue.api import documents, loglines
from trilogue.api.answers import OF_ONE, READING, router
from trilogue.api.context import Use
from trilogue.api.outcomes import Outcome, Pipeline
from trilogue.api.requests import After, Cursor, Limit, PipelineInPath, PipelineInQuery, known
from trilogue.board import Board, fold
from trilogue.board.view import as_json
from trilogue.errors import Invalid
from trilogue.ledger import Page, PipelineRow, UsageRow
from trilogue.ledger.listing import LONGEST_SEARCH
from trilogue.ledger.opening import TENANT
from trilogue.outcome import list_items, result_markdown
from trilogue.pipeline import Status
from trilogue.services import Services

routes = router("reading")

_BATCH = 500
_MARKDOWN = "text/markdown"


@routes.get("/pipelines", responses=READING)
async def pipelines(
    services: Use,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[
        list[Status] | None,
        Query(max_length=len(Status), description="Only those that are so now; given several times, any of them."),
    ] = None,
    project: Annotated[str | None, Query(max_length=200, description="Only those of a project.")] = None,
    search: Annotated[
        str | None,
        Query(
            max_length=LONGEST_SEARCH,
            description="Only those whose objective, id, external id, project or a label holds this text, "
            "in upper or lower case.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="Those whose id begins so; nothing else is looked at then."),
    ] = None,
) -> documents.PipelinePage:
    """Pipelines, newest first. Pass `next` on as `cursor` for the page after; what comes meanwhile moves nothing."""
    _storable(project=project, prefix=prefix)
    if prefix is not None:
        page = Page(items=await services.ledger.find_pipelines(TENANT, prefix, limit), next=None)
    else:
        page = await services.ledger.list_pipelines(
            TENANT, limit=limit, cursor=cursor, statuses=status or (), project=project, search=search
        )
    costs = await services.ledger.costs(TENANT, [row.pipeline_id for row in page.items])
    return documents.PipelinePage.model_validate({"items": list_items(page.items, costs), "next": page.next})


@routes.get("/pipelines/{pipeline_id}", responses=OF_ONE)
async def pipeline(pipeline_id: PipelineInPath, services: Use) -> Pipeline:
    """One pipeline: what was asked, where it is, what it spent, and how it went."""
    return documents.pipeline_document(*await _everything(services, pipeline_id))


@routes.get("/pipelines/{pipeline_id}/entries", responses=OF_ONE)
async def entries(
    pipeline_id: PipelineInPath,
    services: Use,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1_000, description="How many at most.")] = 100,
) -> documents.EntryPage:
    """The ledger's lines in order, as they were committed."""
    await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    found = await services.ledger.entries(TENANT, pipeline_id, after=after, limit=limit + 1)
    items = [documents.entry_item(entry) for entry in found[:limit]]
    return documents.EntryPage(items=items, next=items[-1].seq if len(found) > limit else None)


@routes.get("/pipelines/{pipeline_id}/board", responses=OF_ONE)
async def board(
    pipeline_id: PipelineInPath,
    services: Use,
    until: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="As it stood after the entry `until`.")] = None,
) -> documents.BoardDocument:
    """Everything on the board, as it stands or as it stood then."""
    await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    lines = await services.ledger.entries(TENANT, pipeline_id, limit=until)
    if until is not None and until > len(lines):
        raise Invalid(f"seq {until} is not in this pipeline: it has entries 1 to {len(lines)}", code="bad_seq")
    return documents.BoardDocument.model_validate(as_json(fold(lines)))


@routes.get("/pipelines/{pipeline_id}/checkpoints", responses=OF_ONE)
async def checkpoints(pipeline_id: PipelineInPath, services: Use) -> documents.CheckpointPage:
    """The named states from which the pipeline can go on."""
    await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    rows = await services.ledger.checkpoints(TENANT, pipeline_id)
    return documents.CheckpointPage(items=[documents.checkpoint_item(row) for row in rows])


@routes.get(
    "/pipelines/{pipeline_id}/result",
    response_model=Outcome,
    responses={**OF_ONE, 200: {"content": {_MARKDOWN: {"schema": {"type": "string"}}}}},
)
async def result(pipeline_id: PipelineInPath, request: Request, services: Use) -> Response | Outcome:
    """How the pipeline went: the outcome document, or with `Accept: text/markdown` the agreed text for people."""
    row, present, usage = await _everything(services, pipeline_id)
    if _wants_markdown(request.headers.get("accept", "")):
        return PlainTextResponse(result_markdown(pipeline_id, present), media_type=_MARKDOWN)
    return documents.result_document(row, present, usage)


@routes.get("/checkpoint/report", responses=OF_ONE)
async def report(pipeline_id: PipelineInQuery, services: Use) -> documents.ReportDocument:
    """The report, and whether the pipeline goes on from it or is held until `continue`."""
    row, present, _ = await _everything(services, pipeline_id)
    return documents.report_document(row, present)


@routes.get("/pipeline/logs", responses=OF_ONE)
async def logs(
    pipeline_id: PipelineInQuery,
    services: Use,
    after: After = 0,
    level: Annotated[loglines.LevelName, Query(description="Only what matters at least so much.")] = "debug",
    limit: Limit = 100,
) -> loglines.LogPage:
    """The entries as lines of a log."""
    await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    least, lines = loglines.Level[level], list[loglines.LogLine]()
    while True:
        found = await services.ledger.entries(TENANT, pipeline_id, after=after, limit=_BATCH)
        for entry in found:
            if loglines.level_of(entry) >= least:
                if len(lines) == limit:
                    return loglines.LogPage(items=lines, next=lines[-1].seq)
                lines.append(loglines.line(entry))
            after = entry.seq
        if len(found) < _BATCH:
            return loglines.LogPage(items=lines, next=None)


@routes.get("/pipeline/{pipeline_id}/orchestration", responses=OF_ONE)
async def orchestration(pipeline_id: PipelineInPath, services: Use) -> documents.Orchestration:
    """How the negotiation stands: who takes part, what is on the board, mediation, consensus, time and error."""
    return documents.orchestration_document(*await _everything(services, pipeline_id))


async def _everything(services: Services, pipeline_id: str) -> tuple[PipelineRow, Board, list[UsageRow]]:
    row = await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    lines = await services.ledger.entries(TENANT, pipeline_id)
    return row, fold(lines), await services.ledger.usage(TENANT, pipeline_id)


def _storable(**given: str | None) -> None:
    """Refuse what no name can hold, before the database does."""
    for name, value in given.items():
        if value is not None and not value.isprintable():
            raise Invalid(f"{name}: has characters that no name has: {value[:80]!r}", code=f"invalid_{name}")


def _wants_markdown(accept: str) -> bool:
    """Whether Markdown is asked for, and not after JSON."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    if _MARKDOWN not in kinds:
        return False
    return "application/json" not in kinds[: kinds.index(_MARKDOWN)]
