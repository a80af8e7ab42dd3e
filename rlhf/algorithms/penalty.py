"""The penalty for leaving the reference, as a parameter of algorithms: taken from the reward, or added to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from data.errors import UserError
from rlhf.ops import kl

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch

Coefficient = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Estimator = Literal["k1", "k2", "k3"]
UNWEIGHTED_K1 = "k1 has a gradient of 0 on average"


@dataclass(frozen=True)
class RewardKL:
    """coef * KL of a token is taken from its reward. With coef 0 no reference is needed."""

    coef: Coefficient = 0.05
    estimator: Estimator = "k1"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs", "ref_logprobs"} if self.coef else ())

    def penalties(self, batch: Batch) -> Tensor:
        """(B, T), coefficient included, 0 outside the mask. Reads old_logprobs and ref_logprobs, unless coef is 0."""
        if not self.coef:
            import torch

            return torch.zeros(batch.action_mask.shape)
        divergence = kl.ESTIMATORS[self.estimator](batch.old_logprobs, batch.ref_logprobs)
        return (self.coef * divergence).where(batch.action_mask, 0)


@dataclass(frozen=True)
class LossKL:
    """coef * KL of a token is added to its loss; weighted: times its probability ratio. With coef 0 no reference is needed."""

    coef: Coefficient = 0.0
    estimator: Estimator = "k3"
    weighted: bool = False

    def __post_init__(self):
        if self.coef and self.estimator == "k1" and not self.weighted:
            raise UserError(f"in the loss, {UNWEIGHTED_K1}; set kl.estimator to k2 or k3, or kl.weighted to true")
        if self.coef and self.estimator == "k2" and self.weighted:
            raise UserError("k2 times the ratio has the gradient of no KL; set kl.estimator to k1 or k3")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"ref_logprobs"} if self.coef else ())

    def options(self) -> dict[str, Any]:
        """What a policy objective takes."""
        if not self.coef:
            return {}
        return {"kl_coef": self.coef, "kl_estimator": self.estimator, "kl_weighted": self.weighted}


@dataclass(frozen=True)
class KL:
    """The penalty, in the reward or in the loss. With a target, in nats an answer, the coefficient adapts towards it."""

    coef: Coefficient = 0.05
    estimator: Estimator = "k1"
    place: Literal["reward", "loss"] = "reward"
    target: Positive | None = None
    horizon: Annotated[int, Field(gt=0)] = 10_000  # samples over which the coefficient adapts

    def __post_init__(self):
        if self.target is not None and not self.coef:
            raise UserError("kl.target multiplies kl.coef, which is 0 and stays so; start from a coef of 0.05, say")
        if self.place == "loss" and self.estimator == "k1":
            raise UserError(f"in the loss, {UNWEIGHTED_K1}; set kl.estimator to k2 or k3")

    @property
    def in_reward(self) -> RewardKL:
        return RewardKL(self.coef if self.place == "reward" else 0.0, self.estimator)

    @property
    def in_loss(self) -> LossKL:
        return LossKL(self.coef if self.place == "loss" else 0.0, self.estimator)
