"""Pieces of work on the cluster, by Ray Data: as many at once as workers are given, each tried again where its process died.

Only the pieces travel; what they read and write is in files, which all nodes must share."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.data import DataContext, TaskPoolStrategy

from actors.cluster import by_value
from data.corpus.work import Piece


def run_pieces(pieces: Sequence[Piece], workers: int) -> Iterator[None]:
    """Runs all, in any order; yields once for each that is done. Raises what a piece raised, its traceback as a note."""
    if not pieces:
        return
    by_value(pieces[0].function)  # steps of the user's own module
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # progress and errors are told by the phase
    DataContext.get_current().enable_progress_bars = False
    packed = [{"piece": ray.cloudpickle.dumps(piece)} for piece in pieces]
    # no CPU is asked for: the run's own actors may hold them all, and what bounds the load is the number of workers
    done = ray.data.from_items(packed, override_num_blocks=len(packed)).map(
        _run, compute=TaskPoolStrategy(size=min(workers, len(pieces))), num_cpus=0
    )
    for row in done.iter_rows():
        if row["error"]:
            raise ray.cloudpickle.loads(row["error"])
        yield


def _run(row: dict[str, Any]) -> dict[str, Any]:
    try:
        ray.cloudpickle.loads(row["piece"]).run()
    except Exception as error:  # Ray Data would wrap it, and tell of its own code
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return {"error": ray.cloudpickle.dumps(error)}
    return {"error": b""}
