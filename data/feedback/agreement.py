"""Agreement of annotators: Krippendorff's alpha, Cohen's kappa of pairs, and each annotator's agreement with the others."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]
Item = tuple  # identifies what was judged; hashable

LEVELS = 50  # most distinct ratings; more are rounded to this many steps of their range
# most items * values * values in memory for alpha; of more items a sample is taken
CELLS = 20_000_000
KAPPAS = 20  # most pairs of annotators reported: those with the most items in common


class Judgment(NamedTuple):
    """One annotator's judgment of one item."""

    item: Item
    annotator: str
    value: float


def agreement(judgments: Iterable[Judgment], level: Level, ranks: Iterable[Judgment] = ()) -> dict[str, Any]:
    """JSON values: the numbers of annotators and of items with several judgments; alpha; kappa of labels and directions,
    {"a, b": κ}; with_others, {annotator: share} (see `with_others`). Leaves out measures that are undefined on these items.

    level: level of measurement of the judgments. ranks: each answer's rank, for rankings; alpha is then of the ranks, ordinal.
    """
    judgments = list(judgments)
    shared = by_item(judgments)
    told: dict[str, Any] = {"annotators": len({each.annotator for each in judgments}), "items": len(shared)}
    ranked = by_item(ranks)
    alpha = krippendorff_alpha(ranked, "ordinal") if ranked else krippendorff_alpha(shared, level)
    if alpha is not None:
        told["alpha"] = round(alpha, 4)
    if level != "interval":
        told["kappa"] = {", ".join(pair): round(kappa, 4) for pair, kappa in kappas(shared).items()}
    told["with_others"] = {name: round(share, 4) for name, share in with_others(shared, level).items()}
    return told


def by_item(judgments: Iterable[Judgment]) -> dict[Item, dict[str, float]]:
    """{item: {annotator: value}} of items with several annotators. An annotator's last judgment of an item counts."""
    found: dict[Item, dict[str, float]] = defaultdict(dict)
    for item, annotator, value in judgments:
        found[item][annotator] = value
    return {item: said for item, said in found.items() if len(said) > 1}


def krippendorff_alpha(shared: Mapping[Item, Mapping[str, float]], level: Level) -> float | None:
    """Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): 1 = full agreement, 0 = chance.
    None where it is undefined: no shared items, or all values equal.

    Rounds more than `LEVELS` distinct values, and takes a fixed random sample of too many items (`CELLS`).
    """
    table = [list(said.values()) for said in shared.values()]
    seen = np.unique(np.concatenate(table)) if table else np.array([])
    if len(seen) < 2:
        return None
    domain = seen if len(seen) <= LEVELS else np.linspace(seen[0], seen[-1], LEVELS)
    most = CELLS // len(domain) ** 2
    if len(table) > most:
        table = [table[place] for place in np.random.default_rng(0).permutation(len(table))[:most]]
    borders = (domain[1:] + domain[:-1]) / 2  # midway between neighbouring values
    counts = np.array([np.bincount(np.searchsorted(borders, said), minlength=len(domain)) for said in table])
    import krippendorff

    alpha = float(krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level))
    return alpha if math.isfinite(alpha) else None


def kappas(shared: Mapping[Item, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """{pair of annotators: Cohen's kappa on the items both judged}, for the `KAPPAS` pairs with the most such items."""
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for said in shared.values():
        for one, other in combinations(sorted(said), 2):
            values[one, other].append((said[one], said[other]))
    most = sorted(values, key=lambda pair: (-len(values[pair]), pair))[:KAPPAS]
    found = {pair: cohens_kappa(*zip(*values[pair])) for pair in most}
    return {pair: kappa for pair, kappa in found.items() if kappa is not None}


def cohens_kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's kappa of two annotators' labels of the same items (Cohen 1960, equation 1). None where it is undefined: all labels
    are equal."""
    from sklearn.metrics import cohen_kappa_score

    labels = np.unique([*first, *second], return_inverse=True)[1]
    return float(cohen_kappa_score(labels[: len(first)], labels[len(first) :])) if labels.any() else None


def with_others(shared: Mapping[Item, Mapping[str, float]], level: Level) -> dict[str, float]:
    """Each annotator's agreement with the others, 0..1. Labels: the share of items on which the annotator gave the others' most
    frequent label, without items that have no most frequent label. Ratings: 1 minus the mean distance to the others' mean, as a
    share of the range of all ratings."""
    agreed: dict[str, list[float]] = defaultdict(list)
    everything = [value for said in shared.values() for value in said.values()]
    spread = (max(everything) - min(everything) or 1.0) if everything else 1.0
    for said in shared.values():
        for annotator, value in said.items():
            others = [other for name, other in said.items() if name != annotator]
            if level == "interval":
                agreed[annotator].append(1 - abs(value - sum(others) / len(others)) / spread)
                continue
            (most, votes), *rest = Counter(others).most_common(2)
            if not rest or rest[0][1] < votes:
                agreed[annotator].append(float(value == most))
    return {name: sum(shares) / len(shares) for name, shares in sorted(agreed.items())}
