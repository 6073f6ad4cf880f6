"""A pipeline's status changes only as DESIGN section 3 has it, and its ids are what they claim to be."""

import re
from itertools import product

import pytest

from trilogue.errors import IllegalTransition
from trilogue.pipeline import LEGAL, Phase, Status, check_transition, new_pipeline_id, pipeline_id_for, status_in

BY_THE_DESIGN = {
    "SPAWNED": "RUNNING FAILED STOPPED",
    "RUNNING": "REPORT FAILED STOPPED",
    "REPORT": "ORCHESTRATING STOPPED",
    "ORCHESTRATING": "COMPLETED TIMEOUT ORCHESTRATION_FAILED ORCHESTRATION_ERROR FAILED STOPPED",
    "COMPLETED": "",
    "TIMEOUT": "ORCHESTRATING",
    "ORCHESTRATION_FAILED": "ORCHESTRATING",
    "ORCHESTRATION_ERROR": "ORCHESTRATING",
    "FAILED": "",
    "STOPPED": "",
}


def test_a_transition_passes_exactly_when_the_design_has_it() -> None:
    for present, wanted in product(Status, Status):
        legal = BY_THE_DESIGN[present].split()
        if wanted.value in legal:
            check_transition(present, wanted)
            continue
        with pytest.raises(IllegalTransition) as refused:
            check_transition(present, wanted)
        assert all(name in refused.value.message for name in (present, wanted, *(legal or ["ended"])))


def test_only_held_and_undecided_pipelines_can_be_continued() -> None:
    continuable = {status for status in Status if status.continuable}
    assert continuable == {
        Status.REPORT,
        Status.TIMEOUT,
        Status.ORCHESTRATION_FAILED,
        Status.ORCHESTRATION_ERROR,
    }


def test_every_end_is_an_end_and_every_way_leads_to_one() -> None:
    reached, frontier = {Status.SPAWNED}, [Status.SPAWNED]
    while frontier:
        for following in LEGAL[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached == set(Status)
    assert all(status.ended for status in Status if not LEGAL[status] - {Status.ORCHESTRATING} and status != "REPORT")
    assert not any(status.ended for status in (Status.SPAWNED, Status.RUNNING, Status.REPORT, Status.ORCHESTRATING))


def test_resume_leads_back_to_the_status_of_the_phase() -> None:
    assert [status_in(phase) for phase in Phase] == [
        Status.SPAWNED,
        Status.RUNNING,
        Status.REPORT,
        Status.ORCHESTRATING,
        Status.ORCHESTRATING,
    ]


def test_ids_are_fresh_and_a_flow_runs_own_id_is_always_the_same() -> None:
    form = re.compile(r"p-[0-9a-hjkmnp-tv-z]{12}")
    fresh = {new_pipeline_id() for _ in range(500)}
    derived = {pipeline_id_for(f"run-{number}") for number in range(500)}
    assert len(fresh) == len(derived) == 500
    assert all(form.fullmatch(one) for one in fresh | derived)
    assert pipeline_id_for("run-7") == pipeline_id_for("run-7") in derived
