"""Group relative policy optimisation: the other samples of a prompt are the baseline, no critic (Shao et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlhf.algorithms.group import GroupRelative
from rlhf.algorithms.penalty import Coefficient
from rlhf.interfaces import Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class GRPO(GroupRelative):
    """clip_low, clip_high: how far the ratio may move from 1. dual_clip: bound of the loss where the advantage is negative.
    normalise_std: divide by the standard deviation of the rewards, plus std_eps; scale: of the group, or of the whole batch.
    average: the loss is a mean over all tokens; "sequence", the paper's, is over those of a sample first. kl, off as
    in most later work, and entropy: see `GroupRelative`.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    normalise_std: bool = True
    scale: Literal["group", "batch"] = "group"
    std_eps: Coefficient = 1e-6
    average: Literal["token", "sequence"] = "token"

    def gains(self, batch: Batch) -> Tensor:
        rewards, groups = batch.rewards, batch.groups()
        if self.normalise_std and self.scale == "group":
            return advantages.group_normalised(rewards, groups, self.std_eps)
        centred = advantages.group_centred(rewards, groups)
        return advantages.batch_normalised(centred, rewards, self.std_eps) if self.normalise_std else centred

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            self.dual_clip,
            average=self.average,
            **self.terms(),
        )
        return {"policy": policy}
