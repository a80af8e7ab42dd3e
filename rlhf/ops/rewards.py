"""What happens to the rewards of a step before the algorithm sees them: running moments, clips and penalties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RunningMoments:
    """Mean and spread of all values seen so far, in double precision."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0  # sum of squared distances from the mean

    def update(self, values: Tensor) -> RunningMoments:
        """With these values, any shape and finite, seen too (Chan et al. 1979, the parallel form)."""
        if values.numel() == 0:
            return self
        values = values.double()
        count, mean = values.numel(), float(values.mean())
        shift, total = mean - self.mean, self.count + count
        return RunningMoments(
            total,
            self.mean + shift * count / total,
            self.m2 + float((values - mean).square().sum()) + shift**2 * self.count * count / total,
        )

    @property
    def std(self) -> float:
        """Unbiased; 0 before the second value."""
        return math.sqrt(self.m2 / (self.count - 1)) if self.count > 1 else 0.0

    def state(self) -> dict[str, float]:
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    @classmethod
    def from_state(cls, state: Mapping[str, float]) -> RunningMoments:
        """The inverse of `state`; of an empty one, no values seen."""
        return cls(**state)


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """(B,): 0 up to limit - buffer tokens, then falling to -1 at limit and beyond (DAPO, Yu et al. 2025, equation 13).

    lengths: (B,), tokens of each answer.
    """
    return ((limit - buffer - lengths) / buffer).clamp(-1, 0)


def shape(
    rewards: Tensor,
    truncated: Tensor,
    lengths: Tensor,
    moments: RunningMoments | None = None,
    clip: float | None = None,
    missing_end: float = 0.0,
    overlong: tuple[int, int] | None = None,
    eps: float = 1e-8,
) -> Tensor:
    """(B,): the rewards normalised by the moments, which have seen them, then kept within +- clip, then with the penalties.

    rewards: (B,), finite. truncated: (B,) bool, the answer has no end token, which costs `missing_end`. lengths: (B,),
    tokens of each answer. overlong: (limit, buffer) of `overlong_penalty`.
    """
    if moments is not None:
        rewards = (rewards - moments.mean) / (moments.std + eps)
    if clip is not None:
        rewards = rewards.clamp(-clip, clip)
    rewards = rewards - missing_end * truncated.to(rewards.dtype)
    if overlong is not None:
        rewards = rewards + overlong_penalty(lengths, *overlong).to(rewards.dtype)
    return rewards
