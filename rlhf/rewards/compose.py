"""The reward of a phase: parts, each with a source of scores, combined by a weighted sum or piecewise."""

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
from rlhf.rewards.reward_sources import Source, call_of, find

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One source's share of the reward: `weight * clip(score)`. A part with weight 0 is only reported."""

    name: str
    source: Source
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    models: tuple[str, ...] = ()  # paths of reward models; empty: the model of role `reward`
    std_penalty: float = 0.0


def compose(
    configured: Sequence[Reward],
    given: RewardFunction | RewardSource | None = None,
    combine: Piecewise | None = None,
) -> list[Part]:
    """The parts of a config's rewards, or one part for the object given in their place. A part without a name takes the
    name of its source after the colon, or its whole source if several sources would get the same name.

    Raises UserError where a source cannot be found or cannot score, two parts have the same name, or no part is named
    as the guard.
    """
    if given is not None:
        name = getattr(given, "__name__", type(given).__name__)
        return [Part(name, call_of(given, name))]
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
    """(B,) fp32 rewards: the weighted sum of the parts' clipped scores. With `combine`: the guard's share alone in rows
    where the guard's score is below `combine.below` or `guarded` is true, and the sum of the other parts in the other
    rows (Llama 2, Touvron et al. 2023, section 3.2.3).

    scores: (B,) for each part, NaN = no score. A reward is NaN where a part that it counts has no score. guarded: (B,)
    bool, True for prompts on which the guard decides.
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
    """(B,) bool: the column of the samples' prompts. Raises UserError where the column is missing, or neither true nor
    false."""
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
    """Scores as columns: {name: (B,) fp32}. A dict of scores counts as the sum of its values, and each key gets a
    column of its own, {name/key: (B,) fp32}, NaN for samples that lack the key. A score that is not finite in fp32
    becomes NaN, no score."""
    import torch

    rows: list[dict[str, Any]] = []
    for value in values:
        named = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {}
        rows.append({name: sum(named.values()) if isinstance(value, Mapping) else value, **named})
    names = dict.fromkeys([name, *(key for row in rows for key in row)])
    found = {key: torch.tensor([row.get(key, math.nan) for row in rows], dtype=torch.float32) for key in names}
    return {key: column.where(column.isfinite(), math.nan) for key, column in found.items()}
