"""What a page says of the report and of what was agreed: who decided, who dissented, and without agreement why."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.fixtures.api import Api
from trilogue.dashboard.drawing import draw
from trilogue.dashboard.parts import result
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import Entry, Kind
from trilogue.ledger.opening import TENANT


async def scene_of(api: Api, pipeline_id: str, *, replay: bool = False) -> Scene:
    """A pipeline as it stands."""
    row = await api.services.ledger.get_pipeline(TENANT, pipeline_id)
    story = Story.told(await api.services.ledger.entries(TENANT, pipeline_id))
    return Scene(story=story, row=row, now=story.board.at, replay=replay)


def going_on(scene: Scene, kind: Kind, body: Mapping[str, Any]) -> Scene:
    """The same with one entry more."""
    last: Entry = scene.story.entries[-1]
    entry = replace(last, seq=last.seq + 1, kind=kind, actor="system", body=body)
    return replace(scene, story=Story.told([*scene.story.entries, entry]))


def words(html: str) -> str:
    """What a reader sees of it."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


async def test_a_ruling_is_shown_with_who_made_it_and_who_dissented(api: Api) -> None:
    pipeline_id = await api.spawn(model="rehearsal/conflict")
    course = await api.carry(pipeline_id)
    consensus = course.board.consensus
    assert consensus
    assert consensus["dissent"]
    html = draw(await scene_of(api, pipeline_id))["result"]
    told = words(html)
    assert "decided by a ruling of GAMMA" in told
    assert f"Dissent ALPHA {consensus['dissent'][0]['reason']}" in told
    assert "ALPHA rejects" in told
    assert "BETA approves by authorship" in told
    assert "uncontested" not in told
    assert str(consensus["title"]) in told
    for name in ("result.md", "result.json"):
        assert f'href="/pipelines/{pipeline_id}/{name}" download' in html


async def test_what_one_agent_decided_alone_is_marked_as_uncontested(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    await api.carry(pipeline_id)
    alone = {
        "proposal_id": "s1",
        "revision": None,
        "title": "Alone <b>",
        "text": "# It\n\n**is** so <script>alert(1)</script>",
        "votes": [{"voter": "alpha-1", "verdict": "approve", "reason": "by authorship"}],
        "decided_by": "alpha-1 alone",
        "dissent": [],
        "uncontested": True,
    }
    html = draw(going_on(await scene_of(api, pipeline_id), Kind.CONSENSUS, alone))["result"]
    assert "agreed uncontested s1 decided by its author alone" in words(html)
    assert "<strong>is</strong>" in html
    assert "<script" not in html
    assert "Alone &lt;b&gt;" in html


async def test_without_agreement_it_says_why_and_what_there_is(api: Api) -> None:
    pipeline_id = await api.spawn(auto_continue=False)
    waiting = await scene_of(api, pipeline_id)
    assert words(draw(waiting)["result"]) == "Result JSON Nothing is agreed yet: the pipeline waits for a worker."
    assert "No report yet" in draw(waiting)["report"]
    await api.carry(pipeline_id)
    held = await scene_of(api, pipeline_id)
    assert "Nothing is agreed yet: the negotiation has not begun." in words(draw(held)["result"])
    error = {"status": "TIMEOUT", "error": {"code": "late", "message": "no agreement within 5 s"}}
    ended = going_on(held, Kind.STATUS, {**error, "status": "STOPPED"})
    assert "There is no agreed text: no agreement within 5 s." in words(draw(ended)["result"])


async def test_subtasks_say_whether_they_are_solved_and_solutions_can_be_read(api: Api) -> None:
    pipeline_id = await api.spawn(model="rehearsal/complex")
    course = await api.carry(pipeline_id)
    shown = result.shown(await scene_of(api, pipeline_id))
    solved = {solution.subtask for solution in course.board.solutions.values()}
    assert (
        [(task["id"], task["solved"]) for task in shown["subtasks"]]
        == [(task, task in solved) for task in course.board.subtasks]
        != []
    )
    assert (
        [solution["text"] for solution in shown["solutions"]]
        == [solution.text for solution in course.board.solutions.values()]
        != []
    )


async def test_the_report_says_whether_it_went_on_by_itself_and_why_not(api: Api) -> None:
    by_itself, held = await api.spawn(), await api.spawn(auto_continue=False)
    for pipeline_id in (by_itself, held):
        await api.carry(pipeline_id)
    assert "went on by itself" in draw(await scene_of(api, by_itself))["report"]
    html = draw(await scene_of(api, held))["report"]
    assert "held" in words(html)
    assert "the pipeline was started with auto_continue off" in words(html)
    assert f'data-copy="/pipelines/{held}/report.md"' in html


async def test_in_a_replay_nothing_is_offered_that_is_of_the_present(api: Api) -> None:
    pipeline_id = await api.spawn()
    await api.carry(pipeline_id)
    parts = draw(await scene_of(api, pipeline_id, replay=True))
    for name in ("result", "report"):
        assert "data-copy" not in parts[name]
        assert "href=" not in parts[name]
        assert "To copy or download it, go back to the present." in parts[name]


def test_a_text_gets_a_box_of_its_own_only_when_it_is_long() -> None:
    assert [result.is_long(text) for text in ("short", "x" * 1_401, "line\n" * 25)] == [False, True, True]
