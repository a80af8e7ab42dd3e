"""Losses, one value an item and never a mean: whoever calls them sums, and the engine divides by the global count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# exp(20) is 5e8, far beyond any clip; unbounded, exp overflows and its gradient is NaN even where it is clipped away
LARGEST_LOG_RATIO = 20.0


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


def clipped_policy(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), negated: (losses (B, T), clipped (B, T) bool), both 0
    outside the mask.

    logprobs, old_logprobs, advantages: (B, T). The ratio is clipped to [1 - clip_low, 1 + clip_high]. dual_clip: where
    the advantage is negative the loss stays below dual_clip * |advantage| (Ye et al. 2020, equation 5).
    """
    advantages = torch.where(mask, advantages, 0)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    free = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.maximum(free, bounded)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return losses, bounded > free


def clipped_value(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """Half the squared error, the larger of the free value's and that of the value kept within `clip` of the old one:
    (losses (B, T), clipped (B, T) bool), both 0 outside the mask. clip None: the free value's.

    values, old_values, returns: (B, T). Source: the PPO of OpenAI baselines, ppo2/model.py.
    """
    errors = torch.where(mask, values - returns, 0).square()
    if clip is None:
        return 0.5 * errors, torch.zeros_like(mask)
    bounded = values.clamp(old_values - clip, old_values + clip)
    bounded_errors = torch.where(mask, bounded - returns, 0).square()
    return 0.5 * torch.maximum(errors, bounded_errors), bounded_errors > errors
