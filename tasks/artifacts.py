"""What people see in the Prefect UI: progress, report and result as Markdown, proposals and votes as a table, and the
way back to our own page.

All of it is published in the background, in order: no pipeline waits for it, and what Prefect
does not take is a line in the log, never the pipeline's failure.
"""

import asyncio
import html
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from trilogue.board import Board
from trilogue.outcome import result_markdown
from trilogue.pipeline import Phase

logger = logging.getLogger(__name__)

_LINK = "See and act on this pipeline in Trilogue's dashboard"

_PROGRESS = {Phase.SPAWN: 0.0, Phase.RUN: 20.0, Phase.REPORT: 40.0, Phase.ORCHESTRATE: 60.0, Phase.COMPLETE: 100.0}


class Exhibits:
    """The artifacts of one flow run, under keys that begin with its pipeline's id.

    Args:
        dashboard_url: where people reach our own pages; None where nobody serves them.
    """

    def __init__(self, pipeline_id: str, *, dashboard_url: str | None) -> None:
        self._pipeline_id = pipeline_id
        self._page = f"{dashboard_url}/pipelines/{pipeline_id}" if dashboard_url else None
        self._progress: UUID | None = None
        self._last: asyncio.Task[None] | None = None

    def show_link(self) -> None:
        """The way to the pipeline's own page, under `<pipeline id>-dashboard`."""
        if self._page:
            key, what = f"{self._pipeline_id}-dashboard", "Two agents and a mediator coming to an agreement, live"
            self._publish(partial(acreate_link_artifact, link=self._page, link_text=_LINK, key=key, description=what))

    def show_progress(self, board: Board) -> None:
        """How far the pipeline is; 100 also when it has ended otherwise."""
        self._publish(partial(self._show_progress, 100.0 if board.status.ended else _PROGRESS[board.phase]))

    def show_report(self, board: Board) -> None:
        """The report, under `<pipeline id>-report`."""
        if board.report:
            what = "What ALPHA and BETA found, joined"
            self._publish(partial(self._markdown, "report", board.report["markdown"], what))

    def show_result(self, board: Board) -> None:
        """The result under `<pipeline id>-result`, the proposals with their votes under `<pipeline id>-votes`."""
        result = result_markdown(self._pipeline_id, board)
        self._publish(partial(self._markdown, "result", result, "The agreed text, or why there is none"))
        if rows := _votes(board):
            what = "Proposals and the latest vote of each agent"
            key = f"{self._pipeline_id}-votes"
            self._publish(partial(acreate_table_artifact, key=key, table=rows, description=what))

    async def published(self) -> None:
        """Wait until everything shown so far is with Prefect."""
        if self._last is not None:
            await self._last

    def _publish(self, exhibit: Callable[[], Awaitable[Any]]) -> None:
        self._last = asyncio.create_task(self._after(self._last, exhibit))

    async def _after(self, former: asyncio.Task[None] | None, exhibit: Callable[[], Awaitable[Any]]) -> None:
        if former is not None:
            await former
        try:
            await exhibit()
        except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises)
            logger.warning("an artifact of %s was not published: %s", self._pipeline_id, type(error).__name__)

    async def _show_progress(self, percent: float) -> None:
        if self._progress is None:
            self._progress = await acreate_progress_artifact(
                key=f"{self._pipeline_id}-progress", progress=percent, description="Phases done"
            )
        else:
            await aupdate_progress_artifact(self._progress, progress=percent)

    async def _markdown(self, name: str, markdown: str, description: str) -> None:
        link = f"[{_LINK}]({self._page})\n\n" if self._page else ""
        await acreate_markdown_artifact(
            key=f"{self._pipeline_id}-{name}", markdown=link + _inert(markdown), description=description
        )


def _votes(board: Board) -> list[dict[str, Any]]:
    return [
        {
            "proposal": proposal.id,
            "title": proposal.latest.title,
            "author": proposal.author,
            "revision": proposal.latest.number,
            **{agent.agent_id: _stand(board, agent.agent_id, proposal.id) for agent in board.voters()},
        }
        for proposal in board.proposals.values()
    ]


def _stand(board: Board, voter: str, proposal_id: str) -> str:
    proposal = board.proposals[proposal_id]
    if proposal.author == voter:
        return "author"
    vote = board.latest_vote(voter, proposal)
    return f"{vote.verdict}: {vote.reason}" if vote else "–"


def _inert(markdown: str) -> str:
    """What models wrote is untrusted: no HTML of theirs reaches a browser."""
    return html.escape(markdown, quote=False)
