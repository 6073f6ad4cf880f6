"""Commands that look back: `checkpoints list|show|diff` and `replay`. They fold the ledger up to a `seq`."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trilogue.board import Board, apply
from trilogue.board.view import Difference, as_json, difference
from trilogue.cli.finding import find
from trilogue.cli.reading import print_json, with_record
from trilogue.cli.remote import Record
from trilogue.cli.showing import inert, sentence, short
from trilogue.clock import SECOND, iso
from trilogue.entry import Entry
from trilogue.errors import Invalid
from trilogue.ledger.rows import TENANT, CheckpointRow, named_checkpoint

_CHANGES = {"added": ("+", "green"), "changed": ("~", "yellow"), "removed": ("-", "red")}


def list_checkpoints(given: str, *, as_json: bool) -> None:
    """The checkpoints of a pipeline, oldest first."""
    rows = with_record(lambda ledger: _checkpoints(ledger, given))
    if as_json:
        print_json({"items": [_item(row) for row in rows], "next": None})
        return
    table = Table("seq", "name", "status", "phase", "round", "at", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row.to_seq), row.name, row.status.value, row.phase.value, str(row.round), iso(row.at)[:19])
    Console().print(table)


def show_checkpoint(given: str, name: str, *, json_wanted: bool) -> None:
    """The board as it stood at a checkpoint, and the details of a failure."""

    async def read(ledger: Record) -> tuple[CheckpointRow, Board]:
        row = named_checkpoint(await _checkpoints(ledger, given), name)
        board, _ = await _board_at(ledger, given, row.to_seq)
        return row, board

    row, board = with_record(read)
    if json_wanted:
        print_json({**_item(row), "details": row.details, "board": as_json(board)})
        return
    console = Console()
    console.print(Text(f"{row.name}: {row.status} in {row.phase}, round {row.round}, at seq {row.to_seq}"))
    for line in _summary(board):
        console.print(line)
    if row.details:
        console.print(Text(short(str(row.details), 2000), style="red"))


def diff_checkpoints(given: str, first: str, second: str, *, as_json: bool) -> None:
    """What changed between two checkpoints, or between any two `seq`."""

    async def read(ledger: Record) -> list[Difference]:
        rows = await _checkpoints(ledger, given)
        before, _ = await _board_at(ledger, given, _seq(rows, first))
        after, _ = await _board_at(ledger, given, _seq(rows, second))
        return difference(before, after)

    found = with_record(read)
    if as_json:
        print_json({"items": [asdict(one) for one in found], "next": None})
        return
    console = Console()
    if not found:
        console.print("No difference.")
    for one in found:
        sign, style = _CHANGES[one.change]
        console.print(Text.assemble((f"{sign} {one.section} {one.id}", style), f"  {_told(one)}"))


def replay(given: str, *, until: int | None, json_wanted: bool) -> None:
    """The story up to a `seq`, and the board as it stood then."""

    async def read(ledger: Record) -> tuple[Board, list[Entry]]:
        return await _board_at(ledger, given, until)

    board, entries = with_record(read)
    if json_wanted:
        print_json(as_json(board))
        return
    console = Console(highlight=False, soft_wrap=True)
    told = Board()
    for entry in entries:
        apply(told, entry)
        if line := sentence(told, entry):
            who, words = line
            since = (entry.at - entries[0].at) / SECOND
            console.print(Text.assemble((f"{entry.seq:5} {since:7.1f}s {who:<6}", "dim"), words))
    console.print(Text(f"── the board at seq {board.seq}: {board.status} in {board.phase}", style="bold"))
    for summary in _summary(board):
        console.print(summary)


async def checkpoint_of(ledger: Record, given: str, name: str) -> CheckpointRow:
    """The latest checkpoint of a name, or the one that stands at a `seq`. Raises `NotFound`."""
    return named_checkpoint(await _checkpoints(ledger, given), name)


async def _checkpoints(ledger: Record, given: str) -> list[CheckpointRow]:
    return await ledger.checkpoints(TENANT, await find(ledger, given))


async def _board_at(ledger: Record, given: str, until: int | None) -> tuple[Board, list[Entry]]:
    entries = await ledger.entries(TENANT, await find(ledger, given))
    if until is not None and not 1 <= until <= len(entries):
        raise Invalid(f"seq {until} is not in this pipeline: it has entries 1 to {len(entries)}", code="bad_seq")
    board = Board()
    for entry in entries[:until]:
        apply(board, entry)
    return board, entries[:until]


def _seq(rows: list[CheckpointRow], name: str) -> int:
    return int(name) if name.isdecimal() else named_checkpoint(rows, name).to_seq


def _item(row: CheckpointRow) -> dict[str, object]:
    return {
        "name": row.name,
        "to_seq": row.to_seq,
        "status": row.status.value,
        "phase": row.phase.value,
        "round": row.round,
        "at": iso(row.at),
    }


def _summary(board: Board) -> list[Text]:
    lines = [Text(f"findings  {len(board.findings)}")]
    for proposal in board.proposals.values():
        votes = ", ".join(
            f"{board.role_of(v.voter)} {v.verdict}s revision {v.revision}"
            for v in board.votes.values()
            if v.proposal == proposal.id
        )
        what = f"{proposal.id} by {proposal.author}, revision {proposal.latest.number}: {short(proposal.latest.title)}"
        lines.append(Text(f"proposal  {what}{f' ({votes})' if votes else ''}"))
    lines += [Text(f"subtask   {s.id} for {s.assignee}: {short(s.title)}") for s in board.subtasks.values()]
    lines += [Text(f"solution  {s.id} by {s.author}: {short(s.title)}") for s in board.solutions.values()]
    lines += [Text(f"mediation {m.trigger}: {m.outcome or 'under way'}") for m in board.mediations]
    if board.consensus:
        lines.append(Text(f"agreed    {short(board.consensus['title'])}", style="green"))
    return lines


def _told(one: Difference) -> str:
    """A difference in words: the value for a fact, the title or text for a thing."""
    if not isinstance(one.after, dict) and not isinstance(one.before, dict):
        return f"{inert(str(one.before))} → {inert(str(one.after))}" if one.change == "changed" else ""
    thing = one.after if isinstance(one.after, dict) else one.before
    if one.change == "changed":
        names = [name for name in thing if one.before.get(name) != one.after.get(name)]
        return short(
            ", ".join(f"{name}: {_value(one.before.get(name))} → {_value(thing[name])}" for name in names), 200
        )
    told = thing.get("title") or thing.get("content") or thing.get("status") or ""
    if not told and thing.get("revisions"):
        told = thing["revisions"][-1]["title"]
    return short(str(told))


def _value(value: object) -> str:
    return f"{len(value)}" if isinstance(value, list) else short(str(value), 60)
