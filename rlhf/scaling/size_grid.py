"""Turns a config's scaling section into a run: the config's pretrain phase once for each size and number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.messages import strings_in
from rlhf.config.kinds import PHASE
from rlhf.config.resolved import Resolved
from rlhf.config.scaling import Scaling, steps_for
from rlhf.config.schema import Config, Model, Phase, Pretrain

FILE = "scaling.json"
SUFFIX = "-scaling"  # of the grid's run directory: apart from the config's own run, so that --fresh removes only one


@dataclass(frozen=True)
class GridPoint:
    """One training of the grid."""

    size: str
    tokens: int  # as configured; the training rounds to whole steps
    held_out: bool = False

    @property
    def name(self) -> str:
        """The name of the point's phase."""
        return f"{self.size}-{self.tokens}"


def points_of(scaling: Scaling) -> list[GridPoint]:
    """All trainings: fitted ones by rising tokens, then held-out ones."""
    held_out = [GridPoint(each.size, each.tokens, held_out=True) for each in scaling.held_out]
    outside = {point.size for point in held_out}
    fitted = [
        GridPoint(size, tokens)
        for tokens in sorted(set(scaling.tokens))
        for size in scaling.sizes
        if size not in outside
    ]
    return [*fitted, *held_out]


def phases_before(resolved: Resolved) -> list[Phase]:
    """The phases from which the scaled phase takes its data or tokenizer, and the phases that these need in turn. They
    run in the config's own run directory."""
    phase = resolved.scaled
    needed = set(strings_in(phase.settings.model_dump(mode="json", include={"data", "eval_data", "tokenizer"})))
    found: list[Phase] = []
    for earlier in reversed(phase.earlier):
        if PHASE + earlier.name in needed:
            found.insert(0, earlier.settings)
            needed |= set(strings_in(earlier.settings.model_dump(mode="json")))
            needed |= {model.path for model in earlier.models.values() if model.path}
    return found


def grid_directory(config: Config) -> Path:
    return Path(config.run.directory + SUFFIX)


def conditions(phase: Pretrain) -> dict[str, Any]:
    """Settings that losses must share to be comparable: a law holds for phases with equal conditions."""
    return phase.model_dump(
        mode="json", include={"data", "eval_data", "tokenizer", "objective", "mixture", "max_length"}
    )


def grid_config(resolved: Resolved) -> Config:
    """The phases that the scaled phase needs, then a phase for each point. A point's steps match its tokens, so that
    the learning-rate schedule ends with them; a schedule that is cut short overestimates the loss (Hoffmann et al.
    2022, appendix B)."""
    config = resolved.config
    run = config.run.model_copy(update={"name": config.run.name + SUFFIX, "output": str(grid_directory(config))})
    points = [_phase_of(resolved, point) for point in points_of(config.scaling)]
    return config.model_copy(update={"run": run, "phases": [*phases_before(resolved), *points], "scaling": None})


def _phase_of(resolved: Resolved, point: GridPoint) -> Pretrain:
    phase, size = resolved.scaled.settings, resolved.config.scaling.sizes[point.size]
    batch_size = size.batch_size or phase.batch_size
    architecture = resolved.scaled.models["policy"].architecture | size.architecture
    policy = phase.models.get("policy", Model()).model_copy(update={"path": None, "architecture": architecture})
    changed = {
        "name": point.name,
        "batch_size": batch_size,
        "steps": steps_for(point.tokens, batch_size, phase.max_length),
        "ramp": None,
        "models": {**phase.models, "policy": policy},
        "optim": phase.optim.model_copy(update={"lr": size.lr} if size.lr else {}),
        "goals": {},
        "answers": None,
        "evaluate_every": 0,
    }
    return phase.model_copy(update=changed)
