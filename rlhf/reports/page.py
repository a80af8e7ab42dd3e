"""For rlhf/corpus alone, until its page is a template of `rlhf.reports.html`. Pieces of an HTML page. What is not `Html` is text and is escaped where it is put in, so that no answer of a model
and no row of data can become markup."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from markupsafe import Markup

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #656d76; --line: #d8dee4; --page: #ffffff; --card: #f6f8fa;
  --good: #1a7f37; --bad: #cf222e; --warn: #fff8c5; --warn-line: #d4a72c; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117;
  --card: #151b23; --good: #3fb950; --bad: #f85149; --warn: #2e2a1f; --warn-line: #9e6a03; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 72rem;
  margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid
var(--line); } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; margin: .5rem 0 1rem; } th { text-align: left; color: var(--soft); font-weight: 600;
} th, td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } td.text { white-space: pre-wrap; min-width: 12rem;
} .good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.alarms { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .6rem 1rem .6rem 2rem; margin:
.5rem 0; } figure { margin: .5rem 0; } figure svg { width: 100%; height: auto; }
figure img { max-width: 100%; }
pre { margin: .2rem 0 .7rem; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 60rem; }
"""


Html = Markup  # not escaped again


def element(name: str, *children: str | None, **attributes: str) -> Html:
    """`<name …>children</name>`. Children that are not Html are escaped, None is left out; `class_` is the class."""
    inner = "".join(child if isinstance(child, Html) else escape(child) for child in children if child is not None)
    given = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{inner}</{name}>")


def table(headings: Sequence[str], rows: Iterable[Sequence[str | Html]]) -> Html:
    """Cells are text, or whole `<td>`s."""
    head = element("tr", *(element("th", heading) for heading in headings))
    cells = ([cell if isinstance(cell, Html) else element("td", cell) for cell in row] for row in rows)
    return element("table", head, *(element("tr", *row) for row in cells))


def number(text: str) -> Html:
    return element("td", text, class_="number")


def listing(texts: Iterable[str], **attributes: str) -> Html:
    return element("ul", *(element("li", text) for text in texts), **attributes)


def picture(content: Html, caption: str) -> Html:
    return element("figure", content, element("figcaption", caption))


def png(path: Path) -> Html:
    """The file inside the page: a report is one file."""
    data = base64.b64encode(path.read_bytes()).decode()
    return Html(f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">')


def page(title: str, *body: Html) -> str:
    head = element(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n"
