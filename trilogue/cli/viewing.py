"""Following one pipeline on the screen, until it ends or is held."""

import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trilogue.board import Board, apply
from trilogue.cli.showing import ACTOR_STYLES, inert, sentence
from trilogue.clock import SECOND, now
from trilogue.entry import Entry, Kind
from trilogue.errors import Unavailable
from trilogue.pipeline import Status

if TYPE_CHECKING:
    from trilogue.cli.remote import Source
    from trilogue.ledger import PipelineRow
    from trilogue.live import Delta

_LEDGER_PATIENCE = 60.0
_TIME_WIDTH = 8
_ROLE_WIDTH = 5


class View:
    """Lines as things happen; on a terminal, below them, what is going on right now.

    Args:
        to_stderr: where stdout is kept for a JSON document.
        patience: seconds that a ledger or server may be out of reach.
    """

    def __init__(self, *, to_stderr: bool = False, patience: float = _LEDGER_PATIENCE) -> None:
        self._patience = patience
        self._console = Console(file=sys.stderr if to_stderr else None, highlight=False)
        self._board = Board()
        self._streams: dict[int, str] = {}
        self._doing = ""
        self._spinner = Spinner("dots")
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
        what = doing.partition(" (")[0]
        if not self._console.is_terminal and what != self._doing.partition(" (")[0]:
            self.say(what)
        self._doing = doing

    def introduce(self, row: "PipelineRow") -> None:
        """Say which pipeline it is, and whether it rehearses."""
        self.say(f"pipeline {row.pipeline_id}: {' '.join(row.objective.split())[:200]}", style="bold")
        if row.spec["rehearsal"]:
            self.say(
                "Rehearsal: no language model is used; set OPENROUTER_API_KEY or LOCAL_MODEL_URL to use one.",
                style="yellow",
            )

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line of our own."""
        self._console.print(Text(inert(text), style=style), soft_wrap=not self._console.is_terminal)

    @property
    def board(self) -> Board:
        """The pipeline as far as it was shown."""
        return self._board

    async def follow(self, source: "Source", tenant: str, pipeline_id: str, *, after: int = 0, known: int = 0) -> Board:
        """Show the pipeline from the beginning, silently up to `after`, and return its board when it stands still.

        Args:
            known: up to where there are entries already: it went on from wherever it stood still before them.

        Raises:
            Unavailable: the ledger was out of reach for a minute.
        """

        async def read(seq: int) -> list[Entry]:
            return await source.ledger.entries(tenant, pipeline_id, after=seq)

        self._doing = ""
        async with aclosing(source.live.follow(tenant, pipeline_id, self._patiently(read))) as happening:
            async for item in happening:
                if not isinstance(item, Entry):
                    self._stream(item)
                    continue
                self._apply(item, silent=item.seq <= after)
                if item.seq > after and item.seq >= known and self._still():
                    break
        return self._board

    def _patiently(self, read: Callable[[int], Awaitable[list[Entry]]]) -> Callable[[int], Awaitable[list[Entry]]]:
        """Whoever only looks on waits for a ledger that is away, longer than whoever writes to it."""
        away_since: float | None = None

        async def read_or_wait(seq: int) -> list[Entry]:
            nonlocal away_since
            try:
                entries = await read(seq)
            except Unavailable as error:
                if away_since is None:
                    self.say(f"{error.message}; trying again", style="yellow")
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self._patience:
                    raise
                return []
            away_since = None
            return entries

        return read_or_wait

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
            self._line(f"{since:.1f}s", *line)

    def _line(self, since: str, who: str, what: Text) -> None:
        """On a terminal long text hangs below its beginning; elsewhere a line stays a line."""
        if not self._console.is_terminal:
            self._console.print(Text.assemble(f"{since:>{_TIME_WIDTH}}  {who:<{_ROLE_WIDTH}}  ", what), soft_wrap=True)
            return
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_column(width=_TIME_WIDTH, justify="right", style="dim", no_wrap=True)
        row.add_column(width=_ROLE_WIDTH, style=ACTOR_STYLES.get(who, ""), no_wrap=True)
        row.add_column(ratio=1)
        row.add_row(since, who, what)
        self._console.print(row)

    def _stream(self, delta: "Delta") -> None:
        self._streams[delta.turn] = self._streams.get(delta.turn, "")[: delta.offset] + delta.text

    def _present(self) -> RenderableType:
        """The live part: phases with their times, and each running turn with the end of its text."""
        if not self._board.phases:
            self._spinner.update(text=Text(self._doing or "starting", style="dim"))
            return self._spinner
        if self._board.status.ended:
            return Text()
        self._spinner.update(text=self._stepper())
        return Group(self._spinner, *map(self._turn, self._board.open_turns))

    def _stepper(self) -> Text:
        *before, present = self._board.phases
        line = Text(f"{present.phase} {((present.ended_at or now()) - present.started_at) / SECOND:.1f}s", style="bold")
        passed = [f"{span.phase} {((span.ended_at or now()) - span.started_at) / SECOND:.1f}s" for span in before]
        if passed:
            line.append(f"   after {', '.join(passed)}", style="not bold dim")
        line.truncate(max(1, self._console.width - 2), overflow="ellipsis")
        return line

    def _turn(self, number: int) -> Text:
        """One line: who, and the end of what the turn has said so far."""
        agent_id = self._board.open_turns[number].agent_id
        role = self._board.role_of(agent_id)
        said = " ".join(inert(self._streams.get(number, "")).split())
        line = Text.assemble("  ", (f"{role:<{_ROLE_WIDTH}}", ACTOR_STYLES.get(role, "")), "  ")
        line.append(_tail(said, self._console.width - cell_len(line.plain) - 1) or "thinking …", style="dim")
        return line


def _tail(text: str, width: int) -> str:
    """The end of a text that fits into `width` cells of the terminal."""
    if cell_len(text) <= width:
        return text
    tail = text[-max(1, width - 1) :]
    while tail and cell_len(tail) > width - 1:
        tail = tail[1:]
    return "…" + tail
