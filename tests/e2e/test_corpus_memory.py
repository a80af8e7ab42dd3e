"""A corpus ten times as large as the memory that making it may take."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

LIMIT_BYTES = 64 * 2**20  # above what a process needs for a corpus of one document
SCRIPT = """
import sys
from pathlib import Path
from data.corpus.clean import clean
from data.corpus.dedup.exact import ExactDuplicates
from data.corpus.source import Source
from data.corpus.units import plan_units
from data.corpus.work import Work

def peak_bytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def make(name):
    root = Path(sys.argv[1])
    units, _ = plan_units([Source("rows", (str(root / name),), "text")], 16 * 10**6)
    work = Work(root / f"work-{name}", 0)
    work.directory.mkdir()
    tallies = clean(units, [("exact_duplicates", ExactDuplicates())], work, 10**6).tallies
    return tallies[0].seen, tallies[-1].kept

first = make("small.jsonl")
before = peak_bytes()
print(*first, *make("large.jsonl"), peak_bytes() - before)
"""


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    (tmp_path / "small.jsonl").write_text('{"text": "a document"}\n')
    documents, copies = write_rows(tmp_path / "large.jsonl", 10 * LIMIT_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *counts, grown_bytes = map(int, done.stdout.split())
    assert counts == [1, 1, documents, documents - copies]
    assert grown_bytes < LIMIT_BYTES


def write_rows(path: Path, size_bytes: int) -> tuple[int, int]:
    """(documents, how many of them repeat an earlier one)."""
    rng = random.Random(0)
    words = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "el", "ion", "ou", "ing", "er")]
    body = [" ".join(rng.choices(words, k=600)) for _ in range(100)]
    written = documents = copies = 0
    with path.open("w") as file:
        while written < size_bytes:
            copies += documents % 10 == 9
            number = documents - documents % 10 if documents % 10 == 9 else documents  # one of ten repeats another
            line = json.dumps({"text": f"{number} {body[number % 100]}"}) + "\n"
            written += file.write(line)
            documents += 1
    return documents, copies
