"""A figure with its aim, and figures as a table or as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One thing that was measured.

    Attributes:
        on: the servers that it was measured on, where there is a choice.
        value: None where it could not be measured here; `note` then says why.
        aim: the bound it should keep; None where it is shown for comparison.
        at_least: whether the aim is a lower bound, otherwise it is an upper one.
    """

    what: str
    on: str = ""
    value: float | None
    unit: str
    aim: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is kept; None where there is none or nothing was measured."""
        if self.aim is None or self.value is None:
            return None
        return self.value >= self.aim if self.at_least else self.value < self.aim


def table(figures: Sequence[Figure], machine: Mapping[str, Any]) -> Table:
    """The figures, with the machine's load below: on a busy machine they are worse."""
    load = f"load average {machine['load_before']} before, {machine['load_after']} after"
    shown = Table(caption=f"{machine['cpus']} CPUs, {load}, {machine['seconds']} s in all", title="Trilogue, measured")
    for heading in ("what", "on"):
        shown.add_column(heading)
    for heading in ("measured", "aim"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("met")
    shown.add_column("note", style="dim")
    for figure, following in zip(figures, [*figures[1:], None], strict=True):
        shown.add_row(*_row(figure), end_section=following is None or following.on != figure.on)
    return shown


def _row(figure: Figure) -> tuple[str, ...]:
    measured = "–" if figure.value is None else f"{_digits(figure.value)} {figure.unit}"
    aim = "" if figure.aim is None else f"{'≥' if figure.at_least else '<'} {figure.aim:,g} {figure.unit}"
    met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.met]
    return figure.what, figure.on, measured, aim, met, figure.note


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """One object for each figure."""
    return [{**asdict(figure), "met": figure.met} for figure in figures]
