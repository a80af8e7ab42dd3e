"""Held-out figures of a supervised phase: the mean loss and metrics, over all rows and of each data set, and perplexities."""

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
    """The held-out rows by data set, "" where there is only one: objects with `batch`, a length and a tokenizer."""

    stager: Stager
    sets: Mapping[str, HeldOutSet]

    @classmethod
    def of(cls, stager: Stager, rows: Mapping[str, Any]) -> HeldOut:
        return cls(stager, {name: HeldOutSet(each) for name, each in rows.items() if len(each)})

    def evaluate(self) -> Metrics:
        """The figures over all rows, and each set's as set/figure. Without rows, none."""
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
        """(sums of the loss and the metrics, count of the objective's unit)."""
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
        """All units, in batches of about equal size."""
        parts = np.array_split(np.arange(len(self.rows)), math.ceil(len(self.rows) / AT_ONCE))
        return [self.rows.batch(part.tolist()) for part in parts]

    @cached_property
    def unigram_perplexity(self) -> float:
        """exp(entropy) of the trained tokens' own frequencies: the best that a context-free model could reach on them."""
        counts = torch.zeros(len(self.rows.tokenizer), dtype=torch.double)
        for batch in self.batches:
            counts += torch.bincount(batch.tokens[batch.action_mask], minlength=len(counts))
        p = counts[counts > 0] / counts.sum()
        return float((-(p * p.log()).sum()).exp())


def figures_of(stager: Stager, sums: Mapping[str, float], count: int, rows: HeldOutSet | None) -> Metrics:
    """Means, with perplexities where the loss is one of tokens; against the tokens' own frequencies where rows are given."""
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
    """Nats a token, without what else the loss has in it: a z-loss, and the routers' of a mixture of experts."""
    return figures.get("nll", figures["loss"] - figures.get("router_loss", 0.0))


def of_untied(figures: Metrics) -> Metrics:
    """Means over all comparisons turned into means over those that are no tie, where the objective counts them; left out where
    all are ties."""
    if "untied" not in figures:
        return figures
    share, compared = figures["untied"], ("accuracy", "margin")
    if share == 0:
        return {name: value for name, value in figures.items() if name not in compared}
    return {name: value / share if name in compared else value for name, value in figures.items()}


def kept_before(before: Metrics) -> Metrics:
    """What is said of the model before its training, beside what it came to."""
    return {f"{name}_before": value for name, value in before.items() if name.split("/")[-1] in ("loss", "perplexity")}
