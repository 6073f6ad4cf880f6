"""The readable text of a running turn, as it comes in."""

from dataclasses import dataclass

from trilogue.live import Delta


@dataclass
class Streamed:
    """What a turn has said so far: `text` from character `base` on; `run` is raised when it begins anew."""

    base: int = 0
    text: str = ""
    run: int = 0

    def grow(self, delta: Delta) -> None:
        """Take what came, also where it comes again, begins anew, or something before it is missing."""
        kept = delta.offset - self.base
        if not 0 <= kept <= len(self.text):
            self.base, self.text, self.run = delta.offset, delta.text, self.run + 1
            return
        grown = self.text[:kept] + delta.text
        if not grown.startswith(self.text):
            if self.text.startswith(grown) and kept:  # it comes again after an outage
                return
            self.run += 1
        self.text = grown


@dataclass(frozen=True)
class Heard:
    """How much of a turn's text a page has."""

    run: int = -1
    length: int = 0
