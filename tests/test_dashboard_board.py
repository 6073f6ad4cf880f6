"""Between the lanes stands what is agreed, who voted how, why GAMMA came and who dissents; lanes show turn by turn."""

from dataclasses import replace

from tests.driving import Course, Driver, MakeDriver
from tests.fixtures.model_server import KEY
from tests.telling import Teller
from trilogue import clock
from trilogue.dashboard.drawing import draw
from trilogue.dashboard.parts import lanes, middle, stepper
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import Kind
from trilogue.ledger.opening import TENANT
from trilogue.testing.openrouter import OpenRouterServer


async def scene_of(course: Course, driver: Driver, *, until: int | None = None) -> Scene:
    row = await driver.services.ledger.get_pipeline(TENANT, course.pipeline_id)
    story = Story.told(course.entries[:until])
    return Scene(story=story, row=row, now=clock.now(), replay=until is not None)


async def test_the_agreed_proposal_stands_out_with_both_voters(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run()
    shown = middle.shown(await scene_of(course, driver))
    [card] = [card for card in shown["cards"] if card.state == "agreed"]
    assert card.id == course.board.consensus["proposal_id"]  # type: ignore[index]
    assert {(stand.role, stand.verdict) for stand in card.stands} == {("ALPHA", "author"), ("BETA", "approve")}


async def test_a_vote_on_an_earlier_revision_is_shown_as_one_that_no_longer_counts(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run()
    seen = set()
    for until in range(1, len(course.entries) + 1):
        for card in middle.shown(await scene_of(course, driver, until=until))["cards"]:
            for stand in card.stands:
                seen.add((stand.verdict, stand.former))
                assert not (stand.former and stand.verdict != "open")
    assert ("approve", False) in seen
    assert ("open", True) in seen, "BETA rejects the first revision, so its vote is one of a former revision"


async def test_a_conflict_shows_gammas_trigger_evidence_ruling_and_the_dissent(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(model="rehearsal/conflict", mode="local")
    shown = middle.shown(await scene_of(course, driver))
    [meeting] = shown["meetings"]
    assert meeting.mediation.trigger == "CONFLICT"
    assert ("unresolved", "p1, p2, p3") in meeting.evidence
    assert meeting.ruling.proposal == shown["consensus"]["proposal_id"]
    assert [card.state for card in shown["cards"] if card.id == meeting.ruling.proposal] == ["chosen"]
    assert shown["consensus"]["dissent"]
    assert not meeting.under_way


async def test_lanes_show_each_turn_under_its_phase_or_round(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run()
    lane = lanes.alpha(await scene_of(course, driver))
    assert [block.heading for block in lane["blocks"] if block.heading] == ["RUN · alpha-1", "Round 1 · alpha-1"]
    assert lane["state"] == "completed"
    everything = [said for block in lane["blocks"] for said in block.said]
    assert {said.verb for said in everything} >= {"finds", "proposes"}


def test_a_turn_that_a_rewinding_took_back_says_so_and_leads_nowhere() -> None:
    teller = Teller()
    teller.turn(0, 1)
    to_seq = teller.board.seq
    teller.say(2, Kind.CHECKPOINT, name="here", to_seq=to_seq, status="RUNNING", phase="RUN", round=0)
    number = teller.begin(3, "alpha-1")
    teller.say(4, Kind.PROPOSAL, "alpha-1", id="p1", title="A queue", text="Kafka", turn=number)
    teller.end(4, number)
    assert 'href="#thing-p1"' in draw(teller.scene())["alpha"]
    body = {"status": "RUNNING", "phase": "RUN", "round": 0, "deadline": None, "agents": {}, "gone": []}
    teller.say(5, Kind.REWOUND, to_seq=to_seq, checkpoint="here", reason="", error=None, **body)
    teller.turn(6, 7)
    headings = [block.heading for block in lanes.alpha(teller.scene())["blocks"]]
    assert headings == ["RUN · alpha-1", "RUN · alpha-1 · undone", "RUN · alpha-1"]
    assert 'href="#thing-p1"' not in draw(teller.scene())["alpha"]


async def test_a_turn_that_failed_says_why(driver_of: MakeDriver, rehearsed: OpenRouterServer) -> None:
    driver = await driver_of(rehearsed, key=KEY, call_tries=1)
    course = await driver.run(model="rehearsal/faulty", mode="local")
    found = [
        block.trouble for role in (lanes.alpha, lanes.beta) for block in role(await scene_of(course, driver))["blocks"]
    ]
    assert course.outcomes().count("acted") == found.count("")
    assert len(found) == len(course.outcomes())


async def test_a_turn_whose_worker_is_gone_is_not_shown_as_going_on(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run()
    begun = next(entry.seq for entry in course.entries if entry.kind is Kind.TURN_BEGUN)
    row = await driver.services.ledger.get_pipeline(TENANT, course.pipeline_id)
    orphaned = Scene(story=Story.told(course.entries[:begun]), row=row, now=clock.now())
    held = replace(row, lease_until=row.read_at + 1)
    for scene, state, working in ((orphaned, "interrupted", False), (replace(orphaned, row=held), "in a turn", True)):
        lane = lanes.alpha(scene)
        assert (lane["state"], lane["working"]) == (state, working)


async def test_the_phases_tell_what_is_done_what_is_held_and_what_lies_ahead(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(auto_continue=False)
    steps = stepper.shown(await scene_of(course, driver))["steps"]
    assert [step.state for step in steps] == ["done", "done", "held", "ahead", "ahead"]
    course = await driver.carry_on(course.pipeline_id)
    steps = stepper.shown(await scene_of(course, driver))["steps"]
    assert [step.state for step in steps] == ["done"] * 5
    assert all(step.took is not None and step.since is None for step in steps)
