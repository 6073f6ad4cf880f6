"""What people see in the Prefect UI: report and result as Markdown, proposals and votes as a table."""

import html
from typing import Any

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from trilogue.attempt import Attempt
from trilogue.board import Board
from trilogue.outcome import result_markdown


async def publish_report(attempt: Attempt) -> None:
    """The report, under the key `<pipeline id>-report`."""
    if attempt.board.report:
        await acreate_markdown_artifact(
            key=f"{attempt.fence.pipeline_id}-report",
            markdown=_inert(attempt.board.report["markdown"]),
            description="What ALPHA and BETA found, joined",
        )


async def publish_result(attempt: Attempt) -> None:
    """The result, and the proposals with their votes."""
    pipeline_id = attempt.fence.pipeline_id
    await acreate_markdown_artifact(
        key=f"{pipeline_id}-result",
        markdown=_inert(result_markdown(pipeline_id, attempt.board)),
        description="The agreed text, or why there is none",
    )
    if rows := _votes(attempt.board):
        await acreate_table_artifact(
            key=f"{pipeline_id}-votes", table=rows, description="Proposals and the latest vote of each agent"
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
