"""How far annotators agree: Krippendorff's alpha, Cohen's kappa of each two, and each one's agreement with the others."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import krippendorff
import numpy as np

Level = Literal["nominal", "ordinal", "interval"]
Item = tuple  # what was judged, hashable

LEVELS = 50  # distinct ratings, at most; more are rounded to this many steps of their range
# items * values * values that the coincidences of alpha may take in memory; more items are drawn from
CELLS = 20_000_000
KAPPAS = 20  # pairs of annotators that are told, those with the most items in common


class Judgment(NamedTuple):
    """What one annotator said of one item."""

    item: Item
    annotator: str
    value: float


def agreement(judgments: Iterable[Judgment], level: Level, ranks: Iterable[Judgment] = ()) -> dict[str, Any]:
    """As JSON values: annotators and items (judged by several) counted; alpha; of labels and directions kappa, {"a, b": κ};
    with_others, {annotator: share} (see `with_others`). What is not defined on these items is left out.

    level: of the judgments. ranks: of rankings, each answer's place; alpha is then theirs, on the ordinal level.
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
    """{item: {annotator: value}} of the items that several annotators judged; who judged one twice counts with the last."""
    found: dict[Item, dict[str, float]] = defaultdict(dict)
    for item, annotator, value in judgments:
        found[item][annotator] = value
    return {item: said for item, said in found.items() if len(said) > 1}


def krippendorff_alpha(shared: Mapping[Item, Mapping[str, float]], level: Level) -> float | None:
    """Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): 1 = full agreement, 0 = as by
    chance. None where it is not defined: no shared items, or every value the same.

    More than `LEVELS` distinct values are rounded; of more items than memory holds, a fixed draw stands for all.
    """
    table = [list(said.values()) for said in shared.values()]
    seen = np.unique(np.concatenate(table)) if table else np.array([])
    if len(seen) < 2:
        return None
    domain = seen if len(seen) <= LEVELS else np.linspace(seen[0], seen[-1], LEVELS)
    most = CELLS // len(domain) ** 2
    if len(table) > most:
        table = [table[place] for place in np.random.default_rng(0).permutation(len(table))[:most]]
    borders = (domain[1:] + domain[:-1]) / 2  # between each value and the next
    counts = np.array([np.bincount(np.searchsorted(borders, said), minlength=len(domain)) for said in table])
    alpha = float(krippendorff.alpha(value_counts=counts, value_domain=domain, level_of_measurement=level))
    return alpha if math.isfinite(alpha) else None


def kappas(shared: Mapping[Item, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Cohen's kappa of each two annotators on the items that both judged, for the `KAPPAS` pairs with the most of these."""
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for said in shared.values():
        for one, other in combinations(sorted(said), 2):
            values[one, other].append((said[one], said[other]))
    most = sorted(values, key=lambda pair: (-len(values[pair]), pair))[:KAPPAS]
    found = {pair: cohens_kappa(*zip(*values[pair])) for pair in most}
    return {pair: kappa for pair, kappa in found.items() if kappa is not None}


def cohens_kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Cohen's kappa of two annotators' labels of the same items (Cohen 1960, equation 1): (p_o - p_e) / (1 - p_e), with p_o
    the share of items labelled alike and p_e the share expected if both labelled at random, each with the own frequencies.
    None where p_e is 1: both gave one and the same label to all."""
    count = len(first)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / count
    labels, others = Counter(first), Counter(second)
    expected = sum(labels[label] * others[label] for label in labels) / count**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def with_others(shared: Mapping[Item, Mapping[str, float]], level: Level) -> dict[str, float]:
    """Each annotator's agreement with the others, 0..1. Of labels: the share of items where it said what most of the others
    did, those left out where the others have no most frequent label. Of ratings: 1 less the mean distance to the others'
    mean, as a share of the range of all ratings."""
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
