"""The corpus phase: cleans files into documents, trains a tokenizer on them, and tokenises them for training.

All work is cut into pieces that run once (`data.corpus.work`), in this process or on the cluster, with the same result.
The artifact: `documents/` (parquet), `tokens/`, the tokenizer, `report.json`, `corpus.html`, `quarantine.jsonl`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from data.corpus.clean import Cleaned, clean
from data.corpus.document import Document, draw, write_documents
from data.corpus.source import Quarantined
from data.corpus.step import Stage
from data.corpus.tally import Tally
from data.corpus.units import plan_units
from data.corpus.work import Executor, Piece, Work, in_this_process
from data.errors import UserError
from data.tokenizer import load_tokenizer
from data.tokenizer_training import fertility
from data.tokens.write import HELD_OUT, TRAINED, is_held_out, tokenise
from rlhf.config.corpus import Reserved, Tokenizer
from rlhf.corpus import DOCUMENTS, PAGE, QUARANTINE, REPORT, TOKENS
from rlhf.corpus.cleaning_steps import plain_source, resolve_steps
from rlhf.corpus.corpus_page import corpus_page
from rlhf.corpus.corpus_report import corpus_report, data_reports, survey
from rlhf.corpus.reserved import open_reserved, reserved_sets, reserved_texts
from rlhf.metrics import Bar
from rlhf.phases.base import Metrics, PhaseContext, resolve_path, tokenizer_of_data
from rlhf.rundir import write_atomically

MB = 10**6
PARTS = {"tokens": TRAINED, "held_out_tokens": HELD_OUT}
SHARDS, TOKENIZER, SAMPLE = "token-shards", "tokenizer", "sample"  # in the working directory


def run(context: PhaseContext) -> Metrics:
    """Cleans the files, trains the tokenizer, tokenises, reports. Raises UserError where no document is left."""
    phase = context.phase
    steps = resolve_steps(phase.steps, context.artifacts)
    sources = [plain_source(source) for source in phase.sources]
    with working(context) as work:
        # 1. clean the documents
        units, unread = plan_units(sources, round(phase.unit_mb * MB))
        if not units:
            raise UserError(f"phases.{phase.name}: nothing can be read: {lost((), unread)}")
        cleaned = clean(units, steps, work, round(phase.max_document_mb * MB))
        written = [number for number, unit in enumerate(units) if not unit.source.reference]
        surveys = work.map("survey", partial(survey, cleaned.stage), list(cleaned.stage.units))
        size = sum(surveys[unit]["bytes"] for unit in written)
        if not size:
            raise UserError(f"phases.{phase.name}: no document is left: {lost(cleaned.tallies, unread)}")

        # 2. train the tokenizer on a sample, tokenise
        index: Mapping[str, Any] = {}
        told: Mapping[str, Any] = {}
        if (settings := phase.tokenizer) is not None:
            directory = work.directory / TOKENIZER
            sample = Stage(work.directory / SAMPLE, cleaned.stage.sources)
            share = min(1.0, settings.sample_mb * MB / size)
            take = partial(draw_sample, cleaned.stage, sample, share, phase.holdout)
            work.map("sample-done", take, written, "sample")
            path = settings.path and resolve_path(settings.path, context.artifacts)
            make = partial(make_tokenizer, sample, written, settings.model_copy(update={"path": path}), directory)
            work.map("tokenizer-done", make, [0], "tokenizer")
            measure = partial(tokens_per_byte, sample, written, directory)
            (told,) = work.map("fertility", measure, [0], "tokens per byte")
            index = tokenise(cleaned.stage, directory, work.directory / SHARDS, work, phase.holdout, written)

        # 3. write the report and the artifact
        tokens = {name: counted(files) for name, files in index["sources"].items()} if index else {}
        kinds = {source.name: source.kind for source in sources}
        references = [source.name for source in sources if source.reference]
        report = corpus_report(cleaned, surveys, tokens, told, kinds, references, unread)
        leave(context, work, cleaned, report, unread, written)
    for each in data_reports(report):
        context.read(each)
    return figures(report)


@contextmanager
def working(context: PhaseContext) -> Iterator[Work]:
    """Opens the working directory. Keeps finished pieces of a run with the same inputs, deletes all others."""
    phase = context.phase
    root = context.run.checkpoints(phase.name, context.id).directory.resolve()
    directory = root / context.id
    for other in root.glob("*"):
        if other != directory:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    sets = reserved_sets(context.config, phase)
    columns = {name: data.columns for name, data in sets.items() if isinstance(data, Reserved)}
    reserved = reserved_texts({name: open_reserved(data, context.opened) for name, data in sets.items()}, columns)
    with bars(context) as watch:
        yield Work(directory, context.seed, executor(context), watch, reserved)


def executor(context: PhaseContext) -> Executor:
    workers = context.phase.workers
    if workers == 1:
        return in_this_process

    def on_the_cluster(pieces: Sequence[Piece]) -> Iterable[None]:
        return context.runtime.run_pieces(pieces, workers)

    return on_the_cluster


@contextmanager
def bars(context: PhaseContext) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each kind of piece, one after the other."""
    shown: dict[str, Bar] = {}  # the current bar by kind of piece
    with ExitStack() as stack:

        def watch(name: str, done: int, total: int) -> None:
            if name not in shown:
                stack.close()
                shown.clear()
                bar = Bar(context.console, f"{context.phase.name}: {name}", total, done, (), keep=False)
                shown[name] = stack.enter_context(bar)
            shown[name].update(done, {})

        yield watch


def draw_sample(stage: Stage, sample: Stage, share: float, holdout: float, unit: int) -> None:
    """A piece of work: samples a share of a unit's documents that are not held out, drawn by their position."""
    documents = documents_of(stage, [unit])
    kept = (each for each in documents if not is_held_out(each, holdout) and draw(each, "tokenizer") < share)
    write_documents(sample.path(unit), kept)


def make_tokenizer(sample: Stage, units: Sequence[int], settings: Tokenizer, directory: Path, _: int) -> dict[str, Any]:
    """A piece of work: makes the tokenizer and writes its directory."""
    tokenizer = tokenizer_of_data(settings, (document.text for document in documents_of(sample, units)))
    shutil.rmtree(directory, ignore_errors=True)
    tokenizer.save_pretrained(directory)
    return {"vocabulary": len(tokenizer)}


def tokens_per_byte(sample: Stage, units: Sequence[int], directory: Path, _: int) -> dict[str, Any]:
    """A piece of work: measures the tokenizer on the sample."""
    return fertility(load_tokenizer(directory), documents_of(sample, units))


def documents_of(stage: Stage, units: Iterable[int]) -> Iterator[Document]:
    return (placed.document for unit in units for placed in stage.read(unit))


def counted(files: Mapping[str, Any]) -> dict[str, int]:
    """A source's numbers of tokens, and of documents without tokens, from the index."""
    tokens = {name: sum(file["tokens"] for file in files[part]) for name, part in PARTS.items()}
    return {**tokens, "without_tokens": files["empty"]}


def lost(tallies: Sequence[Tally], unread: Sequence[Quarantined]) -> str:
    """The most common reasons why documents were dropped, for an error message."""
    reasons = sum((tally.reasons for tally in tallies), Counter())
    parts = [f"{count:,} {reason}" for reason, count in reasons.most_common(3)]
    if unread:
        parts.append(f"{len(unread):,} files could not be read, the first {unread[0].file}: {unread[0].reason}")
    return ", ".join(parts) or "its files have none"


def leave(
    context: PhaseContext,
    work: Work,
    cleaned: Cleaned,
    report: Mapping[str, Any],
    unread: Sequence[Quarantined],
    written: Sequence[int],
) -> None:
    """Fills the artifact. Documents and tokens are hard links into the working directory, not copies."""
    staging = context.staging
    (staging / DOCUMENTS).mkdir()
    for unit in written:
        link(cleaned.stage.path(unit), staging / DOCUMENTS)
    if context.phase.tokenizer is not None:
        (staging / TOKENS).mkdir()
        for name, target in ((SHARDS, staging / TOKENS), (TOKENIZER, staging)):
            for file in sorted((work.directory / name).glob("[!.]*")):
                link(file, target)
    write_atomically(staging / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_atomically(staging / PAGE, corpus_page(f"{context.config.run.name}: {context.phase.name}", report))
    with open(staging / QUARANTINE, "w", encoding="utf-8") as file:
        for each in chain(unread, cleaned.quarantine):
            file.write(json.dumps(each.as_dict(), ensure_ascii=False) + "\n")


def link(file: Path, directory: Path) -> None:
    """Links the file into the directory; copies it if the file system has no hard links."""
    try:
        os.link(file, directory / file.name)
    except OSError:
        shutil.copy2(file, directory / file.name)


def figures(report: Mapping[str, Any]) -> Metrics:
    """The corpus figures for goals and the summary."""
    read = sum(source["read"] for source in report["sources"])
    found = {
        "records_read": read,
        "documents": report["documents"],
        "megabytes": report["bytes"] / MB,
        "quarantined": report["quarantined_in_all"],
    }
    if report["tokens_per_byte"]:
        found["tokens"] = sum(source.get("tokens", 0) for source in report["sources"])
        found["held_out_tokens"] = sum(source.get("held_out_tokens", 0) for source in report["sources"])
        found["tokens_per_byte"] = report["tokens_per_byte"]["tokens_per_byte"]
    return {name: float(value) for name, value in found.items()}
