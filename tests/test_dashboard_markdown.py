"""What models wrote becomes HTML in which nothing runs and nothing is fetched, and which looks as it was meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.markup import Read
from trilogue.dashboard.markdown import rendered


def words(html: str) -> str:
    return " ".join(html.split())


RUNS_NOTHING = [
    "<script>alert(1)</script>",
    "<ScRiPt\n>alert(1)</sCrIpT >",
    "<img src=x onerror=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<svg><g onload=alert(1)></svg>",
    "<svg/onload=alert(1)//",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><img src=x onerror=alert(1)>",
    "<!--><script>alert(1)</script>-->",
    "<!-- a -- --!><img src=x onerror=alert(1)>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><?php alert(1) ?>",
    "<!DOCTYPE html [<!ENTITY x 'y'>]>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data='data:text/html,<script>alert(1)</script>'>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css'</style>",
    "<div style='background:url(//evil.example/x)'>x</div>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<p id=content class=button data-part=actions>x</p>",
    "<p title='x' lang='y' data-part='z'>x</p>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "&#x3c;img src=x onerror=alert(1)&#x3e;",
    "\\<script>alert(1)\\</script>",
    "`<script>alert(1)</script>`",
    "```\n</code></pre><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "```js onclick=alert(1)\nx\n```",
    "    </code></pre><script>alert(1)</script>",
    "# <img src=x onerror=alert(1)>",
    "| <script>alert(1)</script> | b |\n|---|:-:|\n| <img src=x onerror=alert(1)> | `</td>` |",
    '|a|\n|:-:" onclick=alert(1)|\n|b|',
    "<\u200bscript>alert(1)</script>",
    "＜script＞alert(1)＜/script＞",
    "<scr\0ipt>alert(1)</scr\0ipt>",
    "<img\x0bsrc=x\x0conerror=alert(1)>",
    "\ud800<script>alert(1)</script>\udfff",
    "{{ 7 * 7 }} {% raw %} ${alert(1)} <%= 1 %>",
]

NO_LINKS = [
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](javascript&#58;alert(1))",
    "[a](javascript&colon;alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](java&Tab;script:alert(1))",
    "[a](<java\tscript:alert(1)>)",
    "[a](<java\nscript:alert(1)>)",
    "[a](\x01javascript:alert(1))",
    "[a](\u00a0javascript:alert(1))",
    "[a]( javascript:alert(1))",
    "[a](javascript\\:alert(1))",
    "[a](javascript%3Aalert(1))",
    "[a](ｊavascript:alert(1))",
    "[a](java\u00adscript:alert(1))",
    "[a](\u202ejavascript:alert(1))",
    "[a](vbscript:msgbox(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[a](data:image/png;base64,AAAA)",
    "[a](data:image/svg+xml;base64,AAAA)",
    "[a](file:///etc/passwd)",
    "[a](blob:https://x.example/1)",
    "[a](view-source:https://x.example)",
    "[a](intent://x#Intent;end)",
    "[a](feed:javascript:alert(1))",
    "[a](/api/pipeline/p-1/stop)",
    "[a](stop)",
    "[a](../x)",
    "[a](?at=1)",
    "[a](#content)",
    "[a](//evil.example)",
    "[a](\\\\\\\\evil.example)",
    "[a](/\\\\evil.example)",
    "[a](https:evil.example)",
    "[a](https:/evil.example)",
    "[a](https:///evil.example)",
    "[a](https:\\\\\\\\evil.example)",
    "[a](https://)",
    "[a](https://good.example@evil.example/)",
    "[a](https://good.example%2f@evil.example/)",
    "[a](https://u:p@evil.example/)",
    "[a](https://good.example\\\\@evil.example)",
    "[a](mailto:a@b.example?attach=/etc/passwd)",
    "[a](mailto:javascript)",
    "[a]()",
    "[a](<>)",
    "[a]\n\n[a]: javascript:alert(1)",
    "[a]\n\n[a]: <javascript:alert(1)> 'x'",
    "[a][b]\n\n[b]: &#106;avascript:alert(1)",
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    "<vbscript:x>",
    "<file:///etc/passwd>",
    "www.evil.example https://evil.example a@evil.example",
    "[a](https://x.example/" + "y" * 3_000 + ")",
]


@pytest.mark.parametrize("text", RUNS_NOTHING)
def test_what_looks_like_markup_is_shown_as_text(text: str) -> None:
    found = Read(rendered(text))
    assert found.links == []
    assert found.notes == 0
    for sign in ("alert(1)", "evil.example", "onclick"):
        assert sign not in text or sign in found.text or text.startswith("```"), found.text


@pytest.mark.parametrize("text", RUNS_NOTHING)
def test_the_sanitiser_holds_without_the_parser(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MarkdownIt, "render", lambda _, source, __: source)
    Read(rendered(f"unparsed {text}"))


@pytest.mark.parametrize("text", NO_LINKS)
def test_only_plain_web_and_mail_addresses_become_links(text: str) -> None:
    found = Read(rendered(text))
    assert found.links == []
    assert found.tags.count("a") == 0
    image = Read(rendered(f"!{text}"))
    assert image.links == []
    assert Read(rendered(f"[x {text} y](https://x.example)")).links in ([], ["https://x.example"])


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("[a](https://x.example/p?q=1&r=2#f)", ["https://x.example/p?q=1&r=2#f"]),
        ("[a](HTTP://x.example)", ["HTTP://x.example"]),
        ("[a](http://[::1]:8000/x)", ["http://[::1]:8000/x"]),
        ("<https://x.example/ü>", ["https://x.example/%C3%BC"]),
        ("<a@b.example> [m](mailto:c@d.example)", ["mailto:a@b.example", "mailto:c@d.example"]),
        ("[a][r]\n\n[r]: https://x.example 'title'", ["https://x.example"]),
        ('[a](https://x.example/"onmouseover=alert(1))', ["https://x.example/%22onmouseover=alert(1)"]),
        ("[a](https://x.example '\"><script>alert(1)</script>')", ["https://x.example"]),
        ('[a](https://x.example "&quot; onclick=&quot;alert(1)")', ["https://x.example"]),
        ("[a](https://x.example/'><img/src=x>)", ["https://x.example/'%3E%3Cimg/src=x%3E"]),
        ("[a [b](https://in.example) c](https://out.example)", ["https://in.example"]),
        ("[`</a>`](https://x.example)", ["https://x.example"]),
    ],
)
def test_good_addresses_become_links_that_tell_nothing_of_us(text: str, links: list[str]) -> None:
    assert Read(rendered(text)).links == links


def test_a_picture_is_its_words_and_its_address() -> None:
    found = Read(rendered("see ![the *plan*](https://x.example/p.png 'onerror=alert(1)')."))
    assert found.text.strip() == "see Image: the *plan* (https://x.example/p.png)."
    assert found.links == ["https://x.example/p.png"]
    assert Read(rendered("![](https://x.example/p.png)")).text.strip() == "Image (https://x.example/p.png)"
    inside = Read(rendered("[![b](https://i.example/b.svg)](https://x.example)"))
    assert (inside.links, inside.text.strip()) == (["https://x.example"], "Image: b (https://i.example/b.svg)")
    long = Read(rendered(f"![a](https://x.example/{'y' * 1_000})"))
    assert len(long.text) < 200
    assert len(long.links[0]) > 1_000
    unloaded = Read(rendered("![a](data:image/png;base64,AAAA) ![b](x.png)"))
    assert unloaded.text.strip() == "![a](data:image/png;base64,AAAA) ![b](x.png)"


def test_good_markdown_looks_as_meant() -> None:
    text = """# One

Some *em*, **strong**, ~~gone~~, `x < 1` and\\
a second line.

## Two

- a
- b
  1. c

7. seven

> quoted

```python
if x < 1 & y: print("שלום")
```

| left | right | mid |
|------|------:|:---:|
| 1 | 2 | **3** |

---
"""
    html = words(rendered(text))
    Read(html)
    for part in (
        '<h3 dir="auto">One</h3>',
        '<h4 dir="auto">Two</h4>',
        "<em>em</em>, <strong>strong</strong>, <s>gone</s>, <code>x &lt; 1</code> and<br> a second line.",
        '<ul> <li dir="auto">a</li> <li dir="auto">b <ol> <li dir="auto">c</li> </ol> </li> </ul>',
        '<ol start="7"> <li dir="auto">seven</li> </ol>',
        '<blockquote dir="auto"> <p dir="auto">quoted</p> </blockquote>',
        '<pre><code dir="ltr">if x &lt; 1 &amp; y: print("שלום") </code></pre>',
        '<th dir="auto">left</th>',
        'align="right"',
        "<strong>3</strong></td> </tr> </tbody> </table>",
        "<hr>",
    ):
        assert part in html, part
    assert rendered("") == ""
    assert words(rendered("    indented\n")) == '<p dir="auto">indented</p>'


def test_headings_begin_at_the_level_that_the_page_gives_them() -> None:
    text = "# a\n\n## b\n\nc\n=\n\n###### d"
    assert Read(rendered(text)).tags == ["h3", "h4", "h3", "h6"]
    assert Read(rendered(text, top=2)).tags == ["h2", "h3", "h2", "h6"]


def test_every_block_finds_its_own_direction_and_none_is_turned_by_force() -> None:
    html = rendered("\u202eשלום\u2066\n\n- \u202dabc\n\n`\u202b`\x07\x9b")
    assert not set(html) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x07\x9b")
    assert html.count('dir="auto"') == 3
    assert "שלום" in html


PIECES = (
    "* ** _ __ ~~ ` ``` ~~~ [ ] ]( ) ! ![ < > </ <!-- --> & &#x3c; &lt; \\ | |-| # - + 1. : \" ' = [a]: [a] "
    "javascript: data: https://x.example //x mailto:a@b.example script img onerror= style= \u202e \x00 é 😀"
)
MARKDOWN = st.lists(
    st.sampled_from([*PIECES.split(" "), " ", "    ", "\n", "\n\n", "\t", "\n|-|\n"]) | st.text(max_size=5), max_size=60
).map("".join)


@given(st.text() | MARKDOWN)
@settings(max_examples=400, deadline=None)
def test_whatever_is_written_only_what_is_allowed_comes_out(text: str) -> None:
    Read(rendered(text))
