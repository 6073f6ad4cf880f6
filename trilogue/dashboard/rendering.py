"""Templates into HTML: everything is escaped unless it was made safe, and a name that is missing is an error."""

import hashlib
from collections.abc import Mapping, Sized
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from trilogue.actions import clean
from trilogue.clock import SECOND, Micros, iso
from trilogue.dashboard.markdown import rendered
from trilogue.money import USD

HERE: Final = Path(__file__).parent
ASSETS: Final = HERE / "static"
_LONGEST_TITLE = 300


def render(template: str, context: Mapping[str, Any]) -> str:
    """The HTML of a template below `templates/`. Raises jinja2's errors: templates are code."""
    return _environment().get_template(template).render(context)


def prepare() -> None:
    """Compile every template now, which takes a quarter of a second, rather than under the first page."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # an upgrade under a running server must not give its old code new templates
    )
    environment.filters |= {
        "clock": clock_time,
        "count": count,
        "duration": duration,
        "iso": iso,
        "markdown": rendered,
        "money": money,
        "number": number,
        "title": title,
        "untrusted": untrusted,
    }
    environment.globals["assets"] = assets_version()
    return environment


@cache
def assets_version() -> str:
    """What changes when anything changes that a browser keeps: styles, scripts, and the templates that go with them."""
    digest = hashlib.sha256()
    for path in sorted([*ASSETS.rglob("*"), *(HERE / "templates").rglob("*")]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def untrusted(text: str) -> str:
    """Text that a model or a person wrote, without what could steer a browser's layout; still to be escaped."""
    return str(clean(text))


def title(text: str) -> str:
    """One line of it."""
    line = " ".join(untrusted(text).split())
    return line if len(line) <= _LONGEST_TITLE else line[: _LONGEST_TITLE - 1].rstrip() + "…"


@lru_cache(maxsize=8192)
def clock_time(at: Micros) -> Markup:
    """A moment as UTC time of day, which the page turns into the reader's own."""
    shown = datetime.fromtimestamp(at / SECOND, UTC).strftime("%H:%M:%S")
    return Markup('<time datetime="{}" data-clock>{}</time>').format(iso(at), shown)


def duration(micros: Micros) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`."""
    seconds = max(0, micros) / SECOND
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def money(nanousd: int | None) -> str:
    """Dollars with as many digits as tell something; `unknown` is not nothing."""
    if nanousd is None:
        return "unknown"
    dollars = nanousd / USD
    if dollars == 0:
        return "$0"
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"


def count(things: Sized, name: str) -> str:
    """`1 vote`, `2 votes`."""
    return f"{number(len(things))} {name}{'' if len(things) == 1 else 's'}"


def number(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"
