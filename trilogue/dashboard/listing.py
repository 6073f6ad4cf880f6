"""The list of pipelines on the home page: what narrows it, and what it tells of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from trilogue.clock import SECOND
from trilogue.dashboard.statuses import Standing, standing
from trilogue.ledger import Cost, Page, PipelineRow
from trilogue.pipeline import Phase, Status

PER_PAGE: Final = 50
MOST_COUNTED: Final = 99
"""Pipelines under way or held that are counted; where there are more, it says so."""

_LABELS_SHOWN: Final = 3


EXAMPLES: Final = (
    "Choose a message queue for a shop that takes 2,000 orders a minute, and say what would change the choice",
    "Design a caching strategy for the product catalogue of a shop with three regions",
    "Our nightly import takes nine hours. Find out what to change first, and how to know that it helped",
)
"""Objectives for a newcomer to begin with."""


@dataclass(frozen=True, kw_only=True)
class State:
    """One choice of what to list. `about` says what is in it where its words do not."""

    name: str
    words: str
    statuses: frozenset[Status] = frozenset()
    about: str = ""


STATES: Final = (
    State(name="", words="All"),
    State(
        name="under-way",
        words="Under way",
        statuses=frozenset({Status.SPAWNED, Status.RUNNING, Status.ORCHESTRATING}),
        about="waiting for a worker, in research, or negotiating",
    ),
    State(
        name="at-report",
        words="At report",
        statuses=frozenset({Status.REPORT}),
        about="held with its report, until somebody continues it",
    ),
    State(name="completed", words="Completed", statuses=frozenset({Status.COMPLETED})),
    State(
        name="otherwise",
        words="Ended otherwise",
        statuses=frozenset({Status.TIMEOUT, Status.ORCHESTRATION_FAILED, Status.ORCHESTRATION_ERROR, Status.FAILED}),
        about="timed out, without agreement, or failed",
    ),
    State(name="stopped", words="Stopped", statuses=frozenset({Status.STOPPED})),
)
"""Every status is in one of them, besides the first."""

_COUNTED = ("under-way", "at-report")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a page asks for. Attributes are as in its address; `state` is the name of one of `STATES`."""

    q: str = ""
    state: str = ""
    project: str = ""
    cursor: str = ""

    @classmethod
    def of(cls, q: str, state: str, project: str, cursor: str) -> "Wanted":
        """From an address that anybody may have written; a state that there is not is none."""
        known = state if any(one.name == state for one in STATES) else ""
        return cls(q=q.strip(), state=known, project=project if project.strip() else "", cursor=cursor)

    @property
    def chosen(self) -> State:
        """The state that is wanted."""
        return next(one for one in STATES if one.name == self.state)

    @property
    def narrowed(self) -> bool:
        """Whether there may be pipelines that it leaves out."""
        return bool(self.q or self.state or self.project)

    def address(self, **changed: str) -> str:
        """The page of the same but for what is `changed`, from its beginning unless a cursor is given."""
        asked = replace(self, **{"cursor": "", **changed})
        given = {name: value for name, value in vars(asked).items() if value}
        return f"/?{urlencode(given)}" if given else "/"


@dataclass(frozen=True, kw_only=True)
class Item:
    """A pipeline in the list.

    Attributes:
        created: when it was spawned, in UTC, for pages that cannot tell how long ago that was.
        steps: of each phase in order whether it is `done`, `now` or `ahead`.
        more_labels: how many labels are not among `labels`.
    """

    row: PipelineRow
    standing: Standing
    cost: Cost
    created: str
    steps: Sequence[str]
    labels: Sequence[str]
    more_labels: int


def listed(page: Page, costs: Mapping[str, Cost], open_: Sequence[PipelineRow], wanted: Wanted) -> Mapping[str, Any]:
    """What `templates/list.html` shows.

    Args:
        open_: all pipelines that have not ended, or more than `MOST_COUNTED` of them.
    """
    items = [_item(row, costs[row.pipeline_id]) for row in page.items]
    return {
        "wanted": wanted,
        "states": [(state, _count(state, open_)) for state in STATES],
        "items": items,
        "projects": sorted({row.project for row in page.items if row.project}),
        "older": wanted.address(cursor=page.next) if page.next else None,
        "unsettled": any(_unsettled(row) for row in page.items),
        "examples": () if items or wanted.narrowed or wanted.cursor else EXAMPLES,
        "problem": None,
    }


def unlisted(wanted: Wanted, problem: str) -> Mapping[str, Any]:
    """The same where there is no list, and why."""
    states = [(state, "") for state in STATES]
    nothing: Mapping[str, Any] = {"items": (), "projects": (), "older": None, "unsettled": True, "examples": ()}
    return {"wanted": wanted, "states": states, "problem": problem, **nothing}


def _item(row: PipelineRow, cost: Cost) -> Item:
    labels = tuple(row.spec.get("labels", ()))
    return Item(
        row=row,
        standing=standing(row),
        cost=cost,
        created=datetime.fromtimestamp(row.created_at / SECOND, UTC).strftime("%Y-%m-%d %H:%M"),
        steps=_steps(row),
        labels=labels[:_LABELS_SHOWN],
        more_labels=max(0, len(labels) - _LABELS_SHOWN),
    )


def _steps(row: PipelineRow) -> list[str]:
    phases = list(Phase)
    here = phases.index(row.phase)
    at_end = row.status is Status.COMPLETED
    return ["done" if place < here or at_end else "now" if place == here else "ahead" for place in range(len(phases))]


def _count(state: State, open_: Sequence[PipelineRow]) -> str:
    """How many there are, in the states where somebody may have to do something."""
    if state.name not in _COUNTED:
        return ""
    count = sum(row.status in state.statuses for row in open_)
    return f"{count}+" if len(open_) > MOST_COUNTED and count else str(count or "")


def _unsettled(row: PipelineRow) -> bool:
    """Whether it may come to stand otherwise though nothing is recorded: leases run out by themselves."""
    return row.leased or row.queued_at is not None or (row.status.ended and row.still_since is None)
