"""The tables tell what the entries tell: listing, agents, usage, checkpoints."""

from collections.abc import Awaitable, Callable

import pytest

from trilogue.agent import AgentStatus
from trilogue.board import NOTHING
from trilogue.entry import Draft, Kind
from trilogue.errors import Invalid, NotFound
from trilogue.ledger import Fence, Ledger
from trilogue.pipeline import Phase, Status


def _spawned(**body: object) -> list[Draft]:
    return [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", **body})]


async def test_pages_are_complete_and_stay_so_while_pipelines_come(ledger: Ledger) -> None:
    for n in range(23):
        await ledger.spawn("default", f"p-{n * 7 % 23:02}", _spawned(), at=100 + n // 5)
        await ledger.spawn("other", f"p-{n:02}", _spawned(), at=100)
    seen, cursor = [], None
    while True:
        page = await ledger.list_pipelines("default", limit=5, cursor=cursor)
        seen += [(row.created_at, row.pipeline_id) for row in page.items]
        await ledger.spawn("default", f"p-new-{len(seen)}", _spawned(), at=999)
        if page.next is None:
            break
        cursor = page.next
    assert len(seen) == 23
    assert seen == sorted(set(seen), reverse=True)
    assert (await ledger.list_pipelines("default", limit=28)).next is None


async def test_lists_are_narrowed_by_status_project_and_tenant(ledger: Ledger) -> None:
    await ledger.spawn("default", "p-1", _spawned(project="a"), at=1)
    await ledger.spawn("default", "p-2", _spawned(project="b"), at=2)
    await ledger.append_outside(
        "default", "p-2", lambda _: [Draft(kind=Kind.STATUS, body={"status": "STOPPED", "error": None})], at=3
    )

    async def ids(tenant: str = "default", *statuses: Status, project: str | None = None) -> list[str]:
        page = await ledger.list_pipelines(tenant, statuses=statuses, project=project)
        return [row.pipeline_id for row in page.items]

    assert await ids() == ["p-2", "p-1"]
    assert await ids("default", Status.STOPPED) == ["p-2"]
    assert await ids("default", Status.STOPPED, Status.SPAWNED) == ["p-2", "p-1"]
    assert await ids("default", Status.FAILED, Status.COMPLETED) == []
    assert await ids(project="a") == ["p-1"]
    assert await ids("default", Status.STOPPED, project="a") == []
    assert await ids("other") == []
    assert [row.pipeline_id for row in await ledger.find_pipelines("default", "p-", 9)] == ["p-1", "p-2"]
    assert await ledger.find_pipelines("default", "%", 9) == []
    for bad in ("x", "bm8", "W10", "WzEsMl0", "é"):
        with pytest.raises(Invalid, match="cursor"):
            await ledger.list_pipelines("default", cursor=bad)
    with pytest.raises(Invalid, match="not 0"):
        await ledger.list_pipelines("default", limit=0)
    with pytest.raises(NotFound):
        await ledger.get_pipeline("other", "p-1")


async def test_a_pipelines_row_follows_its_entries(ledger: Ledger, claimed: Callable[[str], Awaitable[Fence]]) -> None:
    fence = await claimed("p-1")
    spec = (await ledger.get_pipeline("default", "p-1")).spec
    assert spec == {"objective": "agree"}
    body = {"round": 1, "mode": "local", "model": "m", "timeout": 9.5, "deadline": 77, "reason": None}
    await ledger.append(
        fence,
        [
            Draft(kind=Kind.STATUS, body={"status": "RUNNING", "error": None}),
            Draft(kind=Kind.STATUS, body={"status": "REPORT", "error": None}),
            Draft(kind=Kind.PHASE_STARTED, body={"phase": "ORCHESTRATE"}),
            Draft(kind=Kind.STATUS, body={"status": "ORCHESTRATING", "error": None}),
            Draft(kind=Kind.ROUND_STARTED, body=body),
        ],
        at=50,
    )
    row = await ledger.get_pipeline("default", "p-1")
    assert (row.status, row.phase, row.round) == (Status.ORCHESTRATING, Phase.ORCHESTRATE, 1)
    assert (row.deadline_at, row.orchestration_started_at, row.updated_at, row.ended_at) == (77, 50, 50, None)
    error = {"code": "timeout", "message": "time is up"}
    await ledger.append(fence, [Draft(kind=Kind.STATUS, body={"status": "TIMEOUT", "error": error})], at=60)
    row = await ledger.get_pipeline("default", "p-1")
    assert row.error
    assert (row.error.code, row.error.message, row.error.at, row.ended_at) == ("timeout", "time is up", 60, 60)
    [_, last] = [row.head_seq, (await ledger.entries("default", "p-1", after=row.head_seq - 1, limit=5))]
    assert [entry.hash for entry in last] == [row.head_hash]


def _turn(number: int, agent_id: str, **used: object) -> Draft:
    body: dict[str, object] = {
        "turn": number,
        "agent_id": agent_id,
        "phase": "RUN",
        "round": 0,
        "outcome": "acted",
        "model": "m",
    }
    nothing: dict[str, object] = {"usage": None, "cost_nanousd": None, "calls": 0, "notes": [], "error": None}
    nothing |= {"reserved": NOTHING.as_json(), "settled": {**NOTHING.as_json(), "estimated": False}}
    return Draft(kind=Kind.TURN_ENDED, actor=agent_id, body={**body, **nothing, **used})


async def test_usage_adds_up_by_agent_and_an_unknown_cost_stays_unknown(
    ledger: Ledger, claimed: Callable[[str], Awaitable[Fence]]
) -> None:
    fence = await claimed("p-1")
    usage = {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 2}
    await ledger.append(
        fence,
        [
            _turn(1, "alpha-1", usage=usage, cost_nanousd=3_000_000_000_000, calls=1),
            _turn(2, "alpha-1", usage=usage, cost_nanousd=4, calls=2),
            _turn(3, "beta-1", usage=usage, cost_nanousd=4, calls=1),
            _turn(4, "beta-1", calls=3),
            _turn(5, "gamma-1"),
        ],
        at=1,
    )
    [alpha, beta] = await ledger.usage("default", "p-1")
    assert (alpha.turns, alpha.input_tokens, alpha.cached_tokens, alpha.calls) == (2, 20, 4, 3)
    assert alpha.cost_nanousd == 3_000_000_000_004
    assert (beta.agent_id, beta.turns, beta.output_tokens, beta.calls, beta.cost_nanousd) == ("beta-1", 2, 5, 4, None)
    assert type(alpha.input_tokens) is int


async def test_agents_and_checkpoints_follow_their_entries(
    ledger: Ledger, claimed: Callable[[str], Awaitable[Fence]]
) -> None:
    def agent(agent_id: str, role: str) -> Draft:
        body = {"agent_id": agent_id, "role": role, "tier": 1, "runtime": "python", "model": "m"}
        return Draft(kind=Kind.AGENT_SPAWNED, body=body)

    def status(agent_id: str, status: AgentStatus) -> Draft:
        return Draft(kind=Kind.AGENT_STATUS, body={"agent_id": agent_id, "status": status, "reason": None})

    async def statuses() -> dict[str, AgentStatus]:
        return {row.agent_id: row.status for row in await ledger.agents("default", "p-1")}

    fence = await claimed("p-1")
    alpha, beta = agent("alpha-1", "ALPHA"), agent("beta-1", "BETA")
    await ledger.append(fence, [alpha, beta, status("beta-1", AgentStatus.RUNNING)], at=1)
    assert await statuses() == {"alpha-1": AgentStatus.SPAWNED, "beta-1": AgentStatus.RUNNING}
    await ledger.append(fence, [status("alpha-1", AgentStatus.REVOKED), status("beta-1", AgentStatus.WAITING)], at=2)
    assert await statuses() == {"alpha-1": AgentStatus.REVOKED, "beta-1": AgentStatus.WAITING}
    await ledger.append(fence, [status("alpha-1", AgentStatus.RUNNING), alpha], at=3)
    assert await statuses() == {"alpha-1": AgentStatus.SPAWNED, "beta-1": AgentStatus.WAITING}

    body = {"name": "report", "to_seq": 4, "status": "SPAWNED", "phase": "REPORT", "round": 0}
    await ledger.append(
        fence,
        [
            Draft(kind=Kind.CHECKPOINT, body={**body, "details": {"why": [1.5, None]}}),
            Draft(kind=Kind.CHECKPOINT, body={**body, "details": None}),
        ],
        at=4,
    )
    rows = await ledger.checkpoints("default", "p-1")
    assert [(row.name, row.to_seq, row.phase, row.details) for row in rows] == [
        ("report", 4, Phase.REPORT, {"why": [1.5, None]}),
        ("report", 4, Phase.REPORT, None),
    ]
    assert rows[1].seq == rows[0].seq + 1
