"""Every kind of source gives the wanted text, and nothing around it."""

import json
import random
import re
import textwrap
import unicodedata
from pathlib import Path

import lxml.html
import pytest
from corpus_cases import read_all, record_of, source_of
from data_cases import shared_file

from data.corpus.document import Document
from data.corpus.extract import EXTRACTORS, extract
from data.corpus.extract.book import joined_lines
from data.corpus.step import Dropped

PYTHON_PAGES = Path("/usr/share/doc/python3.11/html/library")

PAGE = """<!DOCTYPE html><html><head><title>A page</title><style>p {color: red}</style></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About the site</a></li></ul></nav>
<div id="cookie-banner"><p>We use cookies to improve your experience. Accept all cookies.</p></div>
<main><article><h1>The title<a class="headerlink" href="#title">¶</a></h1>
<p>The first paragraph is long enough to be
   text, and wrapped in the   source, with <b>bold</b> words and <a href="/y">a link</a>.</p>
<ul><li>An item with code:<pre>def f(x):
    return x

print(f(1))
</pre></li><li><p>Another item.</p><p>Of two paragraphs.</p></li></ul>
<dl><dt>term</dt><dd>Its meaning: <pre>if a:\n\tb<br>c</pre> and more.</dd></dl>
<table><tr><th>Name</th><th>Value</th></tr><tr><td>alpha</td><td>1</td></tr></table>
<p>The last paragraph says nothing at all, but it does so in a good number of words.</p>
</article></main><script>var tracking = "on";</script>
<footer><p>Copyright 2020 Example. All rights reserved. <a href="/p">Privacy policy</a></p></footer></body></html>"""


def text_of(content, kind: str, name: str = "a.txt", **fields) -> str:
    documents = extract(record_of(content, kind, name, **fields))
    assert not isinstance(documents, Dropped), documents
    assert len(documents) == 1
    return documents[0].text


def test_a_document_says_where_it_comes_from():
    record = record_of("text", "text", "d/a.txt", place=7, url="https://example.org", language="de")
    assert extract(record) == [
        Document(
            text="text",
            id="some/d/a.txt#7",
            source="some",
            kind="text",
            file="d/a.txt",
            place=7,
            language="de",
            url="https://example.org",
        )
    ]


def test_the_language_is_the_records_else_the_sources(tmp_path):
    said = ["fr", "EN-us", "pt_BR", " ES ", "zho", "", "English", "und", "x", "Ich heiße Eva", 7, None]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "a", "language": each}) + "\n" for each in said))
    records, _ = read_all(source_of(tmp_path / "a.jsonl", language="de"))
    assert [extract(record)[0].language for record in records] == ["fr", "en", "pt", "es", "zho"] + ["de"] * 7
    tree = {"role": "prompter", "text": "Oi", "lang": "pt-BR"}
    assert extract(record_of({"prompt": tree}, "dialogue", "a.jsonl"))[0].language == "pt"


@pytest.mark.parametrize("kind", ["web", "text", "dialogue"])
def test_an_unexpected_error_is_quarantined_with_its_record(monkeypatch, kind):
    def fail(record):
        raise KeyError(record.content)

    monkeypatch.setitem(EXTRACTORS, kind, fail)
    found = extract(record_of("secret", kind, "d/a.html", place=7))
    assert (found.source, found.file, found.place) == ("some", "d/a.html", 7)
    assert re.fullmatch(r"no text can be made of it: KeyError in test_corpus_extract\.py, line \d+", found.reason)


def test_an_error_of_a_library_is_quarantined_too(monkeypatch):
    monkeypatch.setattr("trafilatura.extract", lambda tree, **options: lxml.html.fromstring(""))
    found = extract(record_of("<p>text</p>", "web"))
    assert re.fullmatch(r"no text can be made of it: ParserError in \w+\.py, line \d+", found.reason)


def test_a_memory_error_is_raised(monkeypatch):
    def fail(record):
        raise MemoryError

    monkeypatch.setitem(EXTRACTORS, "text", fail)
    with pytest.raises(MemoryError):
        extract(record_of("text", "text"))


@pytest.mark.parametrize("kind", ["text", "book", "code", "scientific", "web"])
@pytest.mark.parametrize("content", [" \n\t\n", "\ufeff"])
def test_a_record_without_text_is_dropped(kind, content):
    assert isinstance(extract(record_of(content, kind)), Dropped)


def test_a_page_gives_its_main_text_only():
    lines = text_of(PAGE, "web").split("\n")
    assert lines == [
        "The title",
        "The first paragraph is long enough to be text, and wrapped in the source, with bold words and a link.",
        "- An item with code:",
        "def f(x):",
        "    return x",
        "",
        "print(f(1))",
        "- Another item.",
        "Of two paragraphs.",
        "- term",
        "- Its meaning:",
        "if a:",
        "\tb",
        "c",
        "and more.",
        "| Name | Value |",
        "|---|---|",
        "| alpha | 1 |",
        "The last paragraph says nothing at all, but it does so in a good number of words.",
    ]


@pytest.mark.skipif(not PYTHON_PAGES.is_dir(), reason="python3.11-doc is not installed")
@pytest.mark.parametrize("name", ["csv", "logging", "traceback", "threading"])
def test_real_pages_keep_their_code_and_paragraphs_and_lose_their_navigation(name):
    page = (PYTHON_PAGES / f"{name}.html").read_text()
    text, tree = text_of(page, "web"), lxml.html.fromstring(page)
    for block in tree.iter("pre"):
        assert block.text_content().strip("\n") in text
    paragraphs = [" ".join(each.text_content().split()) for each in tree.xpath("//div[@role='main']//p")]
    assert len(paragraphs) > 10
    assert sum(paragraph in text for paragraph in paragraphs) >= 0.97 * len(paragraphs)
    for words in ("Show Source", "Report a Bug", "Previous topic", "Table of Contents", "¶"):
        assert words not in text


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            "<?xml version='1.0' encoding='utf-8'?><html xmlns='http://www.w3.org/1999/xhtml'><body><p>Été</p></body></html>",
            "Été",
        ),
        ("<p>a fragment</p>", "a fragment"),
        ("<p>می‌خواهم</p>", "می\u200cخواهم"),
        ("<p>A &lt; B &amp; C, and &amp;lt; is an entity</p>", "A < B & C, and &lt; is an entity"),
        ("<p>a&#1;\x02\ufffeb</p><pre>c\x0b&#3;d</pre>", "ab\ncd"),
        ("<pre>a<!-- x --> &amp;amp;\n  b</pre>", "a &amp;\n  b"),
        ("<p>a <!-- x --> b\nc</p>", "a b c"),
    ],
)
def test_pages_of_other_forms_are_read(page, expected):
    assert text_of(page, "web") == expected


@pytest.mark.parametrize(
    "page", ["<html></html>", "<div>" * 5000 + "deep", "<frameset><frame src=x></frameset>", "<pre>\n</pre>"]
)
def test_a_page_without_text_is_dropped(page):
    assert extract(record_of(page, "web")) == Dropped("no text found in the page")


def test_a_page_that_would_take_minutes_is_dropped():
    page = "<p>" + "<b>word</b> " * 100_000 + "</p>"
    assert extract(record_of(page, "web")) == Dropped("a page with too many elements side by side")


def test_plain_text_is_made_uniform():
    found = text_of("\ufeffa\r\nb\rc\u2028d\x00\x07\x9be\tf\x0cg\u200d\n\n", "text")
    assert found == "a\nb\nc\nde\tf\ng\u200d"
    assert text_of("e\u0301 ﬁ", "text") == "é ﬁ"
    every = "".join(chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) != "Cs")
    left = text_of(f"a{every}a", "text")
    assert {char for char in left if unicodedata.category(char) == "Cc"} == {"\n", "\t"}
    assert unicodedata.is_normalized("NFC", left)


def test_code_is_kept_as_it_is_and_its_language_noted():
    code = "\tif a:\r\n\t\tb = 'e\u0301'\x0c\n\n"
    for name, language in {"a.py": "python", "A.CPP": "c++", "x.rs.gz": "rust"}.items():
        document = extract(record_of(code, "code", name))[0]
        assert (document.text, document.marks, document.language) == (code, {"code": language}, "")
    assert extract(record_of(code, "code", "a.jsonl", language="Go"))[0].marks == {"code": "go"}
    assert extract(record_of(code, "code", "a.jsonl"))[0].marks == {}


def prose(seed: int, count: int) -> list[str]:
    words = random.Random(seed)
    return [" ".join("x" * words.randint(1, 12) for _ in range(words.randint(30, 120))) + "." for _ in range(count)]


@pytest.mark.parametrize("width", [60, 72, 79])
def test_paragraphs_that_were_wrapped_are_one_line_again(width):
    paragraphs = prose(width, 30)
    wrapped = "\n\n".join(textwrap.fill(paragraph, width) for paragraph in paragraphs)
    assert joined_lines(wrapped) == "\n\n".join(paragraphs)


def test_verse_and_tables_and_lists_among_wrapped_paragraphs_keep_their_lines():
    verse = "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame thy fearful symmetry?"
    table = "  one      1\n  two      2"
    items = "Bread and butter and jam and a long list of other things to buy\nMilk\nEggs"
    paragraphs = [textwrap.fill(paragraph, 72) for paragraph in prose(1, 30)]
    found = joined_lines("\n\n".join([*paragraphs, verse, table, items]))
    assert found.endswith("\n\n".join(["", verse, table, items]))


def test_a_play_in_verse_keeps_every_line():
    play = Path(shared_file("tinyshakespeare.txt")).read_text()
    assert text_of(play, "book") == play.strip("\n")


@pytest.mark.parametrize(
    ("header", "footer"),
    [
        (
            "The Project Gutenberg eBook of X\n\nThis ebook is for the use of anyone\n\nTitle: X\n\n"
            "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n",
            "\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n\nUpdated editions will replace the previous one\n",
        ),
        (
            "Project Gutenberg's X, by Y\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n\nProduced by Jane Doe and\n"
            "the team\n\n\n",
            "\n\nEnd of Project Gutenberg's X, by Y\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n\nlicence\n",
        ),
        (
            "**Welcome to the World of Free Etexts**\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n",
            "\n\nEnd of the Project Gutenberg Etext of X\n",
        ),
        ("", ""),
    ],
)
def test_a_book_of_project_gutenberg_comes_without_licence(header, footer):
    book = "CHAPTER I\n\nIt was the best of times.\n\n*** \n\nTHE END"
    assert text_of(header + book + footer, "book") == book


def test_latex_loses_comments_and_preamble_and_keeps_its_markup():
    source = r"""\documentclass{article} % preamble
% \begin{document}
\title{T}
\begin{document}
\section{One} % a note
We lose 5\% of $x_{%
  1}$ here.
% a whole line
    % another
\begin{verbatim}
100 % sure
\end{verbatim}
\verb|a%b| and \url{http://a.b/c%20d} and a line break \\% note
end.
\foo% note
bar.
\begin{comment}
hidden
\end{comment}
\input{other}
\begin{thebibliography}{1}
\bibitem{a} A. Author. % who?
\end{thebibliography}
\end{document}
after
"""
    expected = r"""\section{One}
We lose 5\% of $x_{1}$ here.
\begin{verbatim}
100 % sure
\end{verbatim}
\verb|a%b| and \url{http://a.b/c%20d} and a line break \\end.
\foo
bar.

\input{other}
\begin{thebibliography}{1}
\bibitem{a} A. Author.
\end{thebibliography}"""
    assert text_of(source, "scientific", "a.tex") == expected
    assert text_of(source, "scientific", "rows.jsonl") == expected


def test_markdown_and_latex_without_a_document_are_kept():
    markdown = "# Title\n\n50 % of $x$ — \\begin{align}a &= b\\end{align}\n\n[1] A. Author."
    assert text_of(markdown, "scientific", "a.md") == markdown
    assert text_of(markdown, "scientific", "rows.jsonl") == markdown
    assert text_of("\\section{A}\ntext\n% note\nmore", "scientific", "part.tex") == "\\section{A}\ntext\nmore"
