"""RL steps that a run stores for `launch.py replay`, under RUN/steps/<phase>/step-<N>/.

`batch.safetensors` holds the columns that the algorithm received, `step.json` the texts of each row and the algorithm,
`policy/` the weights that sampled the answers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from data.batch import Batch
from rlhf.interfaces import Algorithm
from rlhf.rundir import write_atomically

BATCH, STEP, POLICY = "batch.safetensors", "step.json", "policy"


@dataclass(frozen=True)
class StoredStep:
    batch: Batch
    rows: list[dict[str, Any]]  # by row of the batch: "prompt", "answer", and "row", the prompt's row in the data set
    algorithm: str  # repr of the algorithm
    state: dict[str, Any]  # the algorithm's state at this step


def store_step(directory: Path, batch: Batch, algorithm: Algorithm) -> None:
    """Writes batch and texts. The batch is written last, so a directory with a batch is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    described = {"algorithm": repr(algorithm), "state": algorithm.state(), "rows": batch.meta}
    write_atomically(directory / STEP, json.dumps(described))
    partial = directory / f".{BATCH}.partial"
    # columns may share memory, which the format does not allow: clone them
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in batch.columns.items()}, partial)
    os.replace(partial, directory / BATCH)


def load_step(directory: Path) -> StoredStep:
    return StoredStep(Batch(load_file(directory / BATCH)), **json.loads((directory / STEP).read_text()))
