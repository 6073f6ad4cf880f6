"""`trilogue ledger verify-bundle`, and what every check reads from files. Nothing here knows the ledger."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trilogue.clock import iso
from trilogue.errors import Invalid
from trilogue.proof.anchors import Anchor, read_keys, read_outside
from trilogue.proof.bundle import BundleVerdict
from trilogue.proof.bundle import verify_bundle as verified
from trilogue.proof.problems import Problem, UnreadableError

_LONGEST_KEY_FILE = 1_000_000


def verify_bundle(file: Path, *, key: Path | None, anchors: Path | None, as_json: bool) -> int:
    """Check a bundle, say what is proved, and return the exit code."""
    given = None if key is None else given_keys(key)
    try:
        verdict = verified(file, keys=given, outside=None if anchors is None else kept_outside(anchors))
    except UnreadableError as error:
        raise Invalid(str(error), code="bad_bundle") from None
    except OSError as error:
        raise unreadable(file, error) from None
    proved = _proved(verdict)
    if as_json:
        print(json.dumps(_document(verdict, proved), ensure_ascii=False, indent=2))  # noqa: T201
        return int(not verdict.whole)
    console = Console(highlight=False, soft_wrap=True)
    counted = f"{verdict.entries:,} entries, {verdict.anchors:,} anchors of pipeline {verdict.pipeline_id}"
    show_whole(console, verdict.whole, counted)
    show_problems(console, verdict.problems)
    for signer in verdict.signers:
        console.print(Text(f"signed by {signer}", style="dim"))
    console.print(Text(proved))
    return int(not verdict.whole)


def given_keys(path: Path) -> dict[str, bytes]:
    """The public keys in a file that the user names. Raises `Invalid`."""
    try:
        with path.open("rb") as file:
            return read_keys(file.read(_LONGEST_KEY_FILE).decode("ascii", "replace"), str(path))
    except UnreadableError as error:
        raise Invalid(str(error), code="bad_key") from None
    except OSError as error:
        raise unreadable(path, error) from None


def kept_outside(path: Path) -> Iterator[tuple[Anchor, bytes]]:
    """The anchors in a file that the user names, as they are read. Raises `Invalid`."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            yield from read_outside(lines, str(path))
    except UnreadableError as error:
        raise Invalid(str(error), code="bad_anchors") from None
    except UnicodeDecodeError:
        raise Invalid(f"{str(path)!r} is no copy of anchors: it is no text", code="bad_anchors") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> Invalid:
    """A file that the user named and that cannot be used."""
    return Invalid(f"{str(path)!r} cannot be used: {error.strerror or error}", code="bad_file")


def show_whole(console: Console, whole: bool, counted: str) -> None:
    """The first line: whole or not, and how much was looked at."""
    said = ("whole", "bold green") if whole else ("NOT WHOLE", "bold red")
    console.print(Text.assemble(said, f"  {counted}"))


def show_problems(console: Console, problems: list[Problem]) -> None:
    """One line a problem."""
    for problem in problems:
        where = problem.pipeline_id or f"anchors of {problem.tenant}"
        seq = f" entry {problem.seq}" if problem.seq is not None else ""
        what = problem.what.replace("_", " ")
        console.print(Text.assemble((f"{what}  ", "red"), f"{where}{seq}: {problem.message}"))


def _proved(verdict: BundleVerdict) -> str:
    if not verdict.whole:
        return "Nothing is proved from the first such place on."
    if verdict.anchored == 0:
        return (
            "No anchor names this pipeline: the chain shows accidents, but who made the bundle could have made it anew."
        )
    if verdict.outside is None:
        proved = verdict.anchored
        said = f"Entries 1 to {proved} are as they were when they were anchored at {iso(verdict.anchored_at)}"
        said += (
            ", by one of the keys given"
            if verdict.trusted
            else ", if the keys that signed are whose you think: the bundle brings them itself (--key FILE)"
        )
    elif proved := verdict.outside:
        said = f"Entries 1 to {proved} are what the anchors name that were kept outside"
    else:
        said = "No anchor that was kept outside names this pipeline"
    since = verdict.entries - proved
    return f"{said}. {since} entries since are proved only by the chain itself, and there may have been more."


def _document(verdict: BundleVerdict, proved: str) -> dict[str, Any]:
    return {
        "whole": verdict.whole,
        "tenant": verdict.tenant,
        "pipeline_id": verdict.pipeline_id,
        "entries": verdict.entries,
        "anchors": verdict.anchors,
        "anchored_entries": verdict.anchored,
        "anchored_at": iso(verdict.anchored_at) if verdict.anchored else None,
        "outside_entries": verdict.outside,
        "signers": verdict.signers,
        "signers_given": verdict.trusted,
        "problems": [problem.as_json() for problem in verdict.problems],
        "proved": proved,
    }
