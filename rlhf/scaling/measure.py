"""Measurements of the grid's trainings: sizes from the weights, tokens from the log, losses from the held-out rows."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from data.errors import UserError
from data.tokenizer import load_tokenizer
from rlhf.config.schema import Config
from rlhf.phases.base import implied_fields
from rlhf.phases.held_out import surprise
from rlhf.rundir import Artifact
from rlhf.scaling.law import Training
from rlhf.scaling.size_grid import GridPoint, points_of


@dataclass(frozen=True)
class Measurement:
    """A finished training of the grid."""

    point: GridPoint
    training: Training  # with the held-out loss
    passes: float  # over the data; above 1, tokens were repeated
    seconds: float  # of the last attempt


def measurements(config: Config, root: Path, artifacts: Mapping[str, Artifact]) -> list[Measurement]:
    """The measurements of all points of the grid. root: the grid's run directory. artifacts: those of the grid's
    phases, by name.

    Raises UserError where a training has no held-out loss, or one that is not finite.
    """
    tokens = tokens_by_phase(root / "metrics.jsonl")
    found = []
    for point in points_of(config.scaling):
        artifact = artifacts[point.name]
        if artifact.metrics.get("loss") is None:
            raise UserError(
                f"scaling: {point.name} has no held-out loss: set data.holdout or eval_data of the phase that is scaled"
            )
        loss = surprise(artifact.metrics)
        if not math.isfinite(loss):
            raise UserError(
                f"scaling: the held-out loss of {point.name} is {loss}: set a lower scaling.sizes.{point.size}.lr"
            )
        training = Training(parameters_in(artifact.path), tokens[point.name], loss)
        found.append(Measurement(point, training, _passes(artifact, training.tokens), artifact.seconds))
    return found


def tokens_by_phase(metrics: Path) -> dict[str, int]:
    """Tokens of all logged steps, by phase."""
    counts: dict[str, int] = defaultdict(int)
    for line in metrics.read_text().splitlines():
        row = json.loads(line)
        counts[row["phase"]] += int(row.get("tokens", 0))
    return counts


def parameters_in(directory: Path) -> int:
    """Number of parameters of the weights in the directory; tied weights are stored, and counted, once."""
    count = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  no mapping
    return count


def model_facts(directory: Path, max_length: int) -> dict[str, Any]:
    """Fields of the model in the directory that follow from its tokenizer and rows, and so are the same for other
    sizes."""
    return implied_fields(load_tokenizer(directory), max_length)


def _passes(artifact: Artifact, tokens: int) -> float:
    """Passes over the data. Of a corpus: those over its most repeated source. Else over all rows read, including
    held-out rows."""
    of_sources = [value for name, value in artifact.metrics.items() if name.startswith("epochs/")]
    return max(of_sources, default=tokens / artifact.data[0]["tokens"])
