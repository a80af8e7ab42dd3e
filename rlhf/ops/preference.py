"""Losses of comparisons, one value a pair and never a mean: whoever calls them sums, and the engine divides."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def pairwise_logistic(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """(P,): -log sigmoid(chosen - rejected - margin), the Bradley-Terry likelihood (Ouyang et al. 2022, equation 1; the
    margin is Llama 2's, Touvron et al. 2023, equation 2).

    chosen, rejected: (P,) scores. label_smoothing: the probability that a pair's label is wrong.
    """
    difference = chosen - rejected - margin
    right, wrong = functional.logsigmoid(difference), functional.logsigmoid(-difference)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(P,): direct preference optimisation (Rafailov et al. 2023, equation 7), with label smoothing conservative DPO
    (Mitchell 2023).

    chosen, rejected: (P,) log(policy / reference) of the whole answer.
    """
    return pairwise_logistic(beta * chosen, beta * rejected, label_smoothing=label_smoothing)
