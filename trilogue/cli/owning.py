"""What the commands about tenants, projects, keys and the audit share: the ledger itself, and how things are shown."""

import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trilogue.cli.reading import print_json, screen, with_ledger
from trilogue.cli.showing import inert
from trilogue.clock import Micros, iso
from trilogue.errors import Invalid
from trilogue.ledger.identities import Listed
from trilogue.settings import load_settings

if TYPE_CHECKING:
    from trilogue.ledger import Ledger

T = TypeVar("T")
R = TypeVar("R")


def with_own_ledger(use: "Callable[[Ledger], Awaitable[T]]") -> T:
    """Use the ledger, as who owns the installation.

    Raises:
        Invalid: code `no_ledger`: commands are meant for a server elsewhere.
    """
    if load_settings().api_url:
        raise Invalid("this is done where the ledger is: unset TRILOGUE_API_URL there", code="no_ledger")
    return with_ledger(use)


def show_page(
    page: Listed[R],
    document: Callable[[R], dict[str, Any]],
    table: Callable[[Sequence[R]], Table],
    *,
    again: Sequence[str | None],
    none: str,
    as_json: bool,
) -> None:
    """A page of a list; `again`: the command that made it, with its options."""
    if as_json:
        print_json({"items": [document(row) for row in page.items], "next": page.next})
        return
    console = screen()
    if not page.items:
        console.print(Text(none))
        return
    console.print(table(page.items))
    if page.next:
        command = shlex.join(["trilogue", *(word for word in again if word is not None), "--cursor", page.next])
        console.print(Text(f"more: {inert(command)}", style="dim"), soft_wrap=True)


def show_done(document: dict[str, Any], said: str, *, as_json: bool) -> None:
    """What a command did: its document, or one line."""
    if as_json:
        print_json(document)
    else:
        screen().print(Text(inert(said)), soft_wrap=True)


def aside(said: str) -> None:
    """A line for people beside what is on stdout."""
    Console(stderr=True, highlight=False).print(Text(inert(said), style="dim"), soft_wrap=True)


def moment(at: Micros | None) -> str | None:
    """ISO 8601, as JSON has it."""
    return None if at is None else iso(at)


def minute(at: Micros | None, *, none: str = "–") -> str:
    """To the minute, UTC, as tables have it."""
    return none if at is None else iso(at)[:16].replace("T", " ")
