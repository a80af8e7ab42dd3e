"""Work in pieces that are done once: each piece leaves a mark when it is finished, so that a run that was killed goes on with
the rest. Where the pieces run, here or on a cluster, changes nothing of what they leave."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Executor = Callable[
    [Sequence["Piece"]], Iterable[None]
]  # runs all, in any order, and yields once for each that is done


@dataclass(frozen=True)
class Piece:
    """One call whose result, JSON values, is kept beside the others of its name. Picklable."""

    function: Callable[[Any], Any]
    item: Any
    mark: Path

    def run(self) -> None:
        """Does the work unless it was done. What it writes must replace what an interrupted try left."""
        if not self.mark.exists():
            clock = time.process_time()
            done = {"result": self.function(self.item), "seconds": time.process_time() - clock}
            partial = self.mark.with_name(f".{self.mark.name}.{os.getpid()}.partial")
            partial.write_text(json.dumps(done))
            os.replace(partial, self.mark)


def in_this_process(pieces: Sequence[Piece]) -> Iterator[None]:
    for piece in pieces:
        yield piece.run()


@dataclass(frozen=True)
class Work:
    """Where a preparation works, and what it has to work with."""

    directory: Path  # its own; what is there was left by an interrupted run of the same corpus
    seed: int
    execute: Executor = in_this_process
    watch: Callable[[str, int, int], None] = lambda name, done, total: None  # told of progress
    # texts that must not be trained on, by the name of the data set: of this run's evaluations and RL prompts
    reserved: Mapping[str, Callable[[], Iterable[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of CPU that the pieces took, by name

    def map(self, name: str, function: Callable[[Any], Any], items: Sequence[Any], told: str = "") -> list[Any]:
        """`function(item)` for every item, anywhere; the results, JSON values, in the items' order. `function` is picklable (a
        module's function, or a frozen dataclass with `__call__`) and so are the items. What is done already is not done
        again. told: what progress is called, by default the name."""
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
        """The same in a directory of its own."""
        directory = self.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        return Work(directory, self.seed, self.execute, self.watch, self.reserved)
