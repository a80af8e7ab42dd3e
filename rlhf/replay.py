"""Compares algorithms on a stored step: same samples, same weights, no new rollouts."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from rich.console import Console
from rich.text import Text
from torch import Tensor

from data.batch import Batch
from data.errors import UserError
from rlhf.interfaces import Algorithm, ModelBuild
from rlhf.reports.plan_tables import terminal_table
from rlhf.stored_steps import BATCH, POLICY, load_step

if TYPE_CHECKING:
    from rlhf.config.schema import Config, Rl
    from rlhf.engine.models import EngineModel

SHOWN = 3  # samples, of those whose advantages differ most


@dataclass(frozen=True)
class Side:
    """One algorithm's figures, advantages and gradient on the step."""

    name: str
    figures: dict[str, float]  # in the order of the table; NaN = none
    # (B, T) fp32 in the stored order; 0 outside the action mask and in rows that the algorithm left out
    advantages: Tensor | None
    gradient: dict[str, Tensor]  # by parameter


@dataclass(frozen=True)
class Differing:
    """A sample, and the mean of its advantages over action tokens by each of the two algorithms."""

    prompt: str
    answer: str
    reward: float
    advantages: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two algorithms on one stored step. cosine: of the angle between their gradients; cosines: the same for each group
    of layers."""

    title: str
    run: Side
    other: Side
    cosine: float
    cosines: dict[str, float]
    samples: tuple[Differing, ...]  # at most SHOWN, largest difference first

    def show(self, console: Console) -> None:
        """Prints figures, cosines and samples as tables."""
        names = self.run.name, self.other.name
        figures = terminal_table("", *names)
        for name in dict.fromkeys((*self.run.figures, *self.other.figures)):
            figures.add_row(name, *(_number(side.figures.get(name, math.nan)) for side in (self.run, self.other)))
        angles = terminal_table("policy gradients", "cosine")
        for name, value in {"all parameters": self.cosine, **self.cosines}.items():
            angles.add_row(name, _number(value))
        console.print(Text(self.title, "bold"))
        console.print(figures)
        console.print(angles)
        if self.samples:
            rows = terminal_table("prompt", "answer", "reward", *names)
            for each in self.samples:
                numbers = map(_number, (each.reward, *each.advantages))
                rows.add_row(_short(each.prompt), _short(each.answer), *numbers)
            console.print(Text(f"mean advantage of the {len(self.samples)} samples that differ most", "bold"))
            console.print(rows)


def replay(
    run_directory: Path, step: int, algorithm: Algorithm, phase: str | None = None, against: Algorithm | None = None
) -> Comparison:
    """Compares `algorithm` with `against`, by default the algorithm of the run's config.yaml: the advantages of the
    stored samples, corrected as the phase says, and the stored policy's gradient over all samples as one mini-batch, on
    the CPU in float32. The critic's gradient is left out, since its weights are not stored.

    Raises UserError where the run, the phase or the step does not exist, or lacks a column that an algorithm needs.
    """
    from rlhf.algorithms import resolve
    from rlhf.engine.build import build_model
    from rlhf.testing.arithmetic import cosine

    config, settings = _phase(run_directory, phase)
    directory = _stored(run_directory, settings.name, step)
    stored = load_step(directory)
    batch = replace(stored.batch, meta=tuple({"stored": index} for index in range(len(stored.batch))))
    build = _policy(config, settings, directory)
    model = build_model(build, torch.float32).eval()
    own = against or resolve(settings.algorithm.name, settings.algorithm.parameters)
    if stored.algorithm.startswith(f"{type(own).__name__}("):
        moved = own.with_state(stored.state)  # as `after_step` had left it
        own = moved if repr(moved) == stored.algorithm else own
    where = f"{settings.name}, step {step}"
    if repr(own) != stored.algorithm and not own.needs <= batch.columns.keys():
        raise UserError(
            f"{where} was taken with {stored.algorithm}, which config.yaml does not name: give it with --against"
        )
    sides = [_side(each, batch, model, build, settings, where) for each in (own, algorithm)]
    title = f"{run_directory}, {where}: {len(batch)} samples"
    if repr(own) == stored.algorithm:
        sides[0] = replace(sides[0], name=f"{sides[0].name} (the run's)")
    else:
        title += f"; the run itself used {stored.algorithm}"
    gradients = [side.gradient for side in sides]
    layers = _layers(gradients[0]).items()
    cosines = {layer: cosine(*({key: each[key] for key in keys} for each in gradients)) for layer, keys in layers}
    return Comparison(title, *sides, cosine(*gradients), cosines, _differing(sides, batch, stored.rows))


def load_algorithm(name: str, settings: Sequence[str] = ()) -> Algorithm:
    """The algorithm of this name (built-in, module:Class or file.py:Class) with settings `field=value` or
    `field.inner=value`; values are YAML.

    Raises UserError where the name or a setting is wrong.
    """
    from rlhf.algorithms import resolve

    parameters: dict[str, Any] = {}
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} is not of the form parameter=value, such as clip=0.1")
        *outer, last = path.split(".")
        inside = parameters
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = yaml.safe_load(value)
    file, _, kind = name.rpartition(":")
    return resolve(f"{_import_file(Path(file))}:{kind}" if file.endswith(".py") else name, parameters)


def _import_file(file: Path) -> str:
    """Imports the file; returns the name of its module."""
    if not file.is_file():
        raise UserError(f"there is no {file}; give file.py:Class, module:Class or a built-in name")
    name = f"replayed_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return name


def _phase(root: Path, name: str | None) -> tuple[Config, Rl]:
    from rlhf.config.load import load_config

    if not (root / "config.yaml").exists():
        raise UserError(f"{root} is not a run's directory (it has no config.yaml)")
    config = load_config(root / "config.yaml")
    found = {phase.name: phase for phase in config.phases if phase.kind == "rl"}
    if not found:
        raise UserError(f"{root} has no phase of kind rl; only such phases can be replayed")
    if name is None and len(found) > 1:
        raise UserError(f"{root} has several phases of kind rl: name one of {', '.join(found)} with --phase")
    if name is not None and name not in found:
        raise UserError(f"{root} has no phase {name!r} of kind rl; it has {', '.join(found)}")
    return config, found[name or next(iter(found))]


def _stored(root: Path, phase: str, step: int) -> Path:
    steps = sorted(int(file.parent.name.removeprefix("step-")) for file in root.glob(f"steps/{phase}/step-*/{BATCH}"))
    if step not in steps:
        there = f"stored are {', '.join(map(str, steps))}" if steps else "none is"
        advice = f"set phases.{phase}.store_every and run"
        raise UserError(f"{root}: step {step} of {phase} is not stored; {there}; {advice}")
    return root / "steps" / phase / f"step-{step}"


def _policy(config: Config, phase: Rl, directory: Path) -> ModelBuild:
    from rlhf.config.resolved import resolve

    if not (directory / POLICY / "config.json").exists():
        raise UserError(f"{directory / POLICY} is missing: the run ended while it stored this step; take another one")
    tokens = resolve(config)[phase.name].models["policy"].microbatch_tokens
    return ModelBuild(
        role="policy",
        path=str(directory / POLICY),
        architecture=None,
        head="lm",
        dtype="float32",
        zero_stage=0,
        microbatch_tokens=tokens,
        activation_checkpointing=False,
        optim=None,
        seed=0,
    )


def _side(algorithm: Algorithm, batch: Batch, model: EngineModel, build: ModelBuild, phase: Rl, where: str) -> Side:
    from rlhf.phases.lesson import corrected
    from rlhf.testing.arithmetic import gradient, smallest_budget

    name, objective = type(algorithm).__name__, algorithm.objectives()["policy"]
    _expect_columns(name, algorithm.needs, batch, where)
    unshaped = batch.with_columns(rewards=batch.raw_rewards) if "raw_rewards" in batch else batch
    kept = algorithm.keep(unshaped)
    trained = algorithm.advantages(batch.select(kept.nonzero()[:, 0])) if kept.any() else batch.select([])
    trained, _ = corrected(phase, trained)
    if len(trained) == 0:
        raise UserError(f"{where}: {name} leaves out every sample: there is nothing to compare")
    _expect_columns(name, objective.columns, trained, where)
    budget = max(build.microbatch_tokens, smallest_budget(trained, objective.unit, model.form.packing))
    found = gradient(
        model, trained, objective, budget=budget, packing=model.form.packing, temperature=phase.sampling.temperature
    )
    figures = {
        "rows trained on": float(len(trained)),
        **_spread(trained),
        "loss": found.loss,
        "gradient norm": found.norm,
    }
    return Side(name, figures | found.metrics, _in_stored_order(trained, batch), found.parameters)


def _expect_columns(name: str, wanted: frozenset[str], batch: Batch, where: str) -> None:
    missing = sorted(wanted - batch.columns.keys())
    if missing:
        raise UserError(
            f"{where}: {name} needs {', '.join(missing)}, which this run did not compute; take an algorithm that needs no "
            "more than the run's own"
        )


def _spread(batch: Batch) -> dict[str, float]:
    """Statistics of the advantages of action tokens."""
    if "advantages" not in batch:
        return {}
    own = batch.advantages[batch.action_mask]
    found = {"mean": own.mean(), "std": own.std(unbiased=False), "min": own.min(), "max": own.max()}
    found["share of zeros"] = (own == 0).float().mean()
    return {f"advantage, {name}": float(each) for name, each in found.items()}


def _in_stored_order(trained: Batch, batch: Batch) -> Tensor | None:
    """The advantages as (B, T) fp32, in the stored order; None if there are none, or if the algorithm built a batch
    without meta."""
    if "advantages" not in trained or len(trained.meta) != len(trained):
        return None
    result = torch.zeros(tuple(batch.tokens.shape))
    rows = [meta["stored"] for meta in trained.meta]
    result[rows, : trained.width] = torch.where(trained.action_mask, trained.advantages, 0)
    return result


def _layers(gradient: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of parameters by group: embeddings, each layer, and the head with the norm before it."""
    groups: dict[str, list[str]] = {}
    for name in gradient:
        layer = re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", name)
        embedding = re.search(r"embed|wte|wpe", name)
        group = f"layer {layer[1]}" if layer else "embeddings" if embedding and "embed_out" not in name else "head"
        groups.setdefault(group, []).append(name)
    return groups


def _differing(sides: Sequence[Side], batch: Batch, rows: Sequence[Mapping[str, Any]]) -> tuple[Differing, ...]:
    if any(side.advantages is None for side in sides):
        return ()
    lengths = batch.action_mask.sum(1).clamp(min=1)
    one, other = (side.advantages for side in sides)
    gaps = (one - other).abs().sum(1) / lengths  # (B,)
    means = [(each.sum(1) / lengths).tolist() for each in (one, other)]
    most = gaps.argsort(descending=True)[:SHOWN].tolist()
    return tuple(
        Differing(rows[row]["prompt"], rows[row]["answer"], float(batch.rewards[row]), (means[0][row], means[1][row]))
        for row in most
        if gaps[row] > 0
    )


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.4g}"


def _short(text: str) -> Text:
    line = Text(" ".join(text.split()))
    line.truncate(60, overflow="ellipsis")
    return line
