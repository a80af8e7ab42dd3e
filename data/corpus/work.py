"""Runs a long job as pieces that are done once: a finished piece leaves a mark file, so a run that was killed continues
with the pieces that are left. Pieces give the same result in this process and on a cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# runs all pieces, in any order, and yields once for each that is done
Executor = Callable[[Sequence["Piece"]], Iterable[None]]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to. Moves it to `path` at the end, so that `path` is whole or does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    yield partial
    os.replace(partial, path)


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes an .npy file."""
    import numpy as np

    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def open_array(path: Path) -> np.ndarray:
    """The array of an .npy file, read-only and memory-mapped."""
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Piece:
    """One call. Writes its result (JSON values) and its CPU seconds to `mark`. Picklable."""

    function: Callable[[Any], Any]
    item: Any
    mark: Path

    def run(self) -> None:
        """Does nothing if the mark exists. The function must overwrite the files of an interrupted attempt."""
        if not self.mark.exists():
            clock = time.process_time()
            done = {"result": self.function(self.item), "seconds": time.process_time() - clock}
            with whole_file(self.mark) as partial:
                partial.write_text(json.dumps(done))


def in_this_process(pieces: Sequence[Piece]) -> Iterator[None]:
    for piece in pieces:
        yield piece.run()


@dataclass(frozen=True)
class Work:
    """Where a job writes its files, and how it runs its pieces."""

    directory: Path  # of this job alone; its files are those of an interrupted run of the same corpus
    seed: int
    execute: Executor = in_this_process
    watch: Callable[[str, int, int], None] = lambda name, done, total: None  # called with the progress
    # by the data set's name, texts that must not be trained on: this run's evaluation data and RL prompts
    reserved: Mapping[str, Callable[[], Iterable[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # CPU seconds of the pieces, by name

    def map(self, name: str, function: Callable[[Any], Any], items: Sequence[Any], told: str = "") -> list[Any]:
        """Runs `function(item)` for every item that has no mark yet; returns the results in the items' order.

        function: picklable (a module's function, or a frozen dataclass with `__call__`); returns JSON values. items:
        picklable. told: the name that `watch` gets; default: name.
        """
        marks = self.directory / name
        marks.mkdir(parents=True, exist_ok=True)
        pieces = [Piece(function, item, marks / f"{number:06d}.json") for number, item in enumerate(items)]
        left = [piece for piece in pieces if not piece.mark.exists()]
        done = len(pieces) - len(left)
        self.watch(told or name, done, len(pieces))
        for _ in self.execute(left):
            done += 1
            self.watch(told or name, done, len(pieces))
        found = [json.loads(piece.mark.read_text()) for piece in pieces]
        self.seconds[name] = sum(each["seconds"] for each in found)
        return [each["result"] for each in found]

    def inside(self, name: str) -> Work:
        """The same work in the subdirectory `name`."""
        directory = self.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        return Work(directory, self.seed, self.execute, self.watch, self.reserved)
