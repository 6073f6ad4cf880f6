"""Checkpoints on a page: what they are, what differs between them, and whether the pipeline may go on from them."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.api import Api
from trilogue.board import fold
from trilogue.board.view import difference
from trilogue.dashboard.comparing import Fact, compared, word_by_word
from trilogue.ledger.opening import TENANT
from trilogue.testing.long_story import write_long_story

_LONG = "p-long"
_FIRST, _SECOND = 68, 300
"""Between them its proposals are revised and voted on."""


async def part(api: Api, pipeline_id: str, **query: int) -> str:
    """The checkpoints' part of a page."""
    answer = await api.client.get(f"/pipelines/{pipeline_id}", params=query)
    assert answer.status_code == 200
    found = re.search(r'data-part="checkpoints"[^>]*>(.*?)</section>', answer.text, re.DOTALL)
    assert found
    return found[1]


def buttons(html: str) -> dict[int, str | None]:
    """Why the pipeline cannot go on, by the checkpoint's seq; None where it can."""
    found = re.findall(r"<button[^>]*data-opens=\"rewind\"[^>]*>", html)
    assert found
    told = {}
    for button in found:
        [seq] = re.findall(r'data-hint-checkpoint="(\d+)"', button)
        obstacle = re.search(r' title="([^"]*)"', button)
        assert (obstacle is not None) == ('aria-disabled="true"' in button) == ("aria-describedby" in button)
        told[int(seq)] = unescape(obstacle[1]) if obstacle else None
    return told


async def test_each_checkpoint_is_shown_and_the_last_two_are_compared_by_default(api: Api) -> None:
    pipeline_id = await api.spawn()
    await api.carry(pipeline_id)
    html = await part(api, pipeline_id)
    known = (await api.get(f"/api/pipelines/{pipeline_id}/checkpoints"))["items"]
    assert [item["name"] for item in known] == re.findall(r'<th scope="row"[^>]*>([^<]*)', html)
    seqs = [item["to_seq"] for item in known]
    assert list(buttons(html)) == seqs
    assert [int(seq) for seq in re.findall(r'\?at=(\d+)"', html)] == seqs
    chosen = re.findall(r'name="(from|to)" value="(\d+)"[^>]* checked', html)
    assert chosen == [("from", str(seqs[-2])), ("to", str(seqs[-1]))]


async def test_whether_it_may_go_on_from_one_is_said_with_the_reason(api: Api) -> None:
    held = await api.spawn(auto_continue=False)
    await api.carry(held)
    assert set(buttons(await part(api, held)).values()) == {None}
    assert set(buttons(await part(api, held, at=10)).values()) == {
        "This is the pipeline as it stood. Go back to the present to act."
    }
    assert 'data-hint-reason=""' in await part(api, held)
    await api.client.post(f"/api/pipeline/{held}/stop", json={"reason": "wrong"})
    stopped = await part(api, held)
    assert set(buttons(stopped).values()) == {None}
    assert 'data-hint-reason=""' not in stopped
    seq = list(buttons(stopped))[-2]
    answer = await api.client.post(f"/api/pipeline/{held}/rewind", json={"checkpoint": str(seq), "reason": "after all"})
    assert (answer.status_code, answer.json()["status"]) == (202, "REPORT")

    done = await api.spawn()
    await api.carry(done)
    [why] = set(buttons(await part(api, done)).values())
    assert why
    assert "COMPLETED" in why


async def test_what_differs_is_all_that_the_boards_do_not_share_and_turns_around_with_them(api: Api) -> None:
    await write_long_story(api.services.ledger, TENANT, _LONG, entries=_SECOND)
    entries = await api.services.ledger.entries(TENANT, _LONG)
    expected = difference(fold(entries[:_FIRST]), fold(entries[:_SECOND]))
    forth, back = compared(entries, _FIRST, _SECOND), compared(entries, _SECOND, _FIRST)
    assert [(s.name, t.id, t.change) for s in forth for t in s.things] == [
        (one.section, one.id, one.change) for one in expected
    ]
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    assert sorted((s.name, t.id, turned[t.change]) for s in back for t in s.things) == sorted(
        (one.section, one.id, one.change) for one in expected
    )
    assert compared(entries, _FIRST, _FIRST) == []
    html = (await api.client.get(f"/pipelines/{_LONG}/compare", params={"from": _FIRST, "to": _SECOND})).text
    assert html.count('<li class="thing">') == len(expected)
    assert html.count(">changed<") == sum(one.change == "changed" for one in expected) > 0
    assert "revision 1 to" in html
    assert "<ins>" in html


async def test_a_revised_proposal_shows_which_words_are_other_ones(api: Api) -> None:
    await write_long_story(api.services.ledger, TENANT, _LONG, entries=_SECOND)
    entries = await api.services.ledger.entries(TENANT, _LONG)
    facts = [
        fact for s in compared(entries, _FIRST, _SECOND) if s.name == "proposals" for t in s.things for fact in t.facts
    ]
    titles = [fact for fact in facts if fact.name.startswith("revision") and fact.name.endswith("title")]
    assert titles
    assert all(fact.after and fact.after != fact.before for fact in titles)
    votes = [fact for fact in facts if fact.name.startswith("vote")]
    assert any(fact.before is None and fact.after and fact.after.startswith("reject: ") for fact in votes)


async def test_what_is_compared_and_shown_is_bounded(api: Api) -> None:
    await write_long_story(api.services.ledger, TENANT, _LONG, entries=900)
    entries = await api.services.ledger.entries(TENANT, _LONG)
    [messages] = [section for section in compared(entries, 1, len(entries)) if section.name == "messages"]
    assert len(messages.things) == 100
    assert messages.more == len(fold(entries).messages) - 100 > 0
    html = (await api.client.get(f"/pipelines/{_LONG}/compare", params={"from": 1, "to": len(entries)})).text
    assert f"And {messages.more} more." in html
    assert word_by_word("a " * 601, "b " * 601) == word_by_word("one thing", "something else entirely") == []


@given(st.lists(st.sampled_from("abcdefgh \n"), max_size=80).map("".join), st.text("abcdefgh \n", max_size=80))
def test_the_words_of_both_texts_can_be_read_out_of_their_comparison(before: str, after: str) -> None:
    pieces = word_by_word(before, after)
    if pieces:
        assert "".join(piece.text for piece in pieces if piece.change != "added") == before
        assert "".join(piece.text for piece in pieces if piece.change != "removed") == after


def test_a_fact_fits_on_a_line_only_when_it_is_short() -> None:
    assert Fact("turns", "1", "12").short
    assert not Fact("text", "word " * 20, "words").short


@pytest.mark.parametrize(("first", "second"), [(1, 9_999), (9_999, 1)])
async def test_a_moment_that_is_not_there_cannot_be_compared(api: Api, first: int, second: int) -> None:
    pipeline_id = await api.spawn()
    for known in (pipeline_id, "p-none"):
        answer = await api.client.get(f"/pipelines/{known}/compare", params={"from": first, "to": second})
        assert answer.status_code == 404
        assert (f"{known} has entries 1 to 1" if known == pipeline_id else "no pipeline") in answer.text


async def test_hostile_words_stay_words_where_they_differ(api: Api) -> None:
    hostile = "<script>alert(1)</script>"
    pipeline_id = await api.spawn(auto_continue=False)
    await api.carry(pipeline_id)
    guidance = {"pipeline_id": pipeline_id, "guidance": f"{hostile} [x](javascript:alert(1))"}
    assert (await api.client.post("/api/pipeline/continue", json=guidance)).status_code == 202
    head = (await api.get(f"/api/pipelines/{pipeline_id}"))["ledger"]["entries"]
    answer = await api.client.get(f"/pipelines/{pipeline_id}/compare", params={"from": 1, "to": head})
    assert hostile not in answer.text
    assert 'href="javascript' not in answer.text
    assert "alert(1)" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
