"""Following one pipeline on the screen, until it ends or is held."""

import sys
import time
from contextlib import AbstractContextManager, aclosing, nullcontext
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trilogue.board import Board, apply
from trilogue.cli.showing import inert, sentence
from trilogue.clock import SECOND, now
from trilogue.entry import Entry, Kind
from trilogue.live import Delta
from trilogue.pipeline import Status
from trilogue.services import TENANT, Services

_TAIL = 200


class View:
    """Lines as things happen; on a terminal, below them, what is going on right now.

    Args:
        to_stderr: where stdout is kept for a JSON document.
    """

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._console = Console(file=sys.stderr if to_stderr else None, highlight=False, soft_wrap=True)
        self._board = Board()
        self._streams: dict[int, tuple[str, str]] = {}
        self._began = time.monotonic()
        self._doing = ""
        self._screen: AbstractContextManager[object] = (
            Screen(get_renderable=self._present, console=self._console, refresh_per_second=8, transient=True)
            if self._console.is_terminal
            else nullcontext()
        )

    def __enter__(self) -> Self:
        self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._screen.__exit__(kind, error, trace)

    def progress(self, doing: str) -> None:
        """Say what is being waited for before the pipeline begins; a line each where there is no screen."""
        if doing != self._doing and not self._console.is_terminal and "(" not in doing:
            self.say(doing)
        self._doing = doing

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line of our own."""
        self._console.print(Text(inert(text), style=style))

    async def follow(self, services: Services, pipeline_id: str, *, after: int = 0) -> Board:
        """Show the pipeline from the beginning, silently up to `after`, and return its board when it stands still."""

        async def read(seq: int) -> list[Entry]:
            return await services.ledger.entries(TENANT, pipeline_id, after=seq)

        self._doing = ""
        async with aclosing(services.live.follow(TENANT, pipeline_id, read)) as happening:
            async for item in happening:
                if isinstance(item, Delta):
                    self._stream(item)
                    continue
                self._apply(item, silent=item.seq <= after)
                if item.seq > after and self._still():
                    break
        return self._board

    def _still(self) -> bool:
        """Whether nothing more will come by itself: ended, or held at REPORT with no one at work."""
        if self._board.status.ended:
            return self._board.checkpoints[-1:] == (self._board.status.value.lower(),)
        if self._board.status is not Status.REPORT or not self._board.report:
            return False
        return not self._board.report["continuation"]["auto"] and self._board.checkpoints[-1:] == ("report",)

    def _apply(self, entry: Entry, *, silent: bool) -> None:
        apply(self._board, entry)
        if entry.kind is Kind.TURN_ENDED:
            self._streams.pop(entry.body["turn"], None)
        if not silent and (line := sentence(self._board, entry)):
            since = (entry.at - self._board.phases[0].started_at) / SECOND
            self._console.print(Text.assemble((f"{since:7.1f}s ", "dim"), line))

    def _stream(self, delta: Delta) -> None:
        _, text = self._streams.get(delta.turn, ("", ""))
        self._streams[delta.turn] = (delta.agent_id, text[: delta.offset] + delta.text)

    def _present(self) -> RenderableType:
        """The live part: phases with their times, and each running turn with the end of its text."""
        if not self._board.phases:
            return Spinner("dots", Text(self._doing or "starting", style="dim"))
        rows = Table.grid(padding=(0, 1))
        for turn in self._board.open_turns.values():
            text = " ".join(inert(self._streams.get(turn.turn, ("", ""))[1]).split())[-_TAIL:]
            rows.add_row(
                Spinner("dots"), Text(turn.agent_id, style="bold"), Text(text, style="dim", overflow="ellipsis")
            )
        return Group(Spinner("line", self._stepper()), rows)

    def _stepper(self) -> Text:
        line = Text()
        for span in self._board.phases:
            seconds = ((span.ended_at or now()) - span.started_at) / SECOND
            line.append(f"{span.phase} {seconds:.1f}s  ", style="dim" if span.ended_at else "bold")
        return line
