"""What models and people wrote, as HTML that is safe to put into a page.

Two lines of defence that know nothing of each other: the parser never takes HTML for HTML and never makes a
link of anything but a plain web or mail address, and what it renders goes through a sanitiser with a short list
of tags. What may not become a link, an image or a tag is shown as it was written.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, blockquote, table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markupsafe import Markup

from trilogue.actions import clean

logger = logging.getLogger(__name__)

LONGEST = 100_000
"""Characters that are rendered; what is longer is cut, and says so."""
MOST_MARKS = 20_000
"""Characters that may mean something in Markdown, line ends among them: each may cost 10 µs, and plain ones nothing.
With more than these a text is shown as it was written."""

_MARKS = "\n!#&*<>[\\]_`|~"
_DEEPEST = 20
_LIES_DEEP = "its parts lie too deep within each other"
_MOST_LOOKS = 100_000
_MOST_CELLS = 10_000
"""Cells of all tables together: a narrow row below a wide heading is filled up, which makes much out of little."""
_MOST_ADDRESSES = 100_000
"""Characters of all addresses together: one long definition may be referred to again and again."""
_ADDRESS = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#]\S*)?|mailto:[^\s/?#@\\]+@[^\s/?#@\\]+", re.IGNORECASE)
"""Absolute, and without a user's name, which would only pretend to be the host."""
_LONGEST_ADDRESS = 2_000
_LONGEST_SHOWN = 120

_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "td", "th"}
_ALIGNED = {"td", "th"}
_ALIGN = {f"text-align:{side}": side for side in ("left", "center", "right")}
_SANITISER = nh3.Cleaner(
    tags=_BLOCKS | {"ul", "ol", "hr", "br", "pre", "code", "em", "strong", "s", "a", "table", "thead", "tbody", "tr"},
    attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
    tag_attribute_values={
        **{tag: {"dir": {"auto"}} for tag in _BLOCKS - _ALIGNED},
        **{tag: {"dir": {"auto"}, "align": set(_ALIGN.values())} for tag in _ALIGNED},
        "code": {"dir": {"ltr"}},
    },
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


def rendered(text: str, *, top: int = 3) -> Markup:
    """Markdown (CommonMark with tables and strikethrough) as safe HTML; never raises.

    Every block finds its own direction of writing. Titles, classes, ids and styles are never among the output,
    so that they belong to the page alone: a note of ours is a `<p class="note">` at the end.

    Args:
        text: untrusted, of any length; rendered once for as long as it is remembered.
        top: the level that a `#` heading gets; deeper ones follow, down to 6.
    """
    key = (text[:LONGEST], len(text), top)
    known = _remembered.get(key)
    if known is None:
        known = _render(*key)
        _remembered.put(key, known)
    return known


def _render(shown: str, length: int, top: int) -> Markup:
    inert = str(clean(shown))
    try:
        html, note = _parsed(inert, top), ""
    except _AsWritten as reason:
        html, note = _verbatim(inert), f"Shown as it was written: {reason}."
    except Exception:
        logger.exception("the Markdown parser failed on a text of %d characters", len(inert))
        html, note = _verbatim(inert), "Shown as it was written: it could not be read as Markdown."
    if length > len(shown):
        note = f"Shortened: these are the first {len(shown):,} of {length:,} characters. {note}".rstrip()
    return html + Markup('<p class="note">{}</p>\n').format(note) if note else html


def _parsed(text: str, top: int) -> Markup:
    if sum(map(text.count, _MARKS)) > MOST_MARKS:
        raise _AsWritten("there is too much markup in it")
    return Markup(_SANITISER.clean(_parser.render(text, {"top": top})))  # noqa: S704 (sanitised this very moment)


def _verbatim(text: str) -> Markup:
    return Markup('<pre dir="auto">{}</pre>\n').format(text)  # `auto`, for it is prose


class _AsWritten(Exception):
    """The text is better shown as it was written; the message says why."""


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:  # noqa: N802 (theirs)
        return len(url) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(url) is not None


def _make_parser() -> MarkdownIt:
    parser = _Parser("commonmark", {"html": False, "linkify": False, "maxNesting": _DEEPEST})
    parser.enable("strikethrough").enable("table")
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.at("blockquote", _counted_quote, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.core.ruler.push("tamed", _tamed)
    return parser


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A table for as long as there may be more cells; what follows is text."""
    if start + 2 > end:
        return False
    left = state.env.get("cells", _MOST_CELLS)
    columns = state.src.count("|", state.bMarks[start + 1], state.eMarks[start + 1]) + 1
    if columns > left:
        return False
    if not table(state, start, min(end, start + 1 + left // columns), silent):
        return False
    if not silent:
        state.env["cells"] = left - columns * (state.line - start)
    return True


def _counted_quote(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A quotation. Every part looks for one at each of its lines, so that counting here counts all that is looked at:
    the parser may look at the rest of the text anew for each line.
    """
    looks = state.env["looks"] = state.env.get("looks", 0) + 1
    if looks > _MOST_LOOKS:
        raise _AsWritten("its parts are too entangled")
    return blockquote(state, start, end, silent)


def _tamed(state: StateCore) -> None:
    """Headings below `top`, the direction of each block, alignment without style, no images."""
    addresses = 0
    for token in state.tokens:
        if token.type in {"blockquote_open", "list_item_open"} and token.level >= _DEEPEST - 1:
            raise _AsWritten(_LIES_DEEP)
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1:]) + state.env['top'] - 1)}"
        if token.type in {"code_block", "fence"}:
            token.type, token.info = "fence", ""  # the language would become a class
            token.attrs["dir"] = "ltr"
        aligned = _ALIGN.get(str(token.attrs.pop("style", "")))
        if aligned:
            token.attrs["align"] = aligned
        if token.nesting == 1 and token.tag in _BLOCKS:
            token.attrs["dir"] = "auto"
        if token.children:
            token.children = list(_without_images(_without_nowhere(token.children)))
            depth = 0
            for child in token.children:
                depth += child.nesting
                if depth > _DEEPEST:
                    raise _AsWritten(_LIES_DEEP)
                child.attrs.pop("title", None)
                addresses += len(str(child.attrs.get("href", "")))
            if addresses > _MOST_ADDRESSES:
                token.children = [child for child in token.children if child.tag != "a"]


def _without_nowhere(tokens: list[Token]) -> Iterator[Token]:
    """The same line, with links and images that lead nowhere, `[a]()`, as their words."""
    nowhere = False
    for token in tokens:
        if token.type == "link_open":
            nowhere = not token.attrs["href"]
        if token.type == "image" and not token.attrs["src"]:
            yield _text(token.content)
        elif not (nowhere and token.tag == "a"):
            yield token


def _without_images(tokens: Iterable[Token]) -> Iterator[Token]:
    """The same line, with each image as its words and its address, which is a link where it may be one."""
    linked = 0
    for token in tokens:
        linked += token.nesting if token.tag == "a" else 0
        if token.type != "image":
            yield token
            continue
        address = str(token.attrs["src"])
        shown = address if len(address) <= _LONGEST_SHOWN else address[: _LONGEST_SHOWN - 1] + "…"
        words = " ".join(token.content.split())
        yield _text(f"Image: {words} (" if words else "Image (")
        if not linked:
            yield Token("link_open", "a", 1, attrs={"href": address})
        yield _text(shown)
        if not linked:
            yield Token("link_close", "a", -1)
        yield _text(")")


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


class _Remembered:
    """What was rendered lately, up to a number of characters in all; for any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._known: OrderedDict[tuple[str, int, int], Markup] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int, int]) -> Markup | None:
        with self._lock:
            if (html := self._known.get(key)) is not None:
                self._known.move_to_end(key)
            return html

    def put(self, key: tuple[str, int, int], html: Markup) -> None:
        with self._lock:
            if key in self._known:
                return
            self._known[key] = html
            self._size += len(key[0]) + len(html)
            while self._size > self._most:
                (old, *_), gone = self._known.popitem(last=False)
                self._size -= len(old) + len(gone)


_remembered = _Remembered(8_000_000)
_parser = _make_parser()
