"""Shared by the tests of corpus steps: stages of a few documents, executors that misbehave, and runs of a step."""

import pickle
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from data_cases import shared_file

from data.corpus.document import Document, write_documents
from data.corpus.step import Dropped, Outcome, Preparation, Stage, Step
from data.corpus.work import Executor, Piece, Work, in_this_process

Place = tuple[int, int]  # unit, row


def document(text: str, source: str = "a", number: int = 0, kind: str = "text", **more) -> Document:
    return Document(text, f"{source}/file#{number}", source, kind, "file", number, **more)


def stage_of(directory: Path, units: Sequence[tuple[str, Sequence[str | Document]]]) -> Stage:
    """units: (source, texts or documents) each."""
    stage = Stage(directory, tuple(source for source, _ in units))
    for unit, (source, texts) in enumerate(units):
        rows = (text if isinstance(text, Document) else document(text, source, row) for row, text in enumerate(texts))
        write_documents(stage.path(unit), rows)
    return stage


def shuffled(seed: int) -> Executor:
    """In any order, each piece as another process would get it."""

    def execute(pieces: Sequence[Piece]) -> Iterable[None]:
        pieces = pickle.loads(pickle.dumps(list(pieces)))
        random.Random(seed).shuffle(pieces)
        return in_this_process(pieces)

    return execute


class Killed(Exception):
    """Stands for kill -9."""


def killed_at(name: str, count: int) -> Executor:
    """Runs pieces until `count` of those called `name` are done; the next one of them does its work and dies before its mark."""
    done = 0

    def execute(pieces: Sequence[Piece]) -> Iterable[None]:
        nonlocal done
        for piece in pieces:
            if piece.mark.parent.name == name and done == count:
                piece.function(piece.item)
                raise Killed
            done += piece.mark.parent.name == name
            yield piece.run()

    return execute


def prepared(
    preparation: Preparation,
    stage: Stage,
    directory: Path,
    execute: Executor = in_this_process,
    reserved: Mapping[str, Callable[[], Iterable[str]]] | None = None,
) -> Step:
    directory.mkdir(parents=True, exist_ok=True)
    return preparation.prepare(stage, Work(directory, seed=7, execute=execute, reserved=reserved or {}))


def outcomes(step: Step, stage: Stage) -> dict[Place, Outcome]:
    """Of every document, as passes over the stage give them, in another process, three documents at a time."""
    step = pickle.loads(pickle.dumps(step))
    results: dict[Place, Outcome] = {}
    for unit in stage.units:
        placed = list(stage.read(unit))
        results |= {(unit, each.row): each.document for each in placed}
        meant = [each for each in placed if step.meant_for(each.document)]
        for start in range(0, len(meant), 3):
            chunk = meant[start : start + 3]
            made = step.apply(chunk)
            results |= {(unit, each.row): outcome for each, outcome in zip(chunk, made, strict=True)}
    return results


def dropped(results: Mapping[Place, Outcome]) -> dict[Place, str]:
    return {place: outcome.reason for place, outcome in results.items() if isinstance(outcome, Dropped)}


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file that pieces left, but not their marks, which tell how long they took, nor interrupted writes."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    kept = (path for path in files if path.suffix not in (".json", ".partial"))
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in kept}


def speeches(count: int, least_words: int) -> list[str]:
    """Different speeches of plays, those with enough words."""
    with open(shared_file("tinyshakespeare.txt")) as file:
        parts = file.read().split("\n\n")
    return list(dict.fromkeys(part for part in parts if len(part.split()) >= least_words))[:count]


def edited(text: str, changes: int, rng: random.Random) -> str:
    """So many of its words replaced by others that no text has."""
    words = re.split(r"(\s+)", text)
    for place in rng.sample(range(0, len(words), 2), changes):
        words[place] = "zq" + "".join(rng.choices("abcdefghij", k=8))
    return "".join(words)
