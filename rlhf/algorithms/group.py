"""What GRPO and its relatives share: a prompt's samples are each other's baseline, no critic, an optional KL in the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhf.algorithms.penalty import Coefficient, LossKL
from rlhf.interfaces import Algorithm
from rlhf.ops import advantages

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class GroupRelative(Algorithm):
    """Needs several samples of each prompt: one that is alone in its group teaches nothing. kl: penalty in the loss, off by
    default. entropy: coefficient of the bonus."""

    samples_per_prompt = 2
    kl: LossKL = field(default_factory=LossKL)
    entropy: Coefficient = 0.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"old_logprobs"}) | self.kl.needs

    def gains(self, batch: Batch) -> Tensor:
        """(B,): each row's reward within its group. Reads rewards and group_ids."""
        raise TypeError(f"{type(self).__name__} must define gains(batch)")

    def advantages(self, batch: Batch) -> Batch:
        """Adds advantages, the same on every action token of a row."""
        return batch.with_columns(advantages=advantages.on_tokens(self.gains(batch), batch.action_mask))

    def terms(self) -> dict[str, Any]:
        """What a policy objective adds to its surrogate."""
        return {"entropy_coef": self.entropy, **self.kl.options()}
