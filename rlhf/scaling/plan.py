"""What a fitted law says of a config's pretraining before any of it is run: the loss to expect, and the best size for the same
compute."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from rlhf.config.roles import resolve_models
from rlhf.config.schema import Config, Pretrain
from rlhf.reports.tables import terminal_table
from rlhf.scaling.grid import FILE, conditions, grid_directory
from rlhf.scaling.predict import Law, Training
from rlhf.scaling.tables import count

HEADINGS = ("phase", "N", "D", "FLOPs", "x grid", "loss", "best N", "best D", "its loss")


@dataclass(frozen=True)
class Forecast:
    """expected: the phase as it is planned; best: of the same compute; beyond: its compute over that of the largest training of
    the grid."""

    phase: str
    expected: Training
    best: Training
    beyond: float


def forecasts(config: Config) -> list[Forecast]:
    """Of the pretrain phases from scratch whose data and tokenizer are those of this config's grid; none where `launch.py
    scaling` has not trained it."""
    path = grid_directory(config) / FILE
    if not path.exists():
        return []
    figures = json.loads(path.read_text())
    law, largest = Law.of_letters(figures["law"]), max(point["compute"] for point in figures["points"])
    found = []
    for phase in config.phases:
        if phase.kind != "pretrain" or conditions(phase) != figures["holds_for"]:
            continue
        architecture = resolve_models(config, phase)["policy"].architecture
        if architecture is None:
            continue
        parameters, tokens = parameters_of(architecture, figures["model"], phase.max_length), tokens_of(phase, figures)
        expected = Training(parameters, tokens, law.loss(parameters, tokens))
        found.append(Forecast(phase.name, expected, law.optimum(expected.compute), expected.compute / largest))
    return found


def parameters_of(architecture: Mapping[str, Any], model: Mapping[str, Any], max_length: int) -> int:
    """How many a model of this architecture would have; nothing is allocated. model: `rlhf.scaling.measure.model_facts` of one
    with the same tokenizer and objective."""
    import torch
    import transformers

    fields = {"vocab_size": model["vocab_size"], "max_position_embeddings": max_length, **architecture}
    config = transformers.AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
    with torch.device("meta"):
        built = getattr(transformers, model["class"])(config)
    return sum(parameter.numel() for parameter in built.parameters())


def tokens_of(phase: Pretrain, figures: Mapping[str, Any]) -> float:
    """That the phase trains on: of its steps, each row counted as max_length tokens; else of its passes over the data."""
    if phase.steps is not None:
        return phase.steps * phase.batch_size * phase.max_length
    point = figures["points"][0]
    return phase.epochs * point["tokens"] / point["passes"]


def forecast_table(found: Sequence[Forecast]) -> Table:
    """N parameters, D tokens; the compute also as a multiple of the grid's largest training."""
    table = terminal_table(*HEADINGS)
    for each in found:
        table.add_row(
            each.phase,
            count(each.expected.parameters),
            count(each.expected.tokens),
            f"{each.expected.compute:.2e}",
            f"{each.beyond:.2g}",
            f"{each.expected.loss:.3f}",
            count(each.best.parameters),
            count(each.best.tokens),
            f"{each.best.loss:.3f}",
        )
    return table
