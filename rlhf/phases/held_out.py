"""Held-out figures of a supervised phase: the mean loss and metrics, over all rows and of each data set, and perplexities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rlhf.phases.base import Metrics
from rlhf.phases.reading import AT_ONCE, Reading

Sets = Mapping[str, Any]  # by data set, "" where there is only one: rows with `batch`, a length and a tokenizer


def evaluate(reading: Reading, sets: Sets) -> Metrics:
    """The figures over all rows, and those of each set as set/figure. Without rows, none."""
    figures: Metrics = {}
    sums: Counter[str] = Counter()
    count = 0
    for name, rows in sets.items():
        if not len(rows):
            continue
        found, units = sums_of(reading, rows)
        sums.update(found)
        count += units
        if name:
            figures |= {f"{name}/{figure}": value for figure, value in figures_of(reading, found, units, rows).items()}
    if not count:
        return {}
    only = next(iter(sets.values())) if len(sets) == 1 else None
    return figures_of(reading, sums, count, only) | figures


def sums_of(reading: Reading, rows: Any) -> tuple[Counter[str], int]:
    """(sums of the loss and the metrics, count of the objective's unit)."""
    sums: Counter[str] = Counter()
    count = 0
    for part in parts_of(rows):
        found, units = reading.model.evaluate(reading.stage(rows.batch(part)), reading.objective).result()
        sums.update(found)
        count += units
    return sums, count


def figures_of(reading: Reading, sums: Mapping[str, float], count: int, rows: Any | None) -> Metrics:
    """Means, with perplexities where the loss is one of tokens; against the tokens' own frequencies where rows are given."""
    figures = of_untied({name: value / count for name, value in sums.items()})
    if "accuracy" in figures and reading.objective.unit == "pairs":
        figures["pair_accuracy"] = figures.pop("accuracy")
    if reading.objective.output.startswith("logprobs") and reading.objective.unit == "tokens":
        figures["perplexity"] = math.exp(min(surprise(figures), 700.0))
        if rows is not None:
            figures["unigram_perplexity"] = unigram_perplexity(rows)
            figures["perplexity_ratio"] = figures["perplexity"] / figures["unigram_perplexity"]
    return figures


def surprise(figures: Metrics) -> float:
    """Nats a token, without what else the loss has in it: a z-loss, and the routers' of a mixture of experts."""
    return figures.get("nll", figures["loss"] - figures.get("router_loss", 0.0))


def parts_of(rows: Any) -> list[list[int]]:
    """All units, in parts of about equal size that are few enough to be read at once."""
    return [part.tolist() for part in np.array_split(np.arange(len(rows)), math.ceil(len(rows) / AT_ONCE))]


def of_untied(figures: Metrics) -> Metrics:
    """Means over all comparisons turned into means over those that are no tie, where the objective counts them; left out where
    all are ties."""
    if "untied" not in figures:
        return figures
    share, compared = figures["untied"], ("accuracy", "margin")
    if share == 0:
        return {name: value for name, value in figures.items() if name not in compared}
    return {name: value / share if name in compared else value for name, value in figures.items()}


def unigram_perplexity(rows: Any) -> float:
    """exp(entropy) of the trained tokens' own frequencies: the best that any context-free model could reach on them."""
    counts = torch.zeros(len(rows.tokenizer), dtype=torch.double)
    for part in parts_of(rows):
        batch = rows.batch(part)
        counts += torch.bincount(batch.tokens[batch.action_mask], minlength=len(counts))
    p = counts[counts > 0] / counts.sum()
    return float((-(p * p.log()).sum()).exp())


def kept_before(before: Metrics) -> Metrics:
    """What is said of the model before its training, beside what it came to."""
    return {f"{name}_before": value for name, value in before.items() if name.split("/")[-1] in ("loss", "perplexity")}
