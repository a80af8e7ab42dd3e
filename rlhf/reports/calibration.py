"""How far a reward model's scores can be trusted: figures on held-out rows, for calibration.json.

Functions take arrays and return a dict of JSON values. A figure that is not defined (a correlation of constants, the
mean of nothing) is None. Confidence is the probability that the model gives to its own prediction: sigmoid(|margin|)
that the answer with the higher score is the better one; sigmoid(|logit|) that an answer or a step is good or bad, as
the logit's sign says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10  # of confidence
PARTS = 5  # quantiles of margins and lengths
HISTOGRAM_BINS = 24
# Figures that goals can name.
HEADLINES = ("ece", "length_correlation", "accuracy_when_chosen_is_shorter", "mae", "rating_correlation")
COUNTED = {  # what a report of each kind counts
    "comparisons": "pairs",
    "ratings": "ratings",
    "labels": "answers",
    "steps": "steps",
    "questions": "questions",
}

Array = NDArray[np.float64]
Report = dict[str, Any]


def of_comparisons(scores: ArrayLike, lengths: ArrayLike, ranks: ArrayLike, groups: ArrayLike) -> Report:
    """The report of comparisons and rankings. All arguments are (N,): scores, lengths of the answers in tokens, ranks
    (1 = best), group ids. Every untied pair of a group counts once, so a large ranking counts more than a pair; the
    phase's own pair_accuracy counts each ranking once. `chosen` is the better ranked answer of a pair, and in the
    histogram an answer that no other of its group beats."""
    scores, lengths = _floats(scores), _floats(lengths)
    better, worse, ties = unequal_pairs(ranks, groups)
    margin, longer = scores[better] - scores[worse], lengths[better] - lengths[worse]
    right = (margin > 0).astype(float)
    return {
        "kind": "comparisons",
        "rows": len(scores),
        "pairs": len(margin),
        "ties": ties,
        "accuracy": _mean(right),
        **_reliability(margin, right),
        "by_margin": by_quantile(np.abs(margin), right),
        "by_length_difference": by_quantile(longer, right),
        "accuracy_when_chosen_is_shorter": _mean(right[longer < 0]),
        "accuracy_when_chosen_is_longer": _mean(right[longer > 0]),
        "chosen_is_shorter": _mean((longer < 0).astype(float)),
        **_length_bias(scores, lengths),
        "scores": histogram({"chosen": scores[np.setdiff1d(better, worse)], "rejected": scores[np.unique(worse)]}),
    }


def of_labels(scores: ArrayLike, labels: ArrayLike, lengths: ArrayLike) -> Report:
    """The report of good and bad answers. All arguments are (N,): logits, labels in [0, 1], lengths of the answers in
    tokens. If a label is the share of annotators who say good, the accuracy is the mean share that agrees with the sign
    of the score."""
    return _of_logits("labels", _floats(scores), _floats(labels)) | _length_bias(_floats(scores), _floats(lengths))


def of_steps(scores: ArrayLike, labels: ArrayLike) -> Report:
    """The report of right and wrong steps: (N,) logits and (N,) labels in [0, 1]."""
    return _of_logits("steps", _floats(scores), _floats(labels))


def of_questions(scores: ArrayLike, labels: ArrayLike) -> Report:
    """The report of questions about answers, one or more an answer: (N,) logits and (N,) labels in [0, 1]."""
    return _of_logits("questions", _floats(scores), _floats(labels))


def of_ratings(scores: ArrayLike, ratings: ArrayLike, lengths: ArrayLike) -> Report:
    """The report of ratings. All arguments are (N,): scores, ratings, lengths of the answers in tokens."""
    scores, ratings, lengths = _floats(scores), _floats(ratings), _floats(lengths)
    return {
        "kind": "ratings",
        "rows": len(scores),
        "mae": _mean(np.abs(scores - ratings)),
        "mae_of_the_mean": _mean(np.abs(ratings - ratings.mean())),  # of a model that always predicts the mean
        "rating_correlation": pearson(scores, ratings),
        "rating_rank_correlation": spearman(scores, ratings),
        "by_rating": by_quantile(ratings, scores),
        **_length_bias(scores, lengths),
        "scores": histogram({"scores": scores, "ratings": ratings}),
    }


def headline(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the report that a run's goals can name."""
    return {name: report[name] for name in HEADLINES if report.get(name) is not None}


def in_a_line(report: Mapping[str, Any]) -> str:
    """The report's headlines for the console."""
    words = {
        "accuracy": "accuracy",
        "ece": "expected calibration error",
        "mae": "mean absolute error",
        "rating_correlation": "correlation with ratings",
        "length_correlation": "correlation with length",
    }
    found = [f"{text} {report[name]:.2f}" for name, text in words.items() if report.get(name) is not None]
    return f"{', '.join(found)}, of {report.get('pairs', report['rows']):,} held-out {COUNTED[report['kind']]}"


def unequal_pairs(ranks: ArrayLike, groups: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """(better rows, worse rows) of every pair in a group whose ranks differ, (pairs,) each, and the number of tied
    pairs."""
    ranks, groups = _floats(ranks), np.asarray(groups)
    first, second = _pairs(groups)
    tied = ranks[first] == ranks[second]
    first, second = first[~tied], second[~tied]
    in_order = ranks[first] < ranks[second]
    return np.where(in_order, first, second), np.where(in_order, second, first), int(tied.sum())


def reliability(confidence: Array, right: Array) -> list[dict[str, float]]:
    """Mean confidence and accuracy in `BINS` equal bins of confidence between 0.5 and 1 (Guo et al. 2017, equations 1
    and 2); the confidence in a choice of two is never below 0.5. Empty bins are left out."""
    edges = np.linspace(0.5, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)  # (from, to], as in the paper
    return [
        {
            "from": float(edges[index]),
            "to": float(edges[index + 1]),
            "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for index in range(BINS)
        if (inside := bins == index).any()
    ]


def expected_calibration_error(bins: list[dict[str, float]]) -> float | None:
    """The mean of |accuracy - confidence| over the bins, weighted by their counts (Guo et al. 2017, equation 3)."""
    total = sum(part["count"] for part in bins)
    gap = sum(part["count"] * abs(part["accuracy"] - part["confidence"]) for part in bins)
    return gap / total if total else None


def by_quantile(keys: Array, values: Array) -> list[dict[str, float]]:
    """The mean of `values` in `PARTS` quantiles of `keys`. Equal keys are in one part, so there are fewer parts where
    keys repeat; up to `PARTS` distinct keys make a part each."""
    starts = np.unique(keys)
    if len(starts) > PARTS:
        starts = np.unique(np.quantile(keys, np.linspace(0, 1, PARTS, endpoint=False), method="nearest"))
    parts = np.searchsorted(starts, keys, side="right") - 1
    return [
        {
            "from": float(keys[inside].min()),
            "to": float(keys[inside].max()),
            "count": int(inside.sum()),
            "mean": float(values[inside].mean()),
        }
        for part in range(len(starts))
        for inside in [parts == part]
    ]


def histogram(named: Mapping[str, Array]) -> dict[str, list[float]]:
    """Counts of each array in shared bins, and the `edges` of the bins."""
    together = np.concatenate(list(named.values()))
    edges = np.histogram_bin_edges(together, HISTOGRAM_BINS)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in named.items()}
    return {"edges": edges.tolist(), **counts}


def pearson(one: Array, other: Array) -> float | None:
    """None where the correlation is not defined: fewer than two values, or constant values."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def spearman(one: Array, other: Array) -> float | None:
    """Pearson's correlation of ranks; equal values share their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(one), rankdata(other))


def _reliability(margin: Array, right: Array) -> Report:
    from scipy.special import expit

    bins = reliability(expit(np.abs(margin)), right)
    return {"ece": expected_calibration_error(bins), "reliability": bins}


def _of_logits(kind: str, scores: Array, labels: Array) -> Report:
    right = np.where(scores > 0, labels, 1 - labels)
    return {
        "kind": kind,
        "rows": len(scores),
        "good": _mean(labels),
        "accuracy": _mean(right),
        **_reliability(scores, right),
        "by_margin": by_quantile(np.abs(scores), right),
        "scores": histogram({"good": scores[labels > 0.5], "bad": scores[labels <= 0.5]}),
    }


def _length_bias(scores: Array, lengths: Array) -> Report:
    return {
        "length_correlation": pearson(scores, lengths),
        "length_rank_correlation": spearman(scores, lengths),
        "score_by_length": by_quantile(lengths, scores),
    }


def _pairs(groups: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows, rows): all pairs of rows with the same group id, the earlier row first."""
    order = np.argsort(groups, kind="stable")  # makes the rows of a group adjacent
    largest = np.unique(groups, return_counts=True)[1].max()
    apart = [(order[:-distance], order[distance:]) for distance in range(1, largest)]
    found = [(first[same], second[same]) for first, second in apart for same in [groups[first] == groups[second]]]
    return tuple(np.concatenate(part) for part in zip((order[:0], order[:0]), *found))


def _floats(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
