"""The output of several programs on one screen: each line with who says it.

Printing has a thread of its own, so that a terminal that stands still keeps nothing else from going on.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.text import Text

from trilogue.cli.showing import inert
from trilogue.supervision import ABOUT

_COLOURS = ("cyan", "green", "magenta", "blue")
_KEPT = 10_000
"""Lines that wait to be printed; what comes beyond them is dropped, and counted."""
_LAST_LINES_WITHIN = 2.0


class Lines:
    """Prints lines as they come. Use as a context manager.

    Args:
        names: of the programs, in their order.
        quiet: only what becomes of the programs is shown, not what they say.
        to_stderr: where stdout is kept for a JSON document.
    """

    def __init__(self, names: tuple[str, ...], *, quiet: bool, to_stderr: bool) -> None:
        self._console = Console(file=sys.stderr if to_stderr else None, highlight=False)
        self._width = max(map(len, names))
        self._styles: Mapping[str, str] = dict(zip(names, _COLOURS, strict=False)) | {ABOUT: "bold yellow"}
        self._quiet = quiet
        self._waiting: queue.Queue[RenderableType | None] = queue.Queue(_KEPT)
        self._dropped = 0
        self._printing = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> Self:
        self._printing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._waiting.put(None, timeout=_LAST_LINES_WITHIN)
        except queue.Full:
            return
        self._printing.join(_LAST_LINES_WITHIN)

    def say(self, name: str, line: str) -> None:
        """Show one line."""
        if self._quiet and name != ABOUT:
            return
        prefix = (f"{name:<{self._width}} │ ", self._styles.get(name, ""))
        self.show(Text.assemble(prefix, inert(line)))

    def show(self, what: RenderableType) -> None:
        """Show something of our own, after all lines that came before."""
        try:
            self._waiting.put_nowait(what)
        except queue.Full:
            self._dropped += 1

    def _print(self) -> None:
        try:
            while (what := self._waiting.get()) is not None:
                self._console.print(what, soft_wrap=isinstance(what, Text))
                if self._dropped and self._waiting.empty():
                    self._console.print(Text(f"({self._dropped} lines were not shown)", style="dim"))
                    self._dropped = 0
        except OSError:  # nobody reads any more, as behind `| head`, or on a closed terminal
            os.kill(os.getpid(), signal.SIGTERM)
