"""What a browser would make of HTML that is to have nothing in it but text."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

TAGS = set("p h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong s a hr br table thead tbody tr th td".split())
ATTRIBUTES = {"dir", "href", "rel", "start", "align", "class"}
VOID = {"hr", "br"}


class Read(HTMLParser):
    """What a browser would make of HTML; anything that is not on the lists above fails the test."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags = list[str]()
        self.links = list[str]()
        self.notes = 0
        self.text = ""
        self.deepest = 0
        self._open = list[str]()
        self.feed(str(html))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag in TAGS, tag
        assert len(given) == len(attrs)
        assert given.keys() <= ATTRIBUTES, given
        assert given.get("dir", "auto") in {"auto", "ltr"}
        assert given.get("align", "left") in {"left", "center", "right"}
        assert (given.get("start") or "1").isdecimal()
        if "class" in given:
            assert (tag, given["class"]) == ("p", "note")
            self.notes += 1
        if tag == "a":
            assert given["rel"] == "noopener noreferrer nofollow"
            assert "a" not in self._open, "a link in a link"
            if (address := given.get("href")) is not None:
                self._link(address)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
            self.deepest = max(self.deepest, len(self._open))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(f"a declaration: {decl!r}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data!r}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data!r}")

    def _link(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.scheme in {"http", "https", "mailto"}, address
        assert address == address.strip()
        assert address.isprintable(), address
        if parts.scheme != "mailto":
            assert parts.hostname, address
            assert parts.username is None, address
        self.links.append(address)
