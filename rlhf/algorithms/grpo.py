"""GRPO and its relatives: the other samples of a prompt are the baseline, so there is no critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rlhf import objectives
from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm, Objective
from rlhf.objectives import ClippedPolicy
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class GroupRelative(Algorithm):
    """Base: needs several samples of each prompt, because a sample that is alone in its group has no baseline.

    kl: penalty in the loss, off by default. entropy: coefficient of the entropy bonus.
    """

    samples_per_prompt = 2
    kl: LossKL = field(default_factory=LossKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def gains(self, batch: Batch) -> Tensor:
        """(B,): the advantage of each row within its group. Reads rewards and group_ids."""
        raise TypeError(f"{type(self).__name__} must define gains(batch)")

    def advantages(self, batch: Batch) -> Batch:
        """Adds advantages, the same on every action token of a row."""
        return batch.with_columns(advantages=advantages.on_tokens(self.gains(batch), batch.action_mask))

    def terms(self) -> dict[str, Any]:
        """The KL penalty and the entropy bonus, as parameters of a policy objective."""
        return {"entropy_coef": self.entropy, **self.kl.options()}


@dataclass(frozen=True)
class GRPO(GroupRelative):
    """Group relative policy optimisation (Shao et al. 2024). The KL penalty is off, as in most later work.

    clip_low, clip_high: how far the ratio may move from 1. dual_clip: bound of the loss where the advantage is negative.
    normalise_std: divide by the standard deviation of the rewards plus std_eps; scale: of the group, or of the whole batch.
    average: "token", the loss is a mean over all tokens; "sequence", as in the paper, over each sample's tokens first.
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
        policy = ClippedPolicy(self.clip_low, self.clip_high, self.dual_clip, average=self.average, **self.terms())
        return {"policy": policy}


@dataclass(frozen=True)
class DrGRPO(GroupRelative):
    """GRPO without its two biases (Liu et al. 2025). It does not divide by the standard deviation of a group, which favours
    prompts that are nearly always or nearly never solved, nor by the length of a sample, which favours long wrong answers.

    divisor: divides each row's sum over tokens. The length of the longest possible answer (sampling.max_new_tokens) keeps the
    loss at the scale of GRPO's. clip_low, clip_high: as in GRPO.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    divisor: float = 128.0

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_centred(batch.rewards, batch.groups())

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(self.clip_low, self.clip_high, average="constant", divisor=self.divisor, **self.terms())
        return {"policy": policy}


@dataclass(frozen=True)
class DAPO(GroupRelative):
    """GRPO with a higher upper clip, so that rare tokens may become likely, a loss averaged over all tokens, and other prompts in
    place of those whose samples are all right or all wrong (Yu et al. 2025). Its penalty for long answers is the phase's
    `shaping.overlong`.

    refills: how many more times a step draws prompts in place of groups without a difference. The others: as in GRPO.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    std_eps: Coefficient = 1e-6
    refills: Annotated[int, Field(ge=0)] = 3

    def keep(self, batch: Batch) -> Tensor:
        """(B,) bool: the rows of groups whose rewards are not all the same (equation 11)."""
        kept = batch.action_mask.new_zeros(len(batch))
        for rows in batch.groups():
            own = batch.rewards[rows]
            kept[rows] = (own != own[0]).any()
        return kept

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        return {"policy": ClippedPolicy(self.clip_low, self.clip_high, average="token", **self.terms())}


@dataclass(frozen=True)
class GSPO(GroupRelative):
    """GRPO with one ratio for a whole answer, the geometric mean over its tokens: the clip keeps or drops an answer as a whole,
    which steadies mixture-of-experts models (Zheng et al. 2025).

    clip_low, clip_high: how far the mean ratio may move from 1, a thousandth of the usual limits for single tokens. The others:
    as in GRPO.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    std_eps: Coefficient = 1e-6

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        policy = ClippedPolicy(self.clip_low, self.clip_high, ratio="sequence", average="sequence", **self.terms())
        return {"policy": policy}


@dataclass(frozen=True)
class CISPO(GroupRelative):
    """GRPO's advantages with REINFORCE weighted by the bounded ratio, so that no token loses its gradient to a clip
    (MiniMax-M1 2025).

    clip_low, clip_high: the weight is kept in [1 - clip_low, 1 + clip_high]; clip_low None, as published: no lower bound. The
    paper does not give its upper bound; 5 is ScaleRL's (Khatri et al. 2025). The others: as in GRPO.
    """

    clip_low: float | None = None
    clip_high: float = 4.0
    std_eps: Coefficient = 1e-6

    def gains(self, batch: Batch) -> Tensor:
        return advantages.group_normalised(batch.rewards, batch.groups(), self.std_eps)

    def objectives(self) -> dict[str, Objective]:
        return {"policy": objectives.CISPO(self.clip_low, self.clip_high, **self.terms())}
