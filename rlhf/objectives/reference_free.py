"""Objectives of learning from pairs without a reference model: ORPO, SimPO, CPO, and the chosen answers' likelihood alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.objectives.dpo import PairLoss, chosen_nll
from rlhf.ops import preference

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class ORPO(PairLoss):
    """Odds ratio preference optimisation: instruction tuning on the chosen answers, plus beta (the paper's lambda) times
    the odds ratio (Hong et al. 2024, equation 6)."""

    columns: ClassVar[frozenset[str]] = frozenset()
    length_normalised: ClassVar[bool] = True
    nll: ClassVar[float] = 1.0
    beta: float = 0.1

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return self.beta * preference.odds_ratio(chosen, rejected)


@dataclass(frozen=True)
class SimPO(PairLoss):
    """Simple preference optimisation: mean log-probs are the rewards, and gamma is the margin they are to reach."""

    columns: ClassVar[frozenset[str]] = frozenset()
    length_normalised: ClassVar[bool] = True
    beta: float = 2.0
    gamma: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not self.gamma >= 0:
            raise UserError(f"SimPO: gamma must not be negative, got {self.gamma}; usual are 0.5 to 1.5")

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.simpo(chosen, rejected, self.beta, self.gamma, self.label_smoothing)


@dataclass(frozen=True)
class CPO(PairLoss):
    """Contrastive preference optimisation: DPO without its reference, plus the chosen answers' likelihood.

    The paper sums that likelihood over an answer's tokens; it is averaged here, so that nll means the same in all losses.
    """

    columns: ClassVar[frozenset[str]] = frozenset()
    beta: float = 0.1
    nll: float = 1.0
    label_smoothing: float = 0.0

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.cpo(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class NLL:
    """The chosen answers' mean negative log-prob a token, each pair weighing the same: a part of mixtures, or what the
    other losses are compared with. (`LanguageModel` weighs each token the same.)"""

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "pairs"
    columns: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs."""
        return chosen_nll(out, microbatch).sum(), {}
