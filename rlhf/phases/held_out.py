"""Held-out figures of a supervised phase: mean loss, metrics and perplexities, over all rows and for each data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from data.batch import Batch
from rlhf.phases.base import Metrics
from rlhf.phases.supervised_rows import AT_ONCE, Stager


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows by data set, under the name "" if there is only one."""

    stager: Stager
    sets: Mapping[str, HeldOutSet]

    @classmethod
    def of(cls, stager: Stager, rows: Mapping[str, Any]) -> HeldOut:
        return cls(stager, {name: HeldOutSet(each) for name, each in rows.items() if len(each)})

    def evaluate(self) -> Metrics:
        """The figures over all rows, and those of each named set as set/figure. Empty without rows."""
        figures: Metrics = {}
        sums: Counter[str] = Counter()
        count = 0
        for name, rows in self.sets.items():
            found, units = self._sums(rows)
            sums.update(found)
            count += units
            if name:
                figures |= {
                    f"{name}/{figure}": value for figure, value in figures_of(self.stager, found, units, rows).items()
                }
        if not count:
            return {}
        only = next(iter(self.sets.values())) if len(self.sets) == 1 else None
        return figures_of(self.stager, sums, count, only) | figures

    def _sums(self, rows: HeldOutSet) -> tuple[Counter[str], int]:
        """(sums of the loss and the metrics, count of the objective's unit) over the set."""
        sums: Counter[str] = Counter()
        count = 0
        for batch in rows.batches:
            found, units = self.stager.model.evaluate(self.stager.stage(batch), self.stager.objective).result()
            sums.update(found)
            count += units
        return sums, count


@dataclass
class HeldOutSet:
    """One data set's held-out rows. A phase evaluates them several times, but reads and corrupts them once."""

    rows: Any

    @cached_property
    def batches(self) -> list[Batch]:
        """All units (rows or comparisons), in batches of about equal size."""
        parts = np.array_split(np.arange(len(self.rows)), math.ceil(len(self.rows) / AT_ONCE))
        return [self.rows.batch(part.tolist()) for part in parts]

    @cached_property
    def unigram_perplexity(self) -> float:
        """exp(entropy of the trained tokens' frequencies): the lowest perplexity of a model without context."""
        counts = torch.zeros(len(self.rows.tokenizer), dtype=torch.double)
        for batch in self.batches:
            counts += torch.bincount(batch.tokens[batch.action_mask], minlength=len(counts))
        p = counts[counts > 0] / counts.sum()
        return float((-(p * p.log()).sum()).exp())


def figures_of(stager: Stager, sums: Mapping[str, float], count: int, rows: HeldOutSet | None) -> Metrics:
    """Means per unit; for losses of tokens also perplexities. rows: if given, also their unigram perplexity."""
    figures = of_untied({name: value / count for name, value in sums.items()})
    if "accuracy" in figures and stager.objective.unit == "pairs":
        figures["pair_accuracy"] = figures.pop("accuracy")
    if stager.objective.output.startswith("logprobs") and stager.objective.unit == "tokens":
        figures["perplexity"] = math.exp(min(surprise(figures), 700.0))
        if rows is not None:
            figures["unigram_perplexity"] = rows.unigram_perplexity
            figures["perplexity_ratio"] = figures["perplexity"] / figures["unigram_perplexity"]
    return figures


def surprise(figures: Metrics) -> float:
    """Negative log-likelihood in nats a token: the loss without z-loss and router loss of a mixture of experts."""
    return figures.get("nll", figures["loss"] - figures.get("router_loss", 0.0))


def of_untied(figures: Metrics) -> Metrics:
    """Converts accuracy and margin from means over all comparisons to means over comparisons without a tie, if the
    objective counts ties. Leaves both out if all comparisons are ties."""
    if "untied" not in figures:
        return figures
    share, compared = figures["untied"], ("accuracy", "margin")
    if share == 0:
        return {name: value for name, value in figures.items() if name not in compared}
    return {name: value / share if name in compared else value for name, value in figures.items()}


def kept_before(before: Metrics) -> Metrics:
    """Loss and perplexities before training, as <name>_before."""
    return {f"{name}_before": value for name, value in before.items() if name.split("/")[-1] in ("loss", "perplexity")}
