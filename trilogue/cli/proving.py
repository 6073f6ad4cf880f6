"""`trilogue ledger verify|export|keys|anchors`: they read the database itself, also where a server runs."""

import contextlib
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from trilogue.cli.bundles import given_keys, kept_outside, show_problems, show_whole, unreadable
from trilogue.cli.finding import find
from trilogue.cli.reading import print_json, with_ledger
from trilogue.clock import iso
from trilogue.errors import Invalid, NotFound
from trilogue.ledger.rows import TENANT
from trilogue.proof.anchors import anchor_line, pem_of
from trilogue.settings import load_settings

if TYPE_CHECKING:
    from trilogue.ledger import Ledger
    from trilogue.ledger.anchors import AnchorKeyRow
    from trilogue.ledger.verifying import Verdict

T = TypeVar("T")

_STDOUT = Path("-")
_ANCHORS_AT_ONCE = 50


def verify(*, tenant: str | None, pipeline: str | None, anchors: Path | None, key: Path | None, as_json: bool) -> int:
    """Look at the record, say what is whole, and return the exit code."""
    keys = None if key is None else given_keys(key)
    outside = None if anchors is None else list(kept_outside(anchors))
    with _progress(as_json) as progress:

        async def use(ledger: "Ledger") -> "Verdict":
            whose, pipeline_id = tenant, pipeline
            if pipeline is not None:
                whose = tenant or TENANT
                with contextlib.suppress(NotFound):  # what is gone from the list may be known to an anchor
                    pipeline_id = await find(ledger, pipeline, whose)
            return await ledger.proof.verify(
                tenant=whose, pipeline_id=pipeline_id, keys=keys, outside=outside, progress=progress
            )

        verdict = _with_own_ledger(use)
    if as_json:
        print_json(_document(verdict))
        return int(not verdict.whole)
    console = Console(highlight=False, soft_wrap=True)
    speed = f"{verdict.entries / verdict.seconds:,.0f} a second" if verdict.seconds else ""
    counted = f"{verdict.pipelines:,} pipelines, {verdict.entries:,} entries ({speed}), {verdict.anchors:,} anchors"
    show_whole(console, verdict.whole, counted)
    show_problems(console, verdict.problems)
    if verdict.wrong > len(verdict.problems):
        console.print(Text(f"and {verdict.wrong - len(verdict.problems):,} more", style="red"))
    for line in _proved(verdict):
        console.print(Text(line))
    return int(not verdict.whole)


def export(given: str, *, tenant: str | None, output: Path | None, as_json: bool) -> None:
    """Write a pipeline's bundle to a file, whole or not at all, or to stdout."""
    if output == _STDOUT and as_json:
        raise Invalid("--json and the bundle cannot both go to stdout: give -o FILE", code="usage")
    whose = tenant or TENANT

    async def use(ledger: "Ledger") -> tuple[str, Path, int]:
        pipeline_id = await find(ledger, given, whose)
        path = output or Path(f"{pipeline_id}.bundle.jsonl")
        if path == _STDOUT:
            return pipeline_id, path, await ledger.proof.export(whose, pipeline_id, sys.stdout.buffer)
        with _written_whole(path) as file:
            return pipeline_id, path, await ledger.proof.export(whose, pipeline_id, file)

    pipeline_id, path, entries = _with_own_ledger(use)
    if as_json:
        size = path.stat().st_size
        print_json({"pipeline_id": pipeline_id, "path": str(path), "entries": entries, "bytes": size})
    elif path != _STDOUT:
        Console(soft_wrap=True).print(Text(f"{path}: {entries:,} entries; check it with"))
        Console(soft_wrap=True).print(Text(f"  trilogue ledger verify-bundle {path}"))


def keys(*, tenant: str | None, pem: bool, as_json: bool) -> None:
    """The keys that signed anchors: as a table, as PEM, or as a document."""
    rows = _with_own_ledger(lambda ledger: ledger.proof.keys(tenant))
    if as_json:
        print_json({"items": [_key(row) for row in rows], "next": None})
    elif pem:
        unique = {row.key_id: row.public_key for row in rows}
        sys.stdout.write("".join(map(pem_of, unique.values())))
    elif not rows:
        Console().print("No anchors yet: they are made while pipelines are carried.")
    else:
        table = Table(
            Column("key", overflow="fold", min_width=64),
            "kept in",
            "tenant",
            "anchors",
            "since",
            box=None,
            pad_edge=False,
        )
        for row in rows:
            signed = f"{row.first}–{row.last} ({row.count})" if row.count else "none"
            table.add_row(row.key_id, row.origin, row.tenant, signed, iso(row.at)[:19])
        Console(soft_wrap=True).print(table)


def anchors(*, tenant: str | None, output: Path | None) -> None:
    """All anchors as they are to be kept outside."""

    async def write(ledger: "Ledger", file: IO[bytes]) -> None:
        for whose, last in sorted((await ledger.proof.chains()).items()):
            if tenant not in {None, whose}:
                continue
            signers = {row.key_id: row.public_key for row in await ledger.proof.keys(whose)}
            after = 0
            while after < last and (some := await ledger.proof.anchors(whose, after=after, limit=_ANCHORS_AT_ONCE)):
                for anchor in some:
                    file.write(f"{anchor_line(anchor, signers.get(anchor.key_id, b''))}\n".encode())
                after = some[-1].seq

    async def use(ledger: "Ledger") -> None:
        if output is None or output == _STDOUT:
            await write(ledger, sys.stdout.buffer)
            return
        with _written_whole(output) as file:
            await write(ledger, file)

    _with_own_ledger(use)


def _with_own_ledger(use: "Callable[[Ledger], Awaitable[T]]") -> T:
    settings = load_settings()
    if settings.api_url is not None and settings.database_url is None:
        raise Invalid(
            "this reads the database itself, not the server at TRILOGUE_API_URL: set TRILOGUE_DATABASE_URL as the"
            " server has it (a user that may only read is enough), or run it where the ledger is",
            code="needs_database",
        )
    return with_ledger(use)


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("looking at the anchors") as status:
        yield lambda count: status.update(f"{count:,} entries")


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there once everything was written to it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            yield file
        os.replace(draft, path)
    except OSError as error:
        raise unreadable(path, error) from None
    finally:
        draft.unlink(missing_ok=True)


def _proved(verdict: "Verdict") -> list[str]:
    """What is proved and what is not, in words."""
    lines = []
    if not verdict.whole:
        lines.append("Nothing is proved from the first such place on, in that pipeline or behind that anchor.")
    if verdict.outside is not None:
        since = verdict.entries - verdict.outside
        lines.append(
            f"Proved by the anchors kept outside: {verdict.outside:,} entries{_until(verdict.last_outside)}."
            f" {since:,} entries since are proved only by the chain itself: who may write the database could make"
            " that part anew."
        )
        return lines
    since = verdict.entries - verdict.anchored
    anchored = f"{verdict.anchored:,} entries are anchored{_until(verdict.last_anchor)}, {since:,} are not yet."
    if verdict.trusted:
        lines.append(
            f"{anchored} The keys given signed those anchors, so nobody without them made that part anew; anchors"
            " that were removed at the end together with what they name would not show. --anchors FILE, with a copy"
            " kept outside, proves that too."
        )
    else:
        lines.append(
            f"{anchored} Chain and anchors agree with each other; who may write the whole database could have made"
            " both anew. What is kept outside proves more: --anchors FILE (a copy of the anchors), --key FILE (the"
            " public keys)."
        )
    return lines


def _until(last: dict[str, tuple[int, int]]) -> str:
    if not last:
        return ""
    if len(last) == 1:
        [(seq, at)] = last.values()
        return f", up to anchor {seq} of {iso(at)}"
    return f", up to the last anchors of {len(last)} tenants"


def _document(verdict: "Verdict") -> dict[str, Any]:
    def listed(last: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
        return [{"tenant": tenant, "seq": seq, "at": iso(at)} for tenant, (seq, at) in sorted(last.items())]

    outside = None
    if verdict.outside is not None:
        outside = {
            "entries": verdict.outside,
            "entries_since": verdict.entries - verdict.outside,
            "last_anchors": listed(verdict.last_outside),
        }
    return {
        "whole": verdict.whole,
        "pipelines": verdict.pipelines,
        "entries": verdict.entries,
        "anchors": verdict.anchors,
        "anchored_entries": verdict.anchored,
        "entries_since": verdict.entries - verdict.anchored,
        "last_anchors": listed(verdict.last_anchor),
        "outside": outside,
        "keys_given": verdict.trusted,
        "problems": [problem.as_json() for problem in verdict.problems],
        "problem_count": verdict.wrong,
        "proved": " ".join(_proved(verdict)),
        "seconds": round(verdict.seconds, 3),
        "entries_per_second": round(verdict.entries / verdict.seconds) if verdict.seconds else None,
    }


def _key(row: "AnchorKeyRow") -> dict[str, Any]:
    return {
        "key_id": row.key_id,
        "tenant": row.tenant,
        "origin": row.origin,
        "public_key": pem_of(row.public_key),
        "since": iso(row.at),
        "first_anchor": row.first,
        "last_anchor": row.last,
        "anchors": row.count,
    }
