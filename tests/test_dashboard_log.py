"""The log of a page: every entry is a row, and earlier rows come as they are wanted."""

import re
from html import unescape
from typing import Any

import pytest

from tests.fixtures.api import Api, assert_problem
from trilogue.api.loglines import Level, level_of
from trilogue.board import fold
from trilogue.dashboard.drawing import log_row
from trilogue.dashboard.parts import log
from trilogue.entry import Entry, Kind
from trilogue.ledger.opening import TENANT
from trilogue.testing.long_story import write_long_story

_LONG = "p-long"
_MORE_THAN_ONE_LOOK = 2_300
"""Entries: one request looks at 2,000 of them."""


def seqs(rows: list[str]) -> list[int]:
    """The `seq` of each row."""
    found = [re.findall(r'data-seq="(\d+)"', row) for row in rows]
    assert all(len(one) == 1 for one in found)
    return [int(one) for (one,) in found]


async def all_earlier(api: Api, pipeline_id: str, before: int, **wanted: str) -> tuple[list[int], int]:
    """Every wanted row before an entry, oldest first, and how many requests that took."""
    told, requests, following = list[int](), 0, before
    while following:
        page: dict[str, Any] = await api.get(f"/pipelines/{pipeline_id}/log", before=following, **wanted)
        told = seqs(page["rows"]) + told
        assert page["next"] is None or page["next"] < following
        following, requests = page["next"], requests + 1
    return told, requests


async def test_earlier_rows_come_without_gap_or_repeat_and_only_what_is_wanted(api: Api) -> None:
    await write_long_story(api.services.ledger, TENANT, _LONG, entries=700)
    entries = await api.services.ledger.entries(TENANT, _LONG)
    board = fold(entries)

    everything, requests = await all_earlier(api, _LONG, len(entries) + 1)
    assert everything == [entry.seq for entry in entries]
    assert requests == -(-len(entries) // 200)
    assert (await all_earlier(api, _LONG, 2**31 - 1))[0] == everything
    assert (await all_earlier(api, _LONG, 77))[0] == list(range(1, 77))
    assert (await all_earlier(api, _LONG, 1))[0] == []

    def wanted(entry: Entry) -> bool:
        return board.role_of(entry.actor) == "BETA" and "numbeR" in entry.body.get("text", "").replace("r", "R")

    found, _ = await all_earlier(api, _LONG, 2**31 - 1, actor="BETA", kind="said", q="A NUMBER")
    assert found == [entry.seq for entry in entries if wanted(entry)] != []
    found, _ = await all_earlier(api, _LONG, 2**31 - 1, level="warning")
    assert found == [entry.seq for entry in entries if level_of(entry) >= Level.warning] != []
    found, _ = await all_earlier(api, _LONG, 2**31 - 1, kind="turns")
    assert found == [entry.seq for entry in entries if entry.kind in {Kind.TURN_BEGUN, Kind.TURN_ENDED}]
    found, _ = await all_earlier(api, _LONG, 2**31 - 1, q="turn ended")
    assert found == [entry.seq for entry in entries if entry.kind is Kind.TURN_ENDED]


async def test_one_request_looks_at_so_much_and_says_where_to_go_on(api: Api) -> None:
    await write_long_story(api.services.ledger, TENANT, _LONG, entries=_MORE_THAN_ONE_LOOK)
    page = await api.get(f"/pipelines/{_LONG}/log", before=_MORE_THAN_ONE_LOOK, q="nobody said that")
    assert (page["rows"], 1 < page["next"] < _MORE_THAN_ONE_LOOK - 1_500) == ([], True)
    assert await all_earlier(api, _LONG, _MORE_THAN_ONE_LOOK, q="nobody said that") == ([], 2)


async def test_what_cannot_be_asked_for_is_refused(api: Api) -> None:
    assert_problem(await api.client.get("/pipelines/p-none/log", params={"before": 9}), 404, "no_pipeline")
    for name, value in {"before": "0", "actor": "DELTA", "kind": "x", "level": "loud", "q": "x" * 201}.items():
        answer = await api.client.get("/pipelines/p-none/log", params={"before": "9", name: value})
        assert_problem(answer, 422, f"invalid_{name}")


async def test_a_row_says_who_what_and_how_much_it_matters_and_leads_to_the_whole_entry(api: Api) -> None:
    pipeline_id = await api.spawn()
    course = await api.carry(pipeline_id)
    page = (await api.client.get(f"/pipelines/{pipeline_id}")).text
    for entry in course.entries:
        row = log_row(course.board, entry)
        assert row in page
        role = course.board.role_of(entry.actor)
        assert f'data-kind="{entry.kind}"' in row
        assert f'data-actor="{role}"' in row
        assert f'data-level="{level_of(entry).name}"' in row
        assert f'<span class="chip {role.lower() if role.isupper() else "idle"}"' in row
        [address] = re.findall(r'href="([^"]*)"', row)
        told = (await api.client.get(unescape(address))).json()
        assert [(item["seq"], item["hash"]) for item in told["items"]] == [(entry.seq, entry.hash)]


@pytest.mark.parametrize("hostile", ["</li></ol><script>alert(1)</script>", '"><img src=x onerror=y>', "{{ 7 * 7 }}"])
async def test_whatever_is_in_an_entry_stays_the_text_of_its_row(api: Api, hostile: str) -> None:
    pipeline_id = await api.spawn(objective=hostile)
    [row] = (await api.get(f"/pipelines/{pipeline_id}/log", before=2))["rows"]
    assert set(re.findall(r"</?([a-z]+)", row)) == {"li", "details", "summary", "span", "time", "div", "a"}
    assert not re.findall(r"<[^>]*\b(?:on\w+|style|src)=", row)
    assert hostile in unescape(re.sub(r"<[^>]*>", "", row))


def test_each_kind_of_entry_is_in_the_group_that_tells_of_it() -> None:
    groups = {kind: log.group_of(kind) for kind in Kind}
    assert {kind for kind, group in groups.items() if group == "turns"} == {Kind.TURN_BEGUN, Kind.TURN_ENDED}
    assert groups[Kind.VOTE] == groups[Kind.GUIDANCE] == "said"
    assert groups[Kind.MANDATE] == groups[Kind.VIOLATION] == "governance"
    assert groups[Kind.STOPPED] == groups[Kind.CHECKPOINT] == groups[Kind.MEDIATION_STARTED] == "course"
