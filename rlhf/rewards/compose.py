"""The reward of a run: a weighted, clipped sum of sources, each a reward model, a function or an object that scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.errors import UserError
from data.imports import load_object
from data.sample import Sample
from rlhf.config.schema import Reward
from rlhf.interfaces import RewardFunction, RewardSource

MODEL = "model"  # the source whose scores the reward group computes
ENVIRONMENT = "environment"  # the source that reads the score which the rollout gave


@dataclass(frozen=True)
class Part:
    """One source's share of the reward: `weight * clip(score)`. A part of weight 0 is reported and not added."""

    name: str
    source: str | RewardFunction | RewardSource  # MODEL, fn(sample) or an object with score(samples)
    weight: float = 1.0
    clip: tuple[float, float] | None = None


def compose(configured: Sequence[Reward], given: RewardFunction | RewardSource | None = None) -> Composite:
    """The scorer of a config's rewards, or of the object given in their place.

    Raises UserError where a source cannot be found or cannot score.
    """
    if given is not None:
        return Composite([Part(_name(given), _checked(given, _name(given)))])
    sources = [reward.source for reward in configured]
    for source, count in Counter(sources).items():
        if count > 1:
            raise UserError(
                f"reward: source {source!r} is listed {count} times; list it once, with the weights added up"
            )
    short = Counter(source.rpartition(":")[2] for source in sources)
    parts = []
    for reward in configured:
        label = reward.source.rpartition(":")[2]
        name = label if short[label] == 1 else reward.source
        parts.append(Part(name, _source(reward.source), reward.weight, reward.clip))
    return Composite(parts)


class EnvironmentScore:
    """A reward source: the score that each sample brings from its rollout."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """NaN where a sample has none. Raises UserError where no sample has one."""
        if all(sample.score is None for sample in samples):
            raise UserError("no rollout environment gave a score: set phases.<name>.rollout, and let it return one")
        return [math.nan if sample.score is None else sample.score for sample in samples]


@dataclass(frozen=True)
class Composite:
    """Scores samples with every part."""

    parts: Sequence[Part]

    @property
    def needs_model(self) -> bool:
        """Whether a reward model takes part."""
        return any(part.source == MODEL for part in self.parts)

    def score(self, samples: Sequence[Sample], model_scores: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """(rewards (B,) fp32, each part's scores (B,) fp32 before clip and weight).

        model_scores: (B,), from the reward model, needed where `needs_model`. A part that returns a dict is its sum,
        and each named value is reported beside it as part/name, NaN where a sample lacks it. A row is NaN where a part
        that counts is NaN, and an infinite score is one. Raises UserError where a source returns something other than
        numbers, and RuntimeError from an error inside a source.
        """
        rewards = torch.zeros(len(samples))
        scores: dict[str, Tensor] = {}
        for part in self.parts:
            if part.source == MODEL:
                own = {part.name: model_scores.detach().float().cpu()}
            else:
                own = _columns(
                    part.name, [_values(part.name, value, sample) for value, sample in _returned(part, samples)]
                )
            own = {name: values.where(values.isfinite(), math.nan) for name, values in own.items()}
            scores |= own
            total = own[part.name]
            if part.clip is not None:
                total = total.clamp(*part.clip)
            if part.weight != 0:
                rewards = rewards + part.weight * total
        return rewards, scores


def _returned(part: Part, samples: Sequence[Sample]) -> list[tuple[Any, Sample]]:
    """What the source said of each sample."""
    if hasattr(part.source, "score"):
        values = _call(part, samples, lambda: list(part.source.score(samples)))
        if len(values) != len(samples):
            raise UserError(
                f"reward {part.name!r} gave {len(values)} scores for {len(samples)} samples; one each is wanted"
            )
        return list(zip(values, samples))
    return [(_call(part, [sample], lambda sample=sample: part.source(sample)), sample) for sample in samples]


def _call(part: Part, samples: Sequence[Sample], scoring: Callable[[], Any]) -> Any:
    try:
        return scoring()
    except UserError:
        raise
    except Exception as error:  # any error of the user's code; raised again with what it does not know: the row
        rows = ", ".join(str(row) for row in sorted({sample.prompt.row for sample in samples})[:8])
        raise RuntimeError(
            f"reward {part.name!r} failed on prompt row {rows}: {type(error).__name__}: {error}"
        ) from error


def _values(name: str, returned: Any, sample: Sample) -> dict[str, float]:
    """{part: total} of one sample, and {part/key: value} of a dict's values."""
    if isinstance(returned, Mapping):
        values = {f"{name}/{key}": _number(name, value, sample) for key, value in returned.items()}
        return {name: sum(values.values()), **values}
    return {name: _number(name, returned, sample)}


def _number(name: str, value: Any, sample: Sample) -> float:
    where = f"reward {name!r} returned {value!r} for prompt row {sample.prompt.row}"
    advice = f"{where}; return a number, or nan for no score"
    if isinstance(value, str | bytes):  # float() would read a number from them
        raise UserError(advice)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(advice) from error


def _columns(name: str, rows: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
    names = dict.fromkeys([name, *(key for row in rows for key in row)])
    return {key: torch.tensor([row.get(key, math.nan) for row in rows], dtype=torch.float32) for key in names}


def _source(name: str) -> str | RewardFunction | RewardSource:
    if name == MODEL:
        return name
    return EnvironmentScore() if name == ENVIRONMENT else _checked(load_object(name), name)


def _checked(source: Any, name: str) -> Any:
    if isinstance(source, type) or not (callable(source) or hasattr(source, "score")):
        raise UserError(
            f"reward {name!r} is {source!r}; wanted a function of one sample, or an object with score(samples)"
        )
    return source


def _name(source: Any) -> str:
    return getattr(source, "__name__", type(source).__name__)
