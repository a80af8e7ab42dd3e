"""The engine's arithmetic in one process without DeepSpeed: a model's outputs, and the gradient of an objective.

The same cut into micro-batches, the same packing, sums divided by the global count: what `Engine.train` steps along.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.batch import BASE, Batch
from rlhf.engine.inputs import outputs
from rlhf.engine.microbatch import count_of, padded_tokens, split, units_of
from rlhf.engine.models import EngineModel
from rlhf.interfaces import Objective, Unit

CPU = torch.device("cpu")
UNBOUNDED = 2**62  # tokens of a micro-batch


@dataclass(frozen=True)
class Gradient:
    """An objective over a whole batch, divided by the count of its unit."""

    parameters: dict[str, Tensor]  # by name; the gradient of each
    loss: float
    metrics: dict[str, float]

    @property
    def norm(self) -> float:
        return math.sqrt(sum(float(value.square().sum()) for value in self.parameters.values()))


def smallest_budget(batch: Batch, unit: Unit, packing: bool = True) -> int:
    """The least `microbatch_tokens` that this batch can be cut to."""
    lengths = batch.lengths.tolist()
    return max(padded_tokens([lengths[row] for row in rows], packing) for rows in units_of(batch, unit))


def gradient(
    model: EngineModel,
    batch: Batch,
    objective: Objective,
    *,
    budget: int = UNBOUNDED,
    packing: bool = True,
    shards: int = 1,
    temperature: float = 1.0,
) -> Gradient:
    """Of the loss's sum over the batch's count of units, as `shards` ranks with micro-batches of `budget` tokens add it
    up. Rows of one group_id stay in one shard. The model's own `.grad` fields are left alone."""
    parameters = dict(model.model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    sums: Counter[str] = Counter()
    parts = _share(batch.keep(BASE | objective.columns), shards)
    count = sum(count_of(part, objective.unit) for part in parts)
    for part in parts:
        for rows in split(part.lengths.tolist(), units_of(part, objective.unit), budget, packing):
            microbatch = part.select(rows)
            form = replace(model.form, packing=packing)
            out, _ = outputs(model, microbatch, objective.output, temperature, form, CPU)
            loss, metrics = objective(out, microbatch)
            found = torch.autograd.grad(loss / max(count, 1), list(parameters.values()), allow_unused=True)
            for name, value in zip(parameters, found):
                if value is not None:
                    total[name] += value
            sums.update({name: float(value.detach()) for name, value in {"loss": loss, **metrics}.items()})
    metrics = {name: value / max(count, 1) for name, value in sums.items()}
    return Gradient(total, metrics.pop("loss"), metrics)


def _share(batch: Batch, shards: int) -> list[Batch]:
    """The groups dealt out in turn."""
    groups = [rows.tolist() for rows in batch.groups()]
    return [batch.select([row for rows in groups[rank::shards] for row in rows]) for rank in range(shards)]


def cosine(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of the angle between two gradients of the same parameters; NaN where one of them is 0."""
    product, first, second = (
        sum(float((a[name] * b[name]).sum()) for name in one) for a, b in ((one, other), (one, one), (other, other))
    )
    norms = math.sqrt(first * second)
    return product / norms if norms > 0 else math.nan
