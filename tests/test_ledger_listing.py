"""Pipelines are found by what people know of them, and a page of them tells what each cost, alike on both databases."""

from collections.abc import Awaitable, Callable, Collection

import pytest
from sqlalchemy import event

from trilogue.board import NOTHING
from trilogue.entry import Draft, Kind
from trilogue.errors import Invalid
from trilogue.ledger import Cost, Fence, Ledger
from trilogue.pipeline import Status

Find = Callable[..., Awaitable[list[str]]]


async def spawn(ledger: Ledger, pipeline_id: str, objective: str, *, tenant: str = "default", **body: object) -> None:
    first = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": objective, **body})
    await ledger.spawn(tenant, pipeline_id, [first], at=1)


@pytest.fixture
def find(ledger: Ledger) -> Find:
    """Ids of the pipelines that a search finds, whatever the pages' size, newest first."""

    async def ids(
        search: str | None, *, limit: int = 2, statuses: Collection[Status] = (), project: str | None = None
    ) -> list[str]:
        found, cursor = list[str](), None
        while True:
            page = await ledger.list_pipelines(
                "default", limit=limit, cursor=cursor, statuses=statuses, project=project, search=search
            )
            assert page.items or page.next is None
            found += [row.pipeline_id for row in page.items]
            if (cursor := page.next) is None:
                return found

    return ids


async def test_a_search_looks_at_objective_ids_project_and_labels_and_at_nothing_else(
    ledger: Ledger, find: Find
) -> None:
    await spawn(ledger, "p-aaa1", "Design a cache", project="Shop", labels=["nightly", 'the "big" one'])
    await spawn(ledger, "p-bbb2", "Review the plan", external_id="Ticket-4711", labels=[])
    await spawn(ledger, "p-ccc3", "Neither", model="hidden/model", errors={"in_all": 8})
    await spawn(ledger, "p-ddd4", "Design a cache", tenant="other")
    for search, expected in {
        "design A": ["p-aaa1"],
        "shop": ["p-aaa1"],
        "NIGHT": ["p-aaa1"],
        'THE "BIG"': ["p-aaa1"],
        "ticket-4": ["p-bbb2"],
        "BBB": ["p-bbb2"],
        "e": ["p-ccc3", "p-bbb2", "p-aaa1"],
        "hidden": [],
        "objective": [],
        "in_all": [],
        "cacheS": [],
        "cache\nnight": [],
        "one\np-": [],
    }.items():
        assert await find(search) == expected, search
    for nothing in (None, "", "  \n"):
        assert await find(nothing) == ["p-ccc3", "p-bbb2", "p-aaa1"]
    assert await find("  plan ") == ["p-bbb2"]


HARD = (
    "100%",
    "a_b",
    "c\\d",
    "it's; DROP TABLE pipelines; --",
    '"quoted"',
    "[abc]",
    "[^x]",
    "^",
    "star*",
    "what?",
    "a-z]",
    "{x} ${y} :z %s",
    "😀🏳️‍🌈",
    "\u202eright to left",
    "中文",
    "two\nlines",
)


@pytest.mark.parametrize("name", ["objective", "label"])
async def test_every_character_stands_for_itself(ledger: Ledger, find: Find, name: str) -> None:
    for number, text in enumerate(HARD):
        objective, labels = ("plain", [text]) if name == "label" else (f"say {text} here", [])
        await spawn(ledger, f"p-{number:02}", objective, labels=labels)
    for number, text in enumerate(HARD):
        found = await find(text, limit=5)
        assert found == [f"p-{other:02}" for other in reversed(range(len(HARD))) if text in HARD[other]], text
        assert f"p-{number:02}" in found
    for close in ("100x", "axb", "c\\\\d", "[b]", "starry", "\\u4e2d", "a.b"):
        assert await find(close) == [], close


async def test_upper_and_lower_case_are_one_in_every_alphabet(ledger: Ledger, find: Find) -> None:
    await spawn(ledger, "p-1", "Größe, Café, ЖИЗНЬ, αθήνα, İ")
    for search in ("GRÖ", "café", "CAFÉ", "жизнь", "Жизнь", "ΑΘΉΝΑ", "größe"):
        assert await find(search) == ["p-1"], search
    assert await find("CAFE") == []


async def test_a_search_goes_with_every_other_filter_page_by_page(ledger: Ledger, find: Find) -> None:
    for number in range(11):
        await spawn(ledger, f"p-{number:02}", f"{'even' if number % 2 == 0 else 'odd'} one", project=f"x{number % 3}")
    stopped = Draft(kind=Kind.STATUS, body={"status": "STOPPED", "error": None})
    for number in (2, 4):
        await ledger.append_outside("default", f"p-{number:02}", lambda _: [stopped], at=2)
    assert await find("EVEN") == ["p-10", "p-08", "p-06", "p-04", "p-02", "p-00"]
    assert await find("even", statuses=[Status.SPAWNED]) == ["p-10", "p-08", "p-06", "p-00"]
    assert await find("even", statuses=[Status.STOPPED, Status.FAILED]) == ["p-04", "p-02"]
    assert await find("even", statuses={Status.SPAWNED, Status.STOPPED}, project="x1") == ["p-10", "p-04"]
    assert await find("even", statuses=[Status.FAILED]) == []


WRONG = {"a\0b": "no text has", "e\x1fp": "no text has", "\ud800": "no text has", "y" * 10_000: "10,000 .* 1,000"}


async def test_what_no_text_holds_is_refused_and_what_is_long_is_only_not_found(ledger: Ledger, find: Find) -> None:
    await spawn(ledger, "p-1", "x" * 10_000)
    for bad, said in WRONG.items():
        with pytest.raises(Invalid, match=said) as refused:
            await find(bad)
        assert refused.value.code == "invalid_search"
    assert await find("x" * 1_000) == ["p-1"]
    for longest in ("y", "é", "😀", "*", "[", "Ⓐ"):
        assert await find(longest * 1_000) == []


def _turn(number: int, agent_id: str, cost: int | None, tokens: int | None) -> Draft:
    usage = None if tokens is None else {"input_tokens": tokens, "output_tokens": 1, "cached_tokens": None}
    body = {"turn": number, "agent_id": agent_id, "phase": "RUN", "round": 0, "outcome": "acted", "model": "m"}
    body |= {"usage": usage, "cost_nanousd": cost, "calls": 1, "notes": [], "error": None}
    body |= {"reserved": NOTHING.as_json(), "settled": {**NOTHING.as_json(), "estimated": False}}
    return Draft(kind=Kind.TURN_ENDED, actor=agent_id, body=body)


async def test_a_page_of_costs_takes_one_statement_and_unknown_is_never_nothing(
    ledger: Ledger, claimed: Callable[[str], Awaitable[Fence]]
) -> None:
    known, partly, none = [await claimed(f"p-{name}") for name in ("known", "partly", "none")]
    large = 3_000_000_000_000
    await ledger.append(known, [_turn(1, "alpha-1", large, 10), _turn(2, "beta-1", 4, 20)], at=1)
    await ledger.append(partly, [_turn(1, "alpha-1", 5, 7), _turn(2, "alpha-1", None, None)], at=1)
    statements = list[str]()
    event.listen(ledger._reading, "before_cursor_execute", lambda *told: statements.append(told[2]))
    costs = await ledger.costs("default", ["p-known", "p-partly", "p-none"])
    assert len(statements) == 1
    assert costs == {
        "p-known": Cost(nanousd=large + 4, input_tokens=30, output_tokens=2),
        "p-partly": Cost(nanousd=5, unknown=True, input_tokens=7, output_tokens=1),
        "p-none": Cost(),
    }
    assert [costs[name].usd for name in ("p-known", "p-partly", "p-none")] == [3000.000000004, None, 0]
    assert none.pipeline_id in costs
    assert await ledger.costs("other", ["p-known"]) == {"p-known": Cost()}
    assert await ledger.costs("default", []) == {}
