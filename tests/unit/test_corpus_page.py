"""The page of a corpus shows texts of documents, which may be hostile: none becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from rlhf.corpus.corpus_page import corpus_page

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def report() -> dict[str, Any]:
    step = {
        "name": EVIL,
        "seen": 10,
        "kept": 7,
        "dropped": 3,
        "changed": 2,
        "passed_by": 0,
        "characters_in": 5_000_000,
        "seconds": 0.5,
        "preparation_s": {"signatures": 2.0},
        "reasons": {EVIL: 1, "too short": 2},
        "examples": {EVIL: [{"id": EVIL, "text": EVIL}], "changed": [{"id": "a", "text": "<EMAIL_1>"}]},
    }
    source = {
        "name": EVIL,
        "kind": "web",
        "reference": False,
        "read": 10,
        "quarantined": 1,
        "documents": 7,
        "bytes": 4_100_000,
    }
    return {
        "sources": [{**source, "tokens": 1000, "held_out_tokens": 10}],
        "steps": [step],
        "figures": {EVIL: {"short": {"kept": 0.5}}},
        "documents": 7,
        "bytes": 4_100_000,
        "languages": {EVIL: {"documents": 7, "bytes": 4_100_000}},
        "lengths": {"0": 1, "5": 6},
        "tokens_per_byte": {
            "tokens": 1010,
            "bytes": 4000,
            "tokens_per_byte": 0.25,
            "sources": {},
            "languages": {"": {"tokens": 1, "bytes": 4, "tokens_per_byte": 0.25}},
        },
        "quarantined": [{"source": EVIL, "file": EVIL, "place": 3, "reason": EVIL, "read": 0}],
        "quarantined_in_all": 1,
    }


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_no_text_of_the_corpus_becomes_markup():
    found = read(corpus_page(EVIL, report()))
    assert "script" not in found.tags
    assert found.text.count(EVIL) >= 9  # everywhere it was put in, it is to be read


def test_the_page_shows_documents_read_and_left_and_the_speed():
    text = read(corpus_page("corpus", report())).text
    assert "10 records read from 1 source; 7 documents left, 4.1 MB, 1,010 tokens." in text
    for shown in ("2 too short", "2 changed", "<EMAIL_1>", "70.0%", "2.00", "31 to 62", "language unknown", "0.250"):
        assert shown in text


def test_an_empty_corpus_has_a_page():
    empty = report() | {
        "documents": 0,
        "bytes": 0,
        "languages": {},
        "lengths": {},
        "tokens_per_byte": {},
        "figures": {},
    }
    assert "Tokens per byte" not in read(corpus_page("corpus", empty)).text
