"""Runs pieces of work as Ray Data tasks. Ray repeats a piece whose process died.

Only the pieces travel. They read and write files on a disk that all nodes share.
"""

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
    """Runs the pieces, all of one function, `workers` at once and in any order; yields once for each finished piece.

    Raises a piece's own exception, with the worker's traceback as a note.
    """
    if not pieces:
        return
    function = by_value(pieces[0].function)  # it may hold steps of the user's own module
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the phase reports progress and errors
    DataContext.get_current().enable_progress_bars = False
    packed = [{"item": ray.cloudpickle.dumps(piece.item), "mark": str(piece.mark)} for piece in pieces]
    # num_cpus=0: the run's actors may hold all CPUs; the number of workers bounds the load
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
    except Exception as error:  # Ray Data would wrap it in frames of its own
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return {"error": ray.cloudpickle.dumps(error)}
    return {"error": b""}
