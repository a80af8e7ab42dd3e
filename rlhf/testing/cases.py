"""What a rule is given: an objective or an algorithm, with batches to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from data.batch import BASE, Batch
from rlhf.engine.inputs import Form, outputs
from rlhf.interfaces import Algorithm, Objective
from rlhf.testing.arithmetic import CPU, Gradient, gradient
from rlhf.testing.problems import copied, model_for
from rlhf.testing.report import Broken

TOLERANCE = 1e-5  # of the norm: room for code that computes in float32


@dataclass(frozen=True)
class AlgorithmCase:
    """batch: rollouts with the columns that the rollout gives and those in `needs`; full: with all columns."""

    algorithm: Algorithm
    batch: Batch
    full: Batch

    def run(self, batch: Batch) -> Batch:
        """What is trained on, with the algorithm's columns: `keep`, unless it leaves all or nothing, then `advantages`."""
        kept = self.algorithm.keep(batch)
        whole = kept.all() or not kept.any()
        return self.algorithm.advantages(batch if whole else batch.select(kept.nonzero()[:, 0]))

    def train(self, batch: Batch) -> Batch:
        """As above, of a copy: what the algorithm does to its input spoils no other rule."""
        return self.run(copied(batch))

    @cached_property
    def trained(self) -> Batch:
        return self.train(self.batch)


@dataclass(frozen=True)
class ObjectiveCase:
    """batch: rows to train on, every column; long: few long rows, for memory."""

    objective: Objective
    batch: Batch
    long: Batch
    seed: int

    @cached_property
    def shipped(self) -> Batch:
        """What a rank gets of the batch."""
        return self.batch.keep(BASE | self.objective.columns)

    @cached_property
    def out(self) -> Tensor:
        """The tiny model's outputs in float64, without their graph."""
        with torch.no_grad():
            out, _ = outputs(model_for(self.objective.output), self.shipped, self.objective.output, 1.0, Form(), CPU)
            return out.double()

    @property
    def mask(self) -> Tensor:
        """Which entries of `out` are trained on; of scores, all."""
        if self.objective.output == "scores":
            return torch.ones_like(self.out, dtype=torch.bool)
        return self.batch.action_mask.expand(self.out.shape)

    def slope(self, out: Tensor | None = None, batch: Batch | None = None) -> tuple[Tensor, Tensor]:
        """(loss, its derivative in `out`)."""
        leaf = (self.out if out is None else out).clone().requires_grad_()
        loss, _ = self.objective(leaf, self.shipped if batch is None else batch)
        (derivative,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), derivative

    def metrics(self, out: Tensor, batch: Batch) -> dict[str, float]:
        return {name: float(value.detach()) for name, value in self.objective(out, batch)[1].items()}

    @cached_property
    def gradient(self) -> Gradient:
        """Through the tiny model, all rows in one micro-batch."""
        return self.gradient_of(self.batch)

    def gradient_of(self, batch: Batch, **cut) -> Gradient:
        return gradient(model_for(self.objective.output), batch, self.objective, **cut)


def expect_declared(
    use: Callable[[Batch], Any], given: Batch, full: Batch, names: Iterable[str], sentence: str
) -> None:
    """Uses the batch as given. Raises Broken with `sentence`, {} replaced by the columns of `full` out of `names` that are read though
    they are not given."""

    def fails_without(*missing: str) -> bool:
        try:
            use(full.keep(full.columns.keys() - set(missing)))
        except (AttributeError, KeyError):
            return True
        return False

    try:
        use(given)
    except (AttributeError, KeyError):
        undeclared = [name for name in names if name not in given and fails_without(name)]
        if not undeclared or fails_without():
            raise
        raise Broken(sentence.format(", ".join(undeclared))) from None


def rows_of(case: ObjectiveCase, rows: list[int]) -> tuple[Tensor, Batch]:
    """(out, shipped batch) of these rows alone."""
    batch = case.shipped.select(rows)
    if case.objective.output == "scores":
        return case.out[rows], batch
    return case.out[..., rows, : batch.width], batch


def expect_same(found: Tensor, wanted: Tensor, sentence: str) -> None:
    """Raises Broken with `sentence`, {} replaced by the size of the difference."""
    if not found.isfinite().all():
        raise Broken(sentence.format("not finite"))
    difference = float((found - wanted).norm())
    scale = float(wanted.norm())
    if difference > TOLERANCE * scale + 1e-9:
        raise Broken(sentence.format(f"off by {difference / max(scale, 1e-12):.2g} of its size"))


def expect_same_gradient(found: Gradient, wanted: Gradient, sentence: str) -> None:
    """As above, of the gradient of all parameters, and of the loss."""
    flat = [torch.cat([value.flatten() for value in each.parameters.values()]) for each in (found, wanted)]
    expect_same(*flat, sentence)
    expect_same(torch.tensor(found.loss), torch.tensor(wanted.loss), sentence)
