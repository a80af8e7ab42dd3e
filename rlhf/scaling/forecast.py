"""Predictions of a fitted law for a config's pretraining, before it runs: its loss, and the best size for the same
compute."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from rlhf.config.resolved import Resolved, ResolvedPhase
from rlhf.phases.step_plan import StepPlan
from rlhf.reports.plan_tables import terminal_table
from rlhf.scaling.law import Law, Training
from rlhf.scaling.law_tables import count
from rlhf.scaling.size_grid import FILE, conditions, grid_directory

HEADINGS = ("phase", "N", "D", "FLOPs", "x grid", "loss", "best N", "best D", "its loss")
NO_TOKENS = "D is unknown before a run that makes passes over a mix or a corpus: set steps for a forecast"
NO_BEST = "the law gives no best size: the losses of the grid do not determine its exponents"


@dataclass(frozen=True)
class Forecast:
    """The prediction for a phase. expected: the phase as planned, None if its tokens are unknown. best: the best size
    with the same compute, None if the law gives none. beyond: the phase's compute divided by that of the grid's largest
    training."""

    phase: str
    parameters: int
    expected: Training | None = None
    best: Training | None = None
    beyond: float | None = None


def forecasts(resolved: Resolved) -> list[Forecast]:
    """Forecasts of the pretrain phases from scratch that meet the `conditions` of this config's grid; empty if
    `launch.py scaling` has not trained the grid. Raises UserError where a model cannot be built."""
    path = grid_directory(resolved.config) / FILE
    if not path.exists():
        return []
    from rlhf.scaling.sizes import parameters_for  # with torch

    figures = json.loads(path.read_text())
    found = []
    for phase in resolved.phases:
        if phase.kind.name != "pretrain" or conditions(phase.settings) != figures["holds_for"]:
            continue
        architecture = phase.models["policy"].architecture
        if architecture is not None:
            where = phase.place_of("policy", "architecture")
            parameters = parameters_for(phase, architecture, figures["model"], where)
            found.append(_forecast(phase.name, parameters, tokens_of(phase, figures), figures))
    return found


def _forecast(name: str, parameters: int, tokens: float | None, figures: Mapping[str, Any]) -> Forecast:
    if tokens is None:
        return Forecast(name, parameters)
    law, largest = Law.of_letters(figures["law"]), max(point["compute"] for point in figures["points"])
    expected = Training(parameters, tokens, law.loss(parameters, tokens))
    best = None if figures["untold"] else law.optimum(expected.compute)
    return Forecast(name, parameters, expected, best, expected.compute / largest)


def tokens_of(phase: ResolvedPhase, figures: Mapping[str, Any]) -> float | None:
    """Tokens that the phase trains on: its steps times rows of max_length tokens, or its passes times the tokens of the
    data. None for passes over several sources: the grid's trainings know only the passes over the most repeated source."""
    settings = phase.settings
    if settings.steps is not None:
        return StepPlan.of(settings, settings.batch_size).before(settings.steps) * settings.max_length
    if settings.data.mix or phase.corpora:
        return None
    point = figures["points"][0]
    return settings.epochs * point["tokens"] / point["passes"]


def forecast_table(found: Sequence[Forecast]) -> Table:
    """N parameters, D tokens, compute, and compute as a multiple of the grid's largest training."""
    table = terminal_table(*HEADINGS)
    for each in found:
        row = [each.phase, count(each.parameters)]
        if each.expected:
            row += [count(each.expected.tokens), f"{each.expected.compute:.2e}", f"{each.beyond:.2g}"]
            row += [f"{each.expected.loss:.3f}"]
        if each.best:
            row += [count(each.best.parameters), count(each.best.tokens), f"{each.best.loss:.3f}"]
        table.add_row(*row, *["-"] * (len(HEADINGS) - len(row)))
    reasons = {NO_TOKENS: any(not each.expected for each in found)}
    reasons[NO_BEST] = any(each.expected and not each.best for each in found)
    table.caption, table.caption_justify = "\n".join(text for text, holds in reasons.items() if holds) or None, "left"
    return table
