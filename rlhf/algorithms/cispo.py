"""CISPO: GRPO's advantages with REINFORCE weighted by the bounded ratio, so that no token loses its gradient to a clip
(MiniMax-M1 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf import objectives
from rlhf.algorithms.group import GroupRelative
from rlhf.algorithms.penalty import Coefficient
from rlhf.interfaces import Objective
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class CISPO(GroupRelative):
    """clip_low, clip_high: the weight is kept in [1 - clip_low, 1 + clip_high]; clip_low None, as published: no lower bound.
    The published upper bound was tuned and not named; 5 is that of ScaleRL (Khatri et al. 2025). The others: as in GRPO."""

    clip_low: float | None = None
    clip_high: float = 4.0
    std_eps: Coefficient = 1e-6

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        policy = objectives.CISPO(self.clip_low, self.clip_high, **self.terms())
        return {"policy": policy}
