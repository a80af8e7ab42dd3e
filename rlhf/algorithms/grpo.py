"""Group relative policy optimisation: the other samples of a prompt are the baseline, no critic (Shao et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data.batch import Batch
from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages


@dataclass(frozen=True)
class GRPO(Algorithm):
    """Needs several samples of each prompt: one that is alone in its group teaches nothing.

    clip_low, clip_high: how far the ratio may move from 1. dual_clip: bound of the loss where the advantage is negative.
    normalise_std: divide by the standard deviation of the rewards, plus std_eps; scale: of the group, or of the whole batch.
    average: the loss is a mean over all tokens; "sequence", the paper's, is over those of a sample first. kl: the paper's
    penalty in the loss, off as in most later work. entropy: coefficient of the bonus.
    """

    samples_per_prompt = 2
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    normalise_std: bool = True
    scale: Literal["group", "batch"] = "group"
    std_eps: Coefficient = 1e-6
    average: Literal["token", "sequence"] = "token"
    kl: LossKL = field(default_factory=LossKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def advantages(self, batch: Batch) -> Batch:
        """Reads rewards and group_ids; adds advantages, the same on every action token of a row."""
        rewards, groups = batch.rewards, batch.groups()
        gains = advantages.group_centred(rewards, groups)  # (B,)
        if self.normalise_std and self.scale == "group":
            gains = advantages.group_normalised(rewards, groups, self.std_eps)
        elif self.normalise_std:
            gains = advantages.batch_normalised(gains, rewards, self.std_eps)
        return batch.with_columns(advantages=advantages.on_tokens(gains, batch.action_mask))

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(
            self.clip_low,
            self.clip_high,
            self.dual_clip,
            average=self.average,
            entropy_coef=self.entropy,
            **self.kl.options(),
        )
        return {"policy": policy}
