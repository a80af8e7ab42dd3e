"""Losses of learning from preferences, one value a pair or a row and never a mean: whoever calls them sums, and the engine
divides.

`chosen` and `rejected` are what the answers of a pair are compared by, one number an answer: scores of a reward model,
log(policy / reference), or log-probs; each docstring says which.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# log p per token; an answer of probability 1 has infinite odds, and their gradient is NaN
HIGHEST_LOGPROB = -1e-6


def pairwise_logistic(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, label_smoothing: Tensor | float = 0.0
) -> Tensor:
    """(P,): -log sigmoid(chosen - rejected - margin), the Bradley-Terry likelihood (Ouyang et al. 2022, equation 1; the
    margin is Llama 2's, Touvron et al. 2023, equation 2).

    chosen, rejected: (P,) scores. label_smoothing: the probability that a pair's label is wrong, one half for a tie.
    """
    difference = chosen - rejected - margin
    right, wrong = functional.logsigmoid(difference), functional.logsigmoid(-difference)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def off_centre(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(P,): (chosen + rejected)^2, added with a small weight to `pairwise_logistic`, which fixes scores only up to a
    constant: it pulls their mean to 0 (Eisenstein et al. 2023, equation 2).

    chosen, rejected: (P,) scores.
    """
    return (chosen + rejected).square()


def dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(P,): direct preference optimisation (Rafailov et al. 2023, equation 7), with label smoothing conservative DPO
    (Mitchell 2023, equation 3).

    chosen, rejected: (P,) log(policy / reference) of the whole answer.
    """
    return pairwise_logistic(beta * chosen, beta * rejected, label_smoothing=label_smoothing)


def robust_dpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """(P,): DPO's loss without the bias of labels that are wrong with probability label_smoothing, below 0.5: in
    expectation over the flips it is DPO's loss of the right labels (Chowdhury et al. 2024, section 3.1).

    chosen, rejected: (P,) log(policy / reference) of the whole answer.
    """
    right, wrong = dpo(chosen, rejected, beta), dpo(rejected, chosen, beta)
    return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(P,): (chosen - rejected - 1 / (2 beta))^2, whose optimum is a finite margin (Azar et al. 2023, equation 17; their
    tau is beta).

    chosen, rejected: (P,) log(policy / reference) of the answer, summed or averaged over its tokens.
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


def hinge(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(P,): max(0, 1 - beta (chosen - rejected)): sequence likelihood calibration (Zhao et al. 2023, equation 1), against
    the reference as in RSO (Liu et al. 2024, its hinge-norm loss).

    chosen, rejected: (P,) log(policy / reference) of the whole answer; without a reference, log-probs.
    """
    return functional.relu(1 - beta * (chosen - rejected))


def kto(
    log_ratios: Tensor,
    desirable: Tensor,
    baseline: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """(B,): Kahneman-Tversky optimisation, weight * (1 - sigmoid(+-beta (log_ratios - baseline))), + for desirable answers
    (Ethayarajh et al. 2024, equation 8).

    log_ratios: (B,) log(policy / reference) of the whole answer. desirable: (B,) bool. baseline: (B,) or a number, the
    paper's z0 (`kto_baseline`), through which no gradient flows.
    """
    gain = beta * (log_ratios - baseline)
    return torch.where(
        desirable, desirable_weight * functional.sigmoid(-gain), undesirable_weight * functional.sigmoid(gain)
    )


def kto_baseline(log_ratios: Tensor) -> Tensor:
    """(): max(0, mean), the estimate of KL(policy || reference) from answers to other prompts (Ethayarajh et al. 2024,
    section 4.1).

    log_ratios: (B,) log(policy / reference) of whole answers, each after the prompt of another row.
    """
    return log_ratios.mean().clamp(min=0)


def odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(P,): -log sigmoid(log(odds(chosen) / odds(rejected))), odds = p / (1 - p): the term that ORPO adds to the chosen
    answer's negative log-likelihood (Hong et al. 2024, equation 7).

    chosen, rejected: (P,) log-probs, averaged over the answer's tokens.
    """
    return -functional.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """(P,): -log sigmoid(beta (chosen - rejected) - gamma) (Meng et al. 2024, equation 6), with label smoothing as in DPO.

    chosen, rejected: (P,) log-probs, averaged over the answer's tokens.
    """
    return pairwise_logistic(beta * chosen, beta * rejected, gamma, label_smoothing)


def cpo(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(P,): the preference term of contrastive preference optimisation, DPO against a uniform reference (Xu et al. 2024,
    section 3).

    chosen, rejected: (P,) log-probs of the whole answer.
    """
    return dpo(chosen, rejected, beta, label_smoothing)


def _log_odds(logprobs: Tensor) -> Tensor:
    logprobs = logprobs.clamp(max=HIGHEST_LOGPROB)
    return logprobs - torch.log(-torch.expm1(logprobs))
