"""A server's pipelines, read by the methods that the ledger has: commands do not see which of the two they read."""

# ruff: noqa: ARG002 - whose pipelines they are is the key's to say, so the tenant is not sent

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trilogue.cli.server import Connection, Document
from trilogue.clock import SECOND, Micros, now
from trilogue.entry import Entry, Kind
from trilogue.errors import Unavailable
from trilogue.ledger.rows import CheckpointRow, Cost, Page, PipelineRow, UsageRow
from trilogue.money import USD
from trilogue.pipeline import Phase, Status

if TYPE_CHECKING:
    from trilogue.live import Delta

T = TypeVar("T")

_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(Protocol):
    """What commands read of pipelines: from the ledger, or from a server."""

    async def get_pipeline(self, tenant: str, pipeline_id: str) -> PipelineRow: ...

    async def find_pipelines(self, tenant: str, prefix: str, limit: int) -> list[PipelineRow]: ...

    async def list_pipelines(
        self,
        tenant: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        statuses: Collection[Status] = (),
        project: str | None = None,
        search: str | None = None,
    ) -> Page: ...

    async def costs(self, tenant: str, pipeline_ids: Collection[str]) -> Mapping[str, Cost]: ...

    async def entries(self, tenant: str, pipeline_id: str, *, after: int = 0) -> list[Entry]: ...

    async def usage(self, tenant: str, pipeline_id: str) -> list[UsageRow]: ...

    async def checkpoints(self, tenant: str, pipeline_id: str) -> list[CheckpointRow]: ...


class Happening(Protocol):
    """What tells that something happened to a pipeline: Redis, or a server."""

    def follow(
        self, tenant: str, pipeline_id: str, read: Callable[[int], Awaitable[Sequence[Entry]]]
    ) -> "AsyncGenerator[Entry | Delta]": ...


class Source(Protocol):
    """Where a pipeline can be followed: the services of this process, or a server."""

    @property
    def ledger(self) -> Record: ...

    @property
    def live(self) -> Happening: ...


class RemoteLedger:
    """A server's record of pipelines."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: dict[str, list[Entry]] = {}  # what never changes need not be asked for twice
        self._costs: dict[str, Cost] = {}

    async def get_pipeline(self, tenant: str, pipeline_id: str) -> PipelineRow:
        """The pipeline, or `NotFound`."""
        return self._told(_row, await self._connection.get(f"/api/pipelines/{pipeline_id}"))

    async def find_pipelines(self, tenant: str, prefix: str, limit: int) -> list[PipelineRow]:
        """At most `limit` pipelines whose id begins with `prefix`."""
        return self._told(_page, await self._connection.get("/api/pipelines", prefix=prefix, limit=limit)).items

    async def list_pipelines(
        self,
        tenant: str,
        *,
        limit: int = 50,
        cursor: str | None = None,
        statuses: Collection[Status] = (),
        project: str | None = None,
        search: str | None = None,
    ) -> Page:
        """A page of pipelines, newest first."""
        document = await self._connection.get(
            "/api/pipelines",
            limit=limit,
            cursor=cursor,
            status=[status.value for status in statuses],
            project=project,
            search=search,
        )
        self._costs |= self._told(_costs, document)
        return self._told(_page, document)

    async def costs(self, tenant: str, pipeline_ids: Collection[str]) -> Mapping[str, Cost]:
        """What pipelines that were listed before used in all, as the list had it."""
        return {pipeline_id: self._costs[pipeline_id] for pipeline_id in pipeline_ids}

    async def entries(self, tenant: str, pipeline_id: str, *, after: int = 0) -> list[Entry]:
        """The entries with a `seq` above `after`, in order."""
        read = self._read.setdefault(pipeline_id, [])
        more = True
        while more:
            page = await self._connection.get(
                f"/api/pipelines/{pipeline_id}/entries", after=read[-1].seq if read else 0, limit=_PAGE
            )
            came = [self._told(lambda item: _entry(tenant, pipeline_id, item), item) for item in _items(page)]
            read += came
            more = bool(came) and page.get("next") is not None
        return read[after:]

    async def usage(self, tenant: str, pipeline_id: str) -> list[UsageRow]:
        """What each of the pipeline's agents used in all, as its entries have it."""
        return usage_in(await self.entries(tenant, pipeline_id))

    async def checkpoints(self, tenant: str, pipeline_id: str) -> list[CheckpointRow]:
        """The pipeline's checkpoints, oldest first."""
        page = await self._connection.get(f"/api/pipelines/{pipeline_id}/checkpoints")
        return [self._told(_checkpoint, item) for item in _items(page)]

    def _told(self, read: Callable[[Document], T], document: Document) -> T:
        """What a document says; one that lacks something comes from another version of Trilogue."""
        try:
            return read(document)
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(
                f"the server at {self._connection.server.url} is of another version of Trilogue: its answer cannot be "
                f"read ({type(error).__name__}: {error})",
                code="no_such_server",
            ) from None


def usage_in(entries: Sequence[Entry]) -> list[UsageRow]:
    """What each agent used in all, by agent id: every ended turn that called a model."""
    turns: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry.kind is Kind.TURN_ENDED and (entry.body["usage"] is not None or entry.body["calls"]):
            turns.setdefault(entry.body["agent_id"], []).append(entry.body)
    return [_used(agent_id, turns[agent_id]) for agent_id in sorted(turns)]


def _used(agent_id: str, turns: Sequence[Mapping[str, Any]]) -> UsageRow:
    def total(of: str) -> int:
        return sum((turn["usage"] or {}).get(of) or 0 for turn in turns)

    costs = [turn["cost_nanousd"] for turn in turns]
    return UsageRow(
        agent_id=agent_id,
        turns=len(turns),
        input_tokens=total("input_tokens"),
        output_tokens=total("output_tokens"),
        cached_tokens=total("cached_tokens"),
        cost_nanousd=None if None in costs else sum(costs),
        calls=sum(turn["calls"] for turn in turns),
    )


def _items(page: Document) -> list[Document]:
    items = page.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _costs(page: Document) -> dict[str, Cost]:
    return {item["pipeline_id"]: _cost(item) for item in _items(page)}


def _cost(told: Document) -> Cost:
    usd, tokens = told["cost_usd"], told["tokens"]
    return Cost(
        nanousd=0 if usd is None else round(usd * USD),
        unknown=usd is None,
        input_tokens=tokens["input"],
        output_tokens=tokens["output"],
    )


def _page(document: Document) -> Page:
    return Page(items=[_row(item) for item in _items(document)], next=document["next"])


def _row(told: Document) -> PipelineRow:
    """A pipeline of a list, or by itself: a list leaves out what only one pipeline's own document has."""
    at = now()
    leased, orphaned = bool(told.get("leased")), bool(told["orphaned"])
    still = micros(told["still_since"]) if told.get("still_since") else None
    ledger = told.get("ledger") or {"entries": 0, "head": ""}
    return PipelineRow(
        tenant=told["tenant"],
        pipeline_id=told["pipeline_id"],
        project=told["project"],
        external_id=told.get("external_id"),
        spec={"objective": told["objective"], "rehearsal": bool(told.get("rehearsal"))},
        status=Status(told["status"]),
        phase=Phase(told["phase"]),
        round=told.get("round", 0),
        attempt=told.get("attempt", 0),
        head_seq=ledger["entries"],
        head_hash=ledger["head"],
        flow_run_id=None,
        lease_owner=None,
        # The server says whether there is a lease, by its database's clock; until when is nobody else's business.
        lease_until=at + SECOND if leased else still or at - SECOND if orphaned else None,
        stop_requested_at=None,
        orchestration_started_at=None,
        deadline_at=None,
        error=None,
        ended_at=micros(told["ended_at"]) if told["ended_at"] else None,
        created_at=micros(told["created_at"]),
        updated_at=micros(told.get("updated_at") or told["created_at"]),
        queued_at=at if told.get("queued") or told.get("queued_at") else None,
        released_at=still or at + SECOND,
        read_at=at,
    )


def _entry(tenant: str, pipeline_id: str, told: Document) -> Entry:
    return Entry(
        tenant=tenant,
        pipeline_id=pipeline_id,
        seq=told["seq"],
        attempt=told["attempt"],
        kind=Kind(told["kind"]),
        actor=told["actor"],
        at=micros(told["at"]),
        body=told["body"],
        prev_hash=told["prev_hash"],
        hash=told["hash"],
    )


def _checkpoint(told: Document) -> CheckpointRow:
    return CheckpointRow(
        seq=told["seq"],
        name=told["name"],
        to_seq=told["to_seq"],
        status=Status(told["status"]),
        phase=Phase(told["phase"]),
        round=told["round"],
        details=told["details"],
        at=micros(told["at"]),
    )


def micros(told: Any) -> Micros:
    """A moment of a document: ISO 8601, or microseconds."""
    if isinstance(told, int):
        return told
    return (datetime.fromisoformat(told) - _EPOCH) // timedelta(microseconds=1)
