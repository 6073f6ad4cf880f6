"""Everything that a pipeline's page shows at one moment: what the parts of the page are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from trilogue.clock import Micros
from trilogue.dashboard.breaker import Breaker
from trilogue.dashboard.story import Story
from trilogue.entry import Entry
from trilogue.ledger import PipelineRow


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A pipeline at one moment.

    Attributes:
        row: the pipeline as recorded now, also in a replay.
        now: microseconds UTC; in a replay the moment that it shows.
        replay: whether it shows an earlier moment than the present; nothing can be done there.
        flow_run_url: where Prefect shows the flow run of the present or last attempt.
        breaker: of the endpoint that is called while the pipeline is at work; None where nobody can tell.
        whole: all entries up to the present, where the story may end before it; empty where it does not.
    """

    story: Story
    row: PipelineRow
    now: Micros
    replay: bool = False
    flow_run_url: str | None = None
    breaker: Breaker | None = None
    whole: Sequence[Entry] = ()

    @property
    def pipeline_id(self) -> str:
        return self.row.pipeline_id

    @property
    def at_work(self) -> bool:
        """Whether a worker acts for it at this moment."""
        return self.live and self.row.leased

    @property
    def live(self) -> bool:
        """Whether something may still happen by itself."""
        return not self.replay and not self.story.board.status.ended
