"""The reward of a run: several parts, each with its source, added up with their weights or piecewise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import UserError
from data.sample import Sample
from rlhf.config.rewards import Piecewise, Reward
from rlhf.interfaces import RewardFunction, RewardSource
from rlhf.rewards.reward_sources import Source, find
from rlhf.rewards.reward_sources import given as by_value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One source's share of the reward: `weight * clip(score)`. A part of weight 0 is reported and not added."""

    name: str
    source: Source
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    models: tuple[str, ...] = ()  # of reward models: their paths; empty: the role `reward`
    std_penalty: float = 0.0


def compose(
    configured: Sequence[Reward],
    given: RewardFunction | RewardSource | None = None,
    combine: Piecewise | None = None,
) -> list[Part]:
    """The parts of a config's rewards, or of the object given in their place. A part is named as its source is after the colon,
    where it has no name of its own.

    Raises UserError where a source cannot be found or cannot score, two parts have one name, or the guard is no part.
    """
    if given is not None:
        name = getattr(given, "__name__", type(given).__name__)
        return [Part(name, by_value(given, name))]
    labels = [reward.name or reward.source.rpartition(":")[2] for reward in configured]
    sources = {label: {reward.source for reward, own in zip(configured, labels) if own == label} for label in labels}
    parts = []
    for reward, label in zip(configured, labels):
        name = label if reward.name or len(sources[label]) == 1 else reward.source
        models = tuple(reward.models)
        parts.append(Part(name, find(reward), reward.weight, reward.clip, models, reward.std_penalty))
    for name, count in Counter(part.name for part in parts).items():
        if count > 1:
            raise UserError(f"{count} parts are named {name!r}; give each a `name` of its own")
    if combine and combine.guard not in (names := [part.name for part in parts]):
        raise UserError(f"combine.guard: no reward is named {combine.guard!r}; there are {', '.join(names)}")
    return parts


def total(
    parts: Sequence[Part],
    scores: Mapping[str, Tensor],
    combine: Piecewise | None = None,
    guarded: Tensor | None = None,
) -> Tensor:
    """(B,) fp32: the weighted sum of the parts' clipped scores, or, with `combine`, the guard's share alone where its score is
    below `combine.below` or `guarded`, and the sum of the others elsewhere (Llama 2, Touvron et al. 2023, section 3.2.3).

    scores: (B,) of each part, NaN = none: a row is NaN where a part that counts there is. guarded: (B,) bool, the prompts
    that call for the guard.
    """
    import torch

    shares = {}
    for part in parts:
        own = scores[part.name]
        shares[part.name] = part.weight * (own if part.clip is None else own.clamp(*part.clip))
    counted = [part.name for part in parts if part.weight != 0 and not (combine and part.name == combine.guard)]
    rows = len(next(iter(scores.values())))
    summed = sum((shares[name] for name in counted), torch.zeros(rows))
    if combine is None:
        return summed
    guard = scores[combine.guard]
    alone = guard < combine.below if guarded is None else (guard < combine.below) | guarded
    return shares[combine.guard].where(alone, summed).where(guard.isfinite(), math.nan)


def guarded_prompts(samples: Sequence[Sample], column: str) -> Tensor:
    """(B,) bool: what the prompts' column says. Raises UserError where it is missing, or says neither true nor false."""
    import torch

    found = []
    for sample in samples:
        value = sample.prompt.meta.get(column)
        if not isinstance(value, bool | int):
            raise UserError(
                f"combine.prompts: prompt row {sample.prompt.row} has {value!r} in column {column!r}; wanted true or false: map "
                "the column in data.columns"
            )
        found.append(bool(value))
    return torch.tensor(found, dtype=torch.bool)


def columns(name: str, values: Sequence[float | Mapping[str, float]]) -> dict[str, Tensor]:
    """{name: (B,) fp32}. Where a source returned dicts, each one's sum, and {name/key: (B,)} of its values, NaN where one lacks
    it. What is not finite in fp32 is no score: NaN."""
    import torch

    rows: list[dict[str, Any]] = []
    for value in values:
        named = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {}
        rows.append({name: sum(named.values()) if isinstance(value, Mapping) else value, **named})
    names = dict.fromkeys([name, *(key for row in rows for key in row)])
    found = {key: torch.tensor([row.get(key, math.nan) for row in rows], dtype=torch.float32) for key in names}
    return {key: column.where(column.isfinite(), math.nan) for key, column in found.items()}
