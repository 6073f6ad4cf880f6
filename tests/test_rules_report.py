"""The report joins what was found, and says whether the pipeline goes on, and if not, why."""

from typing import Any

import pytest

from tests.rooms import FINDING, PASS, MemoryRoom, bodies, played, propose, rules, say, scripted, vote
from trilogue.entry import Kind
from trilogue.errors import Conflict, EndpointFault, IllegalTransition
from trilogue.interventions import check_continuable
from trilogue.pipeline import Status
from trilogue.report import continuation, report_body

AGREE = {"ALPHA": [say(propose("one"))], "BETA": [say(PASS), say(vote("p1"))]}
FORBIDDEN = say({"action": "rule"})


def held(lines: dict[str, Any] | None = None, **options: Any) -> MemoryRoom:
    return played(scripted(lines or {}), auto_continue=False, **options)


@pytest.mark.parametrize("auto_continue", [True, False])
@pytest.mark.parametrize("auto_orchestrate", [True, False])
def test_only_both_switches_together_let_it_go_on_by_itself(*, auto_continue: bool, auto_orchestrate: bool) -> None:
    board = held().board
    board.spec = {**board.spec, "auto_continue": auto_continue}
    found = continuation(board, auto_orchestrate=auto_orchestrate)
    assert found.eligible
    assert found.auto == (auto_continue and auto_orchestrate)
    assert len(found.reasons) == (not auto_continue) + (not auto_orchestrate)
    assert any("AUTO_ORCHESTRATE" in reason for reason in found.reasons) == (not auto_orchestrate)


def test_a_held_pipeline_stays_at_its_report_with_a_checkpoint() -> None:
    room = held()
    assert room.board.status is Status.REPORT
    assert room.board.checkpoints == ("spawned", "report")
    assert room.board.report is not None
    assert room.board.report["continuation"]["eligible"] is True
    assert room.board.report["continuation"]["auto"] is False
    check_continuable(room.board)


def test_checkpoints_are_made_after_spawn_report_and_at_the_end_each_naming_what_it_holds() -> None:
    room = played(scripted(AGREE))
    made = bodies(room, Kind.CHECKPOINT)
    assert [body["name"] for body in made] == ["spawned", "report", "completed"]
    assert [body["phase"] for body in made] == ["SPAWN", "REPORT", "COMPLETE"]
    places = [entry.seq for entry in room.entries if entry.kind is Kind.CHECKPOINT]
    assert [body["to_seq"] for body in made] == [seq - 1 for seq in places]
    assert [body["details"] for body in made] == [None] * 3


def test_a_failed_pipelines_checkpoint_says_what_failed_and_where_each_agent_stood() -> None:
    away = [say(EndpointFault("http://127.0.0.1:1 answered 503"))] * 500
    room = played(scripted({"run-ALPHA": away, "run-BETA": away}), limits=rules(agent_timeout=5))
    last = bodies(room, Kind.CHECKPOINT)[-1]
    assert (last["name"], last["status"], last["phase"]) == ("failed", "FAILED", "RUN")
    assert last["details"]["error"]["code"] == "endpoint_unavailable"
    assert [a["endpoint_fault"] for a in last["details"]["agents"]] == ["http://127.0.0.1:1 answered 503"] * 2


def test_the_report_is_markdown_of_every_finding_by_its_agent() -> None:
    finding = {**FINDING, "title": "Read paths", "text": "Nine of ten are reads.", "evidence": "load.md"}
    board = held({"run-ALPHA": [say(finding, {**finding, "title": "Write paths"})]}).board
    assert board.report is not None
    markdown = board.report["markdown"]
    assert board.report["findings"] == 3
    assert 0 <= board.report["complexity"] <= 1
    for expected in ("# Report: Design a caching strategy", "## ALPHA", "## BETA", "f1. Read paths", "Write paths"):
        assert expected in markdown
    assert "*Evidence:* load.md" in markdown
    assert markdown.index("## ALPHA") < markdown.index("Read paths") < markdown.index("## BETA")


def test_an_agent_that_was_taken_out_or_ran_out_of_time_does_not_hold_up_its_partner() -> None:
    for beta in (FORBIDDEN, say(FINDING, after=500)):
        board = held({"run-BETA": [beta]}).board
        assert board.status is Status.REPORT
        assert continuation(board, auto_orchestrate=True).eligible
        assert report_body(board, auto_orchestrate=True)["findings"] == 1
    assert "No findings." in str(board.report)


def test_without_findings_the_pipeline_fails_and_cannot_be_continued() -> None:
    board = played(scripted({"run-ALPHA": [say(PASS)], "run-BETA": [say(PASS)]})).board
    assert (board.status, board.error and board.error["code"]) == (Status.FAILED, "no_findings")
    with pytest.raises(IllegalTransition):
        check_continuable(board)
    board.status = Status.REPORT
    board.findings.clear()
    assert not continuation(board, auto_orchestrate=True).eligible
    with pytest.raises(Conflict, match="no agent has findings"):
        check_continuable(board)


def test_a_violation_by_every_agent_in_run_fails_the_pipeline() -> None:
    board = played(scripted({"run-ALPHA": [FORBIDDEN], "run-BETA": [FORBIDDEN]})).board
    assert (board.status, board.error and board.error["code"]) == (Status.FAILED, "no_agent_left")


def test_agents_in_run_work_at_the_same_time_and_see_nothing_of_each_other() -> None:
    shown: list[str] = []
    model = scripted(
        {"run-ALPHA": [say({**FINDING, "title": "a-secret"}, after=3)], "run-BETA": [say(FINDING, after=3)]}
    )

    def recorded(room: MemoryRoom, agent: Any, turn: Any, prompt: str, offer: Any) -> Any:
        shown.append(prompt)
        return model(room, agent, turn, prompt, offer)

    room = played(recorded, auto_continue=False)
    kinds = [entry.kind for entry in room.entries if entry.kind in {Kind.TURN_BEGUN, Kind.TURN_ENDED}]
    assert kinds == [Kind.TURN_BEGUN] * 2 + [Kind.TURN_ENDED] * 2
    assert not any("a-secret" in prompt for prompt in shown)
