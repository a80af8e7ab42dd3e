"""The results of `launch.py scaling`: scaling.json, a plot and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.rundir import write_atomically
from rlhf.scaling.fit import fit, fits_without_one, untold
from rlhf.scaling.law import LETTERS, Law, best_size
from rlhf.scaling.law_plot import draw
from rlhf.scaling.law_tables import scaling_page
from rlhf.scaling.measure import Measurement
from rlhf.scaling.size_grid import FILE, conditions

PLOT, PAGE = "scaling.png", "scaling.html"
BUDGETS = (1, 10, 100)  # default, in multiples of the largest training's compute
# over the data; after more passes a repeated token is worth clearly less than a new one (Muennighoff et al. 2023)
MANY_PASSES = 4.0


@dataclass(frozen=True)
class Report:
    """figures: the content of scaling.json."""

    directory: Path
    figures: dict[str, Any]
    missed: str  # a line, if the held-out error is larger than the config allows; else empty

    @property
    def page(self) -> Path:
        return self.directory / PAGE


def write_report(config: Config, root: Path, measured: Sequence[Measurement], model: Mapping[str, Any]) -> Report:
    """Fits the law and writes all three files. Raises UserError where the losses cannot determine a law."""
    figures = figures_of(config, measured) | {"model": dict(model)}
    write_atomically(root / FILE, json.dumps(figures, indent=2) + "\n")
    draw(figures, Law.of_letters(figures["law"]), root / PLOT)
    write_atomically(root / PAGE, scaling_page(config.run.name, figures, root / PLOT))
    return Report(root, figures, _missed(config.scaling.held_out_error, figures["held_out_error"]))


def _missed(allowed: float | None, error: float | None) -> str:
    if allowed is None or error is None or error <= allowed:
        return ""
    return f"held-out error {100 * error:.3g} % is over scaling.held_out_error {100 * allowed:.3g} %"


def figures_of(config: Config, measured: Sequence[Measurement]) -> dict[str, Any]:
    """The content of scaling.json: the conditions under which the law holds, the points, the law and its leave-one-out
    fits, the largest errors, and the best size for each budget. No budgets where the law gives no best size; `untold`
    says why.
    """
    fitted = [each.training for each in measured if not each.point.held_out]
    law = fit(fitted)
    others, unknown = fits_without_one(fitted, law), untold(law, fitted)
    telling = [other for other in others if not untold(other, fitted)]
    largest = max(each.training.compute for each in measured)
    budgets = [] if unknown else config.scaling.budgets or [largest * times for times in BUDGETS]
    points = [_point(config, each, law) for each in measured]
    errors = [abs(point["error"]) for point in points if point["held_out"]]
    return {
        "holds_for": conditions(resolve(config).scaled.settings),
        "points": points,
        "law": law.letters(),
        "without_one": [other.letters() for other in others],
        "fit_error": max(abs(point["error"]) for point in points if not point["held_out"]),
        "held_out_error": max(errors, default=None),
        "untold": unknown,
        "budgets": [_budget(compute, law, telling, points) for compute in budgets],
        "notes": [*_notes(points), *unknown, *_doubts(law, others), *([] if unknown else _hardly(telling, others))],
    }


def _point(config: Config, measured: Measurement, law: Law) -> dict[str, Any]:
    training = measured.training
    predicted = float(law.loss(training.parameters, training.tokens))
    return {
        **asdict(measured.point),
        **asdict(training),
        "compute": training.compute,
        "predicted": predicted,
        "error": predicted / training.loss - 1,
        "passes": measured.passes,
        "seconds": measured.seconds,
    }


def _budget(compute: float, law: Law, others: Sequence[Law], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    best = law.optimum(compute)
    alike = [other.optimum(compute) for other in others] or [best]
    name, training = best_size(law, {point["size"]: point["parameters"] for point in points}, compute)
    return {
        "compute": compute,
        **asdict(best),
        "parameters_between": [min(each.parameters for each in alike), max(each.parameters for each in alike)],
        "loss_between": [min(each.loss for each in alike), max(each.loss for each in alike)],
        "beyond": compute / max(point["compute"] for point in points),
        "best_size": {"name": name, **asdict(training)},
    }


def _notes(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes on trainings that repeat tokens."""
    repeated = [point for point in points if point["passes"] > 1]
    if not repeated:
        return []
    most = max(point["passes"] for point in repeated)
    weight = "clearly less than" if most > MANY_PASSES else "nearly as much as"
    return [
        f"{len(repeated)} of {len(points)} trainings saw tokens again, up to {most:.1f} passes: the fit counts repeated "
        f"tokens as new, but they are worth {weight} new ones (Muennighoff et al. 2023)"
    ]


def _hardly(telling: Sequence[Law], others: Sequence[Law]) -> list[str]:
    if len(telling) == len(others):
        return []
    return [
        f"{len(others) - len(telling)} of the {len(others)} fits that leave one training out give no best size: the best sizes for "
        "budgets depend on single trainings; use a wider grid"
    ]


def _doubts(law: Law, others: Sequence[Law]) -> list[str]:
    """Notes on parameters that differ widely between the fits that leave one training out."""
    found = []
    for name, letter in LETTERS.items():
        values = [getattr(other, name) for other in others]
        if letter in ("E", "alpha", "beta") and values and max(values) - min(values) > 0.5 * getattr(law, name):
            found.append(
                f"{letter} is uncertain: the fits that leave one training out give {min(values):.3g} to {max(values):.3g}; use "
                "a wider grid"
            )
    return found
