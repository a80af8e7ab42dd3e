"""How fast each part of a corpus is made, in one process and in several: python benchmarks/corpus.py --pages DIRECTORY --texts FILE

pages: HTML files (Debian's package python3.11-doc has some in /usr/share/doc/python3.11/html); texts: a plain text file. MB are those of
the text that goes in (for `extract`, of HTML); seconds are wall-clock, of all pieces of one kind together. Every process makes a corpus of
a few pages first, so that starting it and its imports are not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from actors.cluster import cluster
from actors.pieces import run_pieces
from data.corpus.clean import Cleaned, clean
from data.corpus.source import CorpusSource
from data.corpus.units import plan_units
from data.corpus.work import Executor, Work, in_this_process
from data.tokenizer_training import train_tokenizer
from data.tokens.write import tokenise
from rlhf.config.corpus import StepConfig
from rlhf.corpus.cleaning_steps import resolve_steps

STEPS = (
    {"name": "language"},
    {"name": "gopher_repetition", "kinds": ["web"]},
    {"name": "gopher_quality", "kinds": ["web"]},
    {"name": "fineweb", "kinds": ["web"], "char_duplicates_ratio": 1.0},
    {"name": "exact_duplicates"},
    {"name": "near_duplicates"},
    {"name": "sentence_duplicates"},
    {"name": "decontaminate"},
    {"name": "pii"},
)
RESERVED = [
    f"which of these {number} questions should never be found in any text that is trained on" for number in range(500)
]
UNIT_BYTES, DOCUMENT_BYTES = 10**6, 16 * 10**6


class Clock:
    """Wall-clock seconds of each kind of piece, told by `Work.watch`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        if done == 0:
            self._since = time.perf_counter()
        if done == total:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._since


def make(
    sources: list[CorpusSource], execute: Executor, directory: Path, unit_bytes: int = UNIT_BYTES
) -> tuple[Cleaned, dict[str, float]]:
    """One corpus, with its seconds by kind of piece."""
    clock = Clock()
    work = Work(directory, 0, execute, clock, {"questions": lambda: RESERVED})
    units, _ = plan_units(sources, unit_bytes)
    cleaned = clean(units, resolve_steps([StepConfig(**step) for step in STEPS]), work, DOCUMENT_BYTES)
    tokenizer = directory / "tokenizer"
    texts = (placed.document.text for unit in list(cleaned.stage.units)[:5] for placed in cleaned.stage.read(unit))
    train_tokenizer(texts, 4096).save_pretrained(tokenizer)
    tokenise(cleaned.stage, tokenizer, directory / "shards", work, 0.01)
    return cleaned, clock.seconds


def warm_up(sources: list[CorpusSource], execute: Executor, workers: int, directory: Path) -> None:
    """A page and a few lines for each worker."""
    for number in range(4 * workers):
        for source in sources:
            path = Path(source.path[0])
            file = path if path.is_file() else next(iter(sorted(path.rglob("*.html"))))
            target = directory / "files" / source.name / f"{number}{file.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes()[:200_000])
    few = [replace(source, path=(str(directory / "files" / source.name),)) for source in sources]
    make(few, execute, directory, unit_bytes=300_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    sources = [
        CorpusSource("pages", (arguments.pages,), "web", "en"),
        CorpusSource("texts", (arguments.texts,), "text", "en", split="paragraphs"),
    ]
    found = {}
    for workers in (1, arguments.workers):
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            execute = in_this_process
            if workers > 1:
                stack.enter_context(cluster(None, "cpu"))
                execute = partial(run_pieces, workers=workers)
            warm_up(sources, execute, workers, Path(directory) / "warm-up")
            found[workers] = make(sources, execute, Path(directory) / "measured")
    show(found)


def show(found: dict[int, tuple[Cleaned, dict[str, float]]]) -> None:
    console = Console()
    (cleaned, one), (_, several) = found.values()
    steps = Table("step", "MB in", "MB a CPU-second, one process", "the same, several", box=box.SIMPLE_HEAD)
    again = {
        tally.name: (tally, found[max(found)][0].seconds.get(tally.name, {})) for tally in found[max(found)][0].tallies
    }
    for tally in cleaned.tallies:
        speeds = []
        for each, preparation in ((tally, cleaned.seconds.get(tally.name, {})), again[tally.name]):
            seconds = each.seconds + sum(preparation.values())
            speeds.append(f"{each.characters_in / seconds / 1e6:.2f}" if seconds else "")
        steps.add_row(tally.name, f"{tally.characters_in / 1e6:.1f}", *speeds)
    console.print(steps)
    walls = Table("kind of piece", *(f"seconds, {workers} at once" for workers in found), "ratio", box=box.SIMPLE_HEAD)
    for name in [*one, "all"]:
        pair = [sum(seconds.values()) if name == "all" else seconds[name] for seconds in (one, several)]
        walls.add_row(name, *(f"{seconds:.1f}" for seconds in pair), f"{pair[0] / pair[1]:.2f}" if pair[1] else "")
    console.print(walls)


if __name__ == "__main__":
    main()
