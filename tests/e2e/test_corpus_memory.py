"""A corpus ten times as large as the memory that making it may take."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

LIMIT_BYTES = 64 * 2**20  # above what a process needs for a corpus of one document
SCRIPT = """
import sys
from pathlib import Path
from data.corpus.clean import clean
from data.corpus.source import CorpusSource
from data.corpus.units import plan_units
from data.corpus.work import Work
from data.tokenizer_training import train_tokenizer
from data.tokens.write import tokenise
from rlhf.config.corpus import StepConfig
from rlhf.corpus.cleaning_steps import resolve_steps

root, unit_bytes, steps = Path(sys.argv[1]), int(sys.argv[2]), resolve_steps([StepConfig(name=n) for n in sys.argv[3:]])
tokenizer = train_tokenizer(["a text"], 300).save_pretrained(root / "tokenizer")

def peak_bytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def make(name):
    units, _ = plan_units([CorpusSource("rows", (str(root / name),), "text", "en")], unit_bytes)
    work = Work(root / f"work-{name}", 0, reserved={"exam": lambda: ["which words should never be found in any text at all"]})
    work.directory.mkdir()
    cleaned = clean(units, steps, work, 10**6)
    if len(steps) > 1:
        tokenise(cleaned.stage, root / "tokenizer", root / f"tokens-{name}", work)
    return cleaned.tallies[0].seen, cleaned.tallies[-1].kept

first = make("small.jsonl")
before = peak_bytes()
print(*first, *make("large.jsonl"), peak_bytes() - before)
"""


def make_both(directory: Path, unit_bytes: int, *steps: str) -> list[int]:
    """Makes the corpora of small.jsonl and large.jsonl: documents read and left of each, and by how many bytes the process's
    peak grew with the large one."""
    command = [sys.executable, "-c", SCRIPT, str(directory), str(unit_bytes), *steps]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(int, done.stdout.split()))


@pytest.mark.long  # a corpus of 640 MiB
def test_a_corpus_ten_times_the_memory_limit_stays_below_it(tmp_path):
    (tmp_path / "small.jsonl").write_text('{"text": "a document"}\n')
    documents, copies = write_rows(tmp_path / "large.jsonl", 10 * LIMIT_BYTES)
    *counts, grown_bytes = make_both(tmp_path, 16 * 10**6, "exact_duplicates")
    assert counts == [1, 1, documents, documents - copies]
    assert grown_bytes < LIMIT_BYTES


def test_a_corpus_of_more_units_takes_no_more_memory_in_any_step(tmp_path):
    write_rows(tmp_path / "small.jsonl", 10**6, texts=5000)
    documents, _ = write_rows(tmp_path / "large.jsonl", 8 * 10**6, texts=5000)
    steps = (
        "language",
        "gopher_repetition",
        "gopher_quality",
        "exact_duplicates",
        "near_duplicates",
        "sentence_duplicates",
    )
    *counts, grown_bytes = make_both(tmp_path, 10**6, *steps, "decontaminate", "pii")
    assert counts[2] == documents and counts[3] > documents // 2  # some look like no language
    assert grown_bytes < 16 * 2**20


def write_rows(path: Path, size_bytes: int, texts: int = 100) -> tuple[int, int]:
    """(documents, how many of them repeat an earlier one). texts: different ones, which are numbered."""
    rng = random.Random(0)
    words = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "el", "ion", "ou", "ing", "er")]
    words += ["the", "of", "and", "to"] * 5  # without them it is no prose to Gopher's rules
    bodies = [". ".join(" ".join(rng.choices(words, k=15)) for _ in range(40)) for _ in range(texts)]
    written = documents = copies = 0
    with path.open("w") as file:
        while written < size_bytes:
            copies += documents % 10 == 9
            number = documents - documents % 10 if documents % 10 == 9 else documents  # one of ten repeats another
            line = json.dumps({"text": f"{number} {bodies[number % texts]}"}) + "\n"
            written += file.write(line)
            documents += 1
    return documents, copies
