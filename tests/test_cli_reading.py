"""`status`, `list`, `report`, `result` and `db`: what they say of recorded pipelines, to people and as JSON."""

import asyncio
import json
import os
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from tests.command import Command, refusal
from tests.driving import driving_at
from trilogue.desk import local
from trilogue.ledger import schema, sqlite_url
from trilogue.pipeline import Phase, Status
from trilogue.spec import checked_spec

HOSTILE = "[bold red]Design[/] a <b>cache</b> | for café \u4e2d\u6587"


class Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PhaseShown(Exact):
    phase: Literal["SPAWN", "RUN", "REPORT", "ORCHESTRATE", "COMPLETE"]
    started_at: str
    seconds: NonNegativeFloat


class Tokens(Exact):
    input: NonNegativeInt
    output: NonNegativeInt


class AgentBudgetShown(Exact):
    tokens: int | None
    spent: int
    reserved: int
    estimated: bool


class AgentShown(Exact):
    agent_id: str
    role: Literal["ALPHA", "BETA", "GAMMA"]
    runtime: Literal["python"]
    model: str
    status: str
    turns: NonNegativeInt
    tokens: Tokens
    cost_usd: NonNegativeFloat | None
    errors: NonNegativeInt
    budget: AgentBudgetShown


class Continuation(Exact):
    eligible: bool
    auto: bool
    reasons: list[str]


class Report(Exact):
    markdown: str
    findings: NonNegativeInt
    complexity: NonNegativeFloat
    continuation: Continuation


class MediationShown(Exact):
    trigger: Literal["STUCK", "CONFLICT", "COMPLEXITY"]
    evidence: dict[str, Any]
    outcome: str | None


class VoteShown(Exact):
    voter: str
    verdict: Literal["approve", "reject", "none"]
    reason: str


class Dissent(Exact):
    voter: str
    reason: str


class Consensus(Exact):
    proposal_id: str
    revision: int | None
    title: str
    text: str
    votes: list[VoteShown]
    decided_by: str
    dissent: list[Dissent]
    uncontested: bool


class SubtaskShown(Exact):
    id: str
    title: str
    assignee: Literal["ALPHA", "BETA"]
    solved: bool


class ErrorShown(Exact):
    code: str
    message: str
    at: str


class LedgerShown(Exact):
    entries: int
    head: str


class BudgetShown(Exact):
    cost_usd: float | None
    spent_usd: float
    reserved_usd: float
    estimated: bool


class Outcome(Exact):
    """The document of `run`, `continue`, `resume`, `status` and `result` with `--json`."""

    pipeline_id: str
    status: Status
    orphaned: bool
    mode: Literal["openrouter", "local"]
    rehearsal: bool
    model: str
    objective: str
    phases: list[PhaseShown]
    budget: BudgetShown
    agents: list[AgentShown]
    report: Report | None
    mediation: list[MediationShown]
    subtasks: list[SubtaskShown]
    consensus: Consensus | None
    error: ErrorShown | None
    ledger: LedgerShown


class ItemShown(Exact):
    pipeline_id: str
    tenant: Literal["default"]
    project: str
    status: Status
    phase: Phase
    objective: str
    created_at: str
    ended_at: str | None
    orphaned: bool
    cost_usd: NonNegativeFloat | None
    tokens: Tokens


class ListShown(Exact):
    items: list[ItemShown]
    next: str | None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, valkey_socket: Path) -> tuple[Path, dict[str, str]]:
    """A home with one pipeline of each kind, and their ids by kind, oldest first."""
    home = tmp_path_factory.mktemp("recorded")

    async def record() -> dict[str, str]:
        async with driving_at(home, valkey_socket) as driver:
            ids = {
                "ruled": await driver.run(HOSTILE, model="rehearsal/conflict", project="web"),
                "decomposed": await driver.run(model="rehearsal/complex"),
                "held": await driver.run(mode="local", auto_continue=False),
                "timed out": await driver.run(model="rehearsal/stuck", timeout=0.001),
            }
            waiting = checked_spec(objective="Wait " * 100, mode="openrouter")
            return {kind: course.pipeline_id for kind, course in ids.items()} | {
                "waiting": await local(driver.services).spawn(waiting, may_rehearse=False)
            }

    return home, asyncio.run(record())


@pytest.fixture
def ids(recorded: tuple[Path, dict[str, str]], command: Command, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The ids by kind; `command` looks at their home."""
    monkeypatch.setenv("TRILOGUE_HOME", str(recorded[0]))
    return recorded[1]


@pytest.mark.parametrize("kind", ["ruled", "decomposed", "held", "timed out", "waiting"])
def test_status_and_result_give_the_whole_document_and_nothing_else(
    command: Command, ids: dict[str, str], kind: str
) -> None:
    ended = command("status", ids[kind], "--json")
    assert (ended.code, ended.err) == (0, "")
    shown = Outcome.model_validate_json(ended.out)
    assert shown.pipeline_id == ids[kind]
    assert command("result", ids[kind], "--json").document == ended.document
    starts = [datetime.fromisoformat(phase.started_at) for phase in shown.phases]
    assert starts == sorted(starts)
    assert all(start.tzinfo for start in starts)
    assert len(shown.ledger.head) == 64


def test_the_document_tells_who_decided_and_who_dissented(command: Command, ids: dict[str, str]) -> None:
    shown = Outcome.model_validate_json(command("status", ids["ruled"], "--json").out)
    assert (shown.status, shown.mode, shown.rehearsal) == (Status.COMPLETED, "local", True)
    assert shown.objective == HOSTILE
    assert [phase.phase for phase in shown.phases] == list(Phase)
    assert [agent.role for agent in shown.agents] == ["ALPHA", "BETA", "GAMMA"]
    assert [(m.trigger, m.outcome) for m in shown.mediation] == [("CONFLICT", "ruled")]
    assert shown.consensus
    assert shown.consensus.decided_by.startswith("ruling of gamma-1: ")
    assert shown.consensus.dissent
    assert all(agent.turns and agent.tokens.output and agent.cost_usd == 0 for agent in shown.agents)


def test_a_pipeline_that_was_not_carried_yet_has_a_document_too(command: Command, ids: dict[str, str]) -> None:
    shown = Outcome.model_validate_json(command("status", ids["waiting"], "--json").out)
    assert (shown.status, shown.mode, shown.agents, shown.report) == (Status.SPAWNED, "openrouter", [], None)
    assert f"trilogue resume {ids['waiting']}" in command("status", ids["waiting"]).out


def test_the_beginning_of_an_id_is_enough_if_it_is_one_pipelines_alone(command: Command, ids: dict[str, str]) -> None:
    assert ids["held"] in command("status", ids["held"][:8]).out
    assert "begins several ids" in refusal(command("status", "p-"))
    for unknown in ("p-nothere", "", "%", "p_", "'; drop table pipelines"):
        assert f"no pipeline {unknown!r}" in refusal(command("status", unknown), code=1)


def test_a_person_sees_where_it_stands_what_it_used_and_what_to_do_next(command: Command, ids: dict[str, str]) -> None:
    shown = command("status", ids["timed out"]).out
    assert f"{ids['timed out']}  TIMEOUT" in shown
    assert f"trilogue continue {ids['timed out']}" in shown
    assert "Rehearsal: no language model is used." in shown
    assert "alpha-1" in shown
    assert "\x1b" not in shown
    assert f"trilogue continue {ids['held']}" in command("status", ids["held"]).out
    assert "trilogue" not in command("status", ids["ruled"]).out


def test_a_list_is_newest_first_by_page_and_by_what_is_asked_for(command: Command, ids: dict[str, str]) -> None:
    whole = ListShown.model_validate_json(command("list", "--json").out)
    assert [item.pipeline_id for item in whole.items] == [*reversed(ids.values())]
    assert whole.next is None

    first = ListShown.model_validate_json(command("list", "--limit", "3", "--json").out)
    assert first.next
    rest = ListShown.model_validate_json(command("list", "--limit", "3", "--cursor", first.next, "--json").out)
    assert first.items + rest.items == whole.items

    for arguments, expected in {
        ("--status", "completed"): {"ruled", "decomposed"},
        ("--status", "REPORT"): {"held"},
        ("--project", "web"): {"ruled"},
        ("--project", "none"): set(),
        ("--status", "report", "--status", "TIMEOUT"): {"held", "timed out"},
        ("--search", "a <B>CACHE</b> | for CAFÉ"): {"ruled"},
        ("--search", "WEB"): {"ruled"},
        ("--search", ids["held"][2:]): {"held"},
        ("--search", "cache", "--status", "TIMEOUT"): set(),
    }.items():
        found = ListShown.model_validate_json(command("list", *arguments, "--json").out)
        assert {item.pipeline_id for item in found.items} == {ids[kind] for kind in expected}


def test_a_list_is_a_line_a_pipeline_and_shows_markup_as_what_it_is(command: Command, ids: dict[str, str]) -> None:
    lines = command("list").out.splitlines()
    assert len(lines) == 1 + len(ids)
    assert lines[-1].rstrip().endswith(HOSTILE)
    assert "more: trilogue list --cursor " in command("list", "--limit", "2").out
    narrowed = command("list", "--limit", "1", "--status", "COMPLETED", "--search", " e", "--project", "web")
    assert "more: " not in narrowed.out
    narrowed = command("list", "--limit", "1", "--status", "COMPLETED", "--status", "report", "--search", "a c")
    assert "more: trilogue list --search 'a c' --status COMPLETED --status report --cursor " in narrowed.out
    assert command("list", "--project", "none").out == "No such pipelines.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--status", "DONE"), "no status is called 'DONE'; there are: SPAWNED, RUNNING"),
        (("--cursor", "nonsense"), "cursor"),
        (("--status", "REPORT", "--status", "DONE"), "no status is called 'DONE'"),
        (("--search", "x" * 1_001), "search: has 1,001 characters; at most 1,000"),
        (("--search", "\udcff"), "which no text has"),
        (("--limit", "0"), "'--limit'"),
        (("--limit", "1000"), "'--limit'"),
    ],
)
def test_a_list_that_cannot_be_made_is_refused(
    command: Command, ids: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal(command("list", *arguments))


def test_an_empty_ledger_says_how_to_begin(command: Command) -> None:
    assert "trilogue run" in command("list").out
    assert command("list", "--json").document == {"items": [], "next": None}


def test_the_report_has_findings_of_both_and_whether_it_goes_on(command: Command, ids: dict[str, str]) -> None:
    shown = Report.model_validate_json(command("report", ids["held"], "--json").out)
    assert not shown.continuation.auto
    assert shown.continuation.eligible
    assert command("report", ids["held"]).out == shown.markdown
    assert "## ALPHA" in shown.markdown
    assert "## BETA" in shown.markdown
    assert "has no report: it is SPAWNED" in refusal(command("report", ids["waiting"]), code=1)


def test_a_result_goes_to_a_file_whole_or_not_at_all(command: Command, ids: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "out" / "result.md"
    assert f"'{target}' cannot be written" in refusal(command("result", ids["ruled"], "-o", str(target)))
    target.parent.mkdir()
    target.write_text("before")
    ended = command("result", ids["ruled"], "-o", str(target))
    assert (ended.code, ended.out) == (0, "")
    assert target.read_text() == command("result", ids["ruled"]).out
    assert list(target.parent.iterdir()) == [target]
    assert "**Dissent**" in target.read_text()
    assert "Decided by ruling of gamma-1" in target.read_text()


def test_a_result_without_agreement_says_why(command: Command, ids: dict[str, str]) -> None:
    shown = command("result", ids["timed out"]).out
    assert "TIMEOUT" in shown
    assert "No agreed text: " in shown


def test_reading_changes_nothing(command: Command, ids: dict[str, str]) -> None:
    before = command("status", ids["held"], "--json").out
    for arguments in (("report",), ("result",), ("status",)):
        command(*arguments, ids["held"])
    assert command("status", ids["held"], "--json").out == before


def test_continue_and_resume_refuse_what_cannot_go_on_before_any_server_starts(
    command: Command, ids: dict[str, str]
) -> None:
    for arguments, said in {
        ("continue", ids["ruled"]): "COMPLETED cannot become ORCHESTRATING",
        ("continue", ids["waiting"]): "SPAWNED cannot become ORCHESTRATING",
        ("resume", ids["ruled"]): "is COMPLETED cannot be resumed",
        ("resume", ids["timed out"]): "`continue` begins another round",
        ("resume", "p-nothere"): "no pipeline",
    }.items():
        assert said in refusal(command(*arguments), code=1)
    assert "timeout: input should be greater" in refusal(command("continue", ids["held"], "--timeout", "0"))
    home = Path(os.environ["TRILOGUE_HOME"])
    assert not (home / "run").exists()
    assert not (home / "prefect").exists()


def test_db_says_where_the_schema_is_and_brings_it_up(command: Command, tmp_path: Path) -> None:
    newest = schema.head()
    assert command("db", "current", "--json").document == {"revision": None, "newest": newest}
    assert "at no revision: empty" in command("db", "current").out
    assert command("db", "upgrade").out == f"the ledger is at revision {newest}\n"
    assert command("db", "upgrade", "--json").document == {"revision": newest, "newest": newest}
    assert schema.current(sqlite_url(tmp_path / "home" / "ledger.db")) == newest


@pytest.mark.parametrize("revision", ["9999", "unheard-of"])
def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(
    command: Command, tmp_path: Path, revision: str
) -> None:
    command("db", "upgrade")
    database = tmp_path / "home" / "ledger.db"
    with sqlite3.connect(database) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", (revision,))
    connection.close()
    for arguments in (["list"], ["status", "p-1"], ["watch", "p-1"], ["db", "upgrade"], ["resume", "p-1"]):
        ended = command(*arguments)
        assert ended.code == 1
        assert f"is at schema revision '{revision}', which this version of Trilogue does not know" in ended.err
        assert ended.err.count("\n") == 1
    assert json.loads(command("db", "current", "--json").out)["revision"] == revision


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(command: Command, tmp_path: Path) -> None:
    database = tmp_path / "home" / "ledger.db"
    database.parent.mkdir()
    database.write_text("no database at all, " * 100)
    for arguments in (["list"], ["db", "upgrade"], ["db", "current"]):
        ended = command(*arguments)
        assert ended.code == 1
        assert f"{database}" in ended.err
        assert ended.err.count("\n") == 1
    assert database.read_text() == "no database at all, " * 100


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("postgresql://trilogue:s3cret-pw@127.0.0.1:9/trilogue", 1, "127.0.0.1"),
        ("mysql://trilogue:s3cret-pw@127.0.0.1/trilogue", 2, "use sqlite or postgresql"),
        ("s3cret-pw", 2, "the database address is no URL"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    command: Command, monkeypatch: pytest.MonkeyPatch, url: str, code: int, said: str
) -> None:
    monkeypatch.setenv("TRILOGUE_DATABASE_URL", url)
    for arguments in (["list"], ["db", "upgrade"]):
        ended = command(*arguments)
        assert ended.code == code, ended
        assert said in ended.err
        assert ended.err.count("\n") == 1
        assert "s3cret-pw" not in ended.err + ended.out
