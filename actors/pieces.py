"""Pieces of work on the cluster, by Ray Data: as many at once as workers are given, each tried again where its process died.

Only the pieces travel; what they read and write is in files, which all nodes must share."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.data import DataContext, TaskPoolStrategy

from actors.cluster import by_value
from data.corpus.work import Piece


def run_pieces(pieces: Sequence[Piece], workers: int) -> Iterator[None]:
    """Runs all, which call one function, in any order; yields once for each that is done. Raises what a piece raised, its
    traceback as a note."""
    if not pieces:
        return
    function = by_value(pieces[0].function)  # steps of the user's own module; travels once
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # progress and errors are told by the phase
    DataContext.get_current().enable_progress_bars = False
    packed = [{"item": ray.cloudpickle.dumps(piece.item), "mark": str(piece.mark)} for piece in pieces]
    # no CPU is asked for: the run's own actors may hold them all, and what bounds the load is the number of workers
    done = ray.data.from_items(packed, override_num_blocks=len(packed)).map(
        partial(_run, function=function, directory=os.getcwd()),
        compute=TaskPoolStrategy(size=min(workers, len(pieces))),
        num_cpus=0,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise ray.cloudpickle.loads(row["error"])
        yield


def _run(row: dict[str, Any], function: Callable[[Any], Any], directory: str) -> dict[str, Any]:
    os.chdir(directory)  # relative paths are the driver's
    try:
        Piece(function, ray.cloudpickle.loads(row["item"]), Path(row["mark"])).run()
    except Exception as error:  # Ray Data would wrap it, and tell of its own code
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return {"error": ray.cloudpickle.dumps(error)}
    return {"error": b""}
