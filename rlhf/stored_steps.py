"""Steps of RL that a run keeps for `launch.py replay`, under RUN/steps/<phase>/step-<N>/.

`batch.safetensors` holds all columns as the algorithm got them, `step.json` each row's texts and the algorithm, `policy/` the
weights that sampled the answers.
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
    rows: list[dict[str, Any]]  # of each row of the batch "prompt", "answer" and "row", its prompt's row in the data
    algorithm: str  # repr of the run's own
    state: dict[str, Any]  # of the algorithm, at this step

    @property
    def size(self) -> int:
        return len(self.batch)


def store_step(directory: Path, batch: Batch, algorithm: Algorithm) -> None:
    """Writes all but the policy, the batch last: a step without one is not stored."""
    directory.mkdir(parents=True, exist_ok=True)
    described = {"algorithm": repr(algorithm), "state": algorithm.state(), "rows": batch.meta}
    write_atomically(directory / STEP, json.dumps(described))
    partial = directory / f".{BATCH}.partial"
    # clones: a batch shares tensors, and the format knows no views
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in batch.columns.items()}, partial)
    os.replace(partial, directory / BATCH)


def load_step(directory: Path) -> StoredStep:
    return StoredStep(Batch(load_file(directory / BATCH)), **json.loads((directory / STEP).read_text()))
