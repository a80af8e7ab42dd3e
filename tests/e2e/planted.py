"""A small corpus of real text with known faults planted in it: what must be found, and what must stay."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PII = {  # text: its placeholder
    "write to jane.doe@example.org today": "jane.doe@example.org",
    "or call +44 20 7946 0958 before noon": "+44 20 7946 0958",
    "the server is at 203.0.113.77 they say": "203.0.113.77",
    "paid with 4111 1111 1111 1111 in may": "4111 1111 1111 1111",
    "and Dr. Emily Watson signed it": "Emily Watson",
    "who lives at 12 Baker Street, London": "12 Baker Street",
}
NAVIGATION = "Home | Products | Pricing | Log in"
COOKIES = "We use cookies to improve your experience. Accept all cookies"
FOOTER = "All rights reserved. Terms of use. Privacy policy."


@dataclass(frozen=True)
class Planted:
    """Where the corpus lies, and what is known of it: texts by what must become of them."""

    root: Path
    clean: list[str]  # must stay as they are
    exact: int  # documents that repeat another exactly
    near: int  # documents that nearly repeat another: one word in about a hundred is another
    leaks: int  # documents with a question of the evaluation set in them
    bad_files: set[str]  # that must be in quarantine


def plant(root: Path, shared: Path) -> Planted:
    """Writes everything below `root`. shared: the directory of the real texts."""
    rng = random.Random(0)
    plays = (shared / "tinyshakespeare.txt").read_text().split("\n\n")
    texts = ["\n".join(plays[start : start + 6]) for start in range(0, 1800, 6)]
    texts = [text for text in texts if len(text.split()) >= 80]
    questions = [json.loads(line)["question"] for line in (shared / "gsm8k_test.jsonl").read_text().splitlines()[:60]]
    (root / "evaluation.jsonl").write_text(
        "".join(json.dumps({"prompt": text, "response": "yes."}) + "\n" for text in questions)
    )
    pages, rows, files = texts[:60], texts[60:160], texts[160:200]

    _write_rows(root / "rows" / "a.jsonl", rows[:50])
    _write_table(root / "rows" / "b.parquet", rows[50:])
    for number, text in enumerate(pages):
        _write(root / "pages" / f"{number:02d}.html", _page(text))
    for number, text in enumerate(files):
        _write(root / "files" / f"{number:02d}.txt", text)

    exact = [*files[:10], *rows[:10]]
    near = [_one_word_changed(text, rng) for text in rows[20:60]]
    leaked = [_leak(text, question, rng) for text, question in zip(texts[200:215], questions)]
    private = texts[215] + "\n" + "\n".join(PII)
    _write_rows(root / "late" / "c.jsonl.gz", [*exact, *near, *leaked, private])
    bad = _write_bad_files(root / "late")
    clean = [*rows, *files]
    return Planted(root, clean, len(exact), len(near), len(leaked), bad)


def _page(text: str) -> str:
    paragraphs = "".join(f"<p>{line}</p>" for line in text.splitlines())
    return (
        f"<html><head><title>A play</title></head><body><nav>{NAVIGATION}</nav><div class='cookie-banner'>{COOKIES}</div>"
        f"<article><h1>A play</h1>{paragraphs}</article><footer>{FOOTER}</footer></body></html>"
    )


def _one_word_changed(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    place = rng.randrange(len(words))
    words[place] = "otherwise"
    return " ".join(words)


def _leak(text: str, question: str, rng: random.Random) -> str:
    """The question inside the text, in other letters and with other white space."""
    changed = rng.choice([question.upper(), question.lower().replace(". ", ".\n"), question.replace(" ", "  ")])
    return f"{text}\n{changed}\n{text[:80]}"


def _write_bad_files(directory: Path) -> set[str]:
    """Files and places that cannot be read."""
    (directory / "latin1.txt").write_bytes("caf\xe9 au lait ".encode("latin-1") * 50)
    (directory / "empty.jsonl").write_bytes(b"")
    (directory / "long.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + b"x" * 100_000_000 + b'"}\n', 1))
    packed = gzip.compress(json.dumps({"text": random.Random(1).randbytes(20_000).hex()}).encode())
    (directory / "torn.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    _write_table(directory / "other.parquet", ["a text"], column="content")
    (directory / "broken.jsonl").write_text('{"text": "a line without an end\n')
    return {"latin1.txt", "empty.jsonl", "long.jsonl.gz", "torn.jsonl.gz", "other.parquet", "broken.jsonl"}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_rows(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)


def _write_table(path: Path, texts: list[str], column: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: texts}), path)
