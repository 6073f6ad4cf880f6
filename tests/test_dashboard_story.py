"""A pipeline's story is the same live and told again: turns with their times, words and ends."""

from dataclasses import replace

from tests.driving import MakeDriver
from trilogue.dashboard.story import Story
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.testing.openrouter import OpenRouterServer


async def test_a_turn_has_its_words_times_and_charge(driver_of: MakeDriver, rehearsed: OpenRouterServer) -> None:
    course = await (await driver_of(rehearsed)).run()
    story = Story.told(course.entries)
    ended = {entry.body["turn"]: entry for entry in course.entries if entry.kind is Kind.TURN_ENDED}
    assert story.turns.keys() == ended.keys()
    for number, turn in story.turns.items():
        body = ended[number].body
        assert (turn.ended_at, turn.outcome) == (ended[number].at, body["outcome"])
        assert (turn.tokens, turn.estimated) == (body["settled"]["tokens"], body["settled"]["estimated"])
        assert turn.cost_nanousd == body["cost_nanousd"]
        said = {"find": Kind.FINDING, "propose": Kind.PROPOSAL, "message": Kind.MESSAGE, "vote": Kind.VOTE}
        said |= {"critique": Kind.CRITIQUE, "revise": Kind.REVISION}
        assert [entry.kind for entry in turn.said] == [said[name] for name in body["actions"] if name != "pass"]


async def test_at_every_moment_the_story_is_that_of_the_entries_until_then(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    course = await (await driver_of(rehearsed)).run()
    live = Story()
    for seq, entry in enumerate(course.entries, start=1):
        live.add(entry)
        again = Story.told(course.entries[:seq])
        assert (again.turns, again.board.seq, again.board.proposals) == (live.turns, seq, live.board.proposals)


async def test_nothing_goes_on_beyond_the_end_of_a_stopped_pipeline(
    driver_of: MakeDriver, rehearsed: OpenRouterServer
) -> None:
    driver = await driver_of(rehearsed)
    course = await driver.run(auto_continue=False)
    begun = next(entry for entry in course.entries if entry.kind is Kind.TURN_BEGUN)
    await local(driver.services).stop(course.pipeline_id, "enough")
    stopped = await driver.course(course.pipeline_id)
    cut = [*course.entries[: begun.seq], *stopped.entries[len(course.entries) :]]
    story = Story.told(replace(entry, seq=seq) for seq, entry in enumerate(cut, start=1))
    turn = story.turns[begun.body["turn"]]
    assert (turn.outcome, turn.estimated) == ("cancelled", True)
    assert turn.ended_at == story.board.at
