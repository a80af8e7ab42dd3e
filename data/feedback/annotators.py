"""Reads annotators' judgments from units, reports their agreement, and weights each annotator's rows."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from data.errors import UserError
from data.feedback.agreement import Judgment, Level, agreement
from data.feedback.columns import FeedbackOptions
from data.unit import DataReport, TrainingUnit

# a lower alpha allows not even tentative conclusions (Krippendorff 2004, Content Analysis, chapter 11)
DOUBTFUL = 0.667


def tell_agreement(kind: str, units: Sequence[TrainingUnit], report: DataReport) -> None:
    """Adds the annotators' agreement to the report, and a warning where it is low."""
    judgments = [judgment for unit in units for judgment in judgments_of(unit)]
    if not judgments:
        return
    labels = all(judgment.value in (-1.0, 0.0, 1.0) for judgment in judgments)
    level: Level = "nominal" if labels and kind != "rating" else "interval"
    ranks = [judgment for unit in units for judgment in ranks_of(unit)] if kind == "ranking" else ()
    report.agreement = agreement(judgments, level, ranks)
    alpha = report.agreement.get("alpha", 1.0)
    if alpha < DOUBTFUL:
        report.warnings.append(
            f"the annotators of {report.name} hardly agree: Krippendorff's alpha is {alpha:.2f}, below {DOUBTFUL} "
            "(1 = always, 0 = as by chance)"
        )


def weighted(units: Sequence[TrainingUnit], options: FeedbackOptions, report: DataReport) -> list[TrainingUnit]:
    """The units with a column `weights`: their annotator's weight, divided by the mean over all units.

    Raises UserError where a weight is for an unknown annotator, and where agreement is asked for but no answer has several
    annotators.
    """
    names = sorted({name for unit in units if (name := annotator_of(unit)) is not None})
    if options.annotators == "agreement":
        shares = report.agreement.get("with_others")
        if not shares:
            raise UserError(
                f"{report.name}: annotators: agreement needs answers that several annotators judged; there are none; "
                "give weights by name: {<annotator>: <weight>}"
            )
        usual = sum(shares.values()) / len(shares)  # for annotators who share no item with others
        weights = {name: shares.get(name, usual) for name in names}
    else:
        unknown = next((name for name in options.annotators if name not in names), None)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:10]) or 'none'}"
            raise UserError(f"{report.name}: no row is of the annotator {unknown!r}; {hint}")
        usual, weights = 1.0, dict(options.annotators)
    counts = np.array([weights.get(annotator_of(unit), usual) for unit in units])
    if not counts.any():
        raise UserError(f"{report.name}: the weights of all annotators are 0, so that no row counts")
    return [
        tuple(replace(row, columns={**row.columns, "weights": weight}) for row in unit)
        for unit, weight in zip(units, (counts / counts.mean()).tolist(), strict=True)
    ]


def annotator_of(unit: TrainingUnit) -> Any:
    """The annotator's name, or None."""
    return unit[0].meta.get("annotator")


def judgments_of(unit: TrainingUnit) -> Iterator[Judgment]:
    """The judgments of the unit's annotator, if it has one: of a comparison, which of each two answers is better (1.0, -1.0, or 0.0
    for a tie); else the answer's label or rating, or the label of each of its steps."""
    annotator = annotator_of(unit)
    if annotator is None:
        return
    for better, worse in combinations(unit, 2):
        first, second = key(better.tokens), key(worse.tokens)
        sign = float(np.sign(worse.columns["ranks"] - better.columns["ranks"]))
        # an order that does not depend on the judgment
        yield Judgment((min(first, second), max(first, second)), annotator, sign if first < second else -sign)
    if len(unit) > 1:
        return
    [row] = unit
    if "step_labels" in row.token_columns:
        for place in np.flatnonzero(row.mask).tolist():
            yield Judgment((key(row.tokens), place), annotator, float(row.token_columns["step_labels"][place]))
    for column in ("ratings", "desirable"):
        if column in row.columns:
            yield Judgment((key(row.tokens),), annotator, row.columns[column])


def ranks_of(unit: TrainingUnit) -> Iterator[Judgment]:
    """The rank of each answer of a ranking, as judgments."""
    annotator = annotator_of(unit)
    if annotator is not None:
        together = tuple(sorted(key(row.tokens) for row in unit))
        for row in unit:
            yield Judgment((together, key(row.tokens)), annotator, row.columns["ranks"])


def key(tokens: np.ndarray) -> bytes:
    """A short hash of a text."""
    return hashlib.blake2b(tokens.tobytes(), digest_size=12).digest()
