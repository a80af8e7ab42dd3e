"""Losses of policy and critic, one value an item and never a mean: whoever calls them sums, and the engine divides by the global count."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf.ops import masked
from rlhf.ops.kl import LARGEST_LOG_RATIO

Ratio = Literal["token", "sequence", "product"]


def probability_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, kind: Ratio = "token") -> Tensor:
    """(B, T): policy / policy before the step's updates; 1 outside the mask. Its logarithm is kept within 20.

    logprobs, old_logprobs: (B, T). kind: "token"; "sequence", the geometric mean over the row's tokens, whose gradient goes
    to each token as if the ratio were its own (GSPO-token, Zheng et al. 2025, equation 14); "product", that of the whole
    row, the same number on each of its tokens (RLOO, Ahmadian et al. 2024).
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)
    if kind == "sequence":
        average = masked.mean(log_ratio, mask, dim=1)[:, None]
        log_ratio = torch.where(mask, average.detach() + log_ratio - log_ratio.detach(), 0)
    elif kind == "product":
        log_ratio = torch.where(mask, log_ratio.sum(1, keepdim=True), 0)
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def clipped_policy(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    ratio: Ratio = "token",
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), negated: (losses (B, T), clipped (B, T) bool), both 0
    outside the mask.

    logprobs, old_logprobs, advantages: (B, T). The ratio is clipped to [1 - clip_low, 1 + clip_high]. dual_clip: where
    the advantage is negative the loss stays below dual_clip * |advantage| (Ye et al. 2020, equation 5).
    """
    advantages = torch.where(mask, advantages, 0)
    free_ratio = probability_ratio(logprobs, old_logprobs, mask, ratio)
    free = -advantages * free_ratio
    bounded = -advantages * free_ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = torch.maximum(free, bounded)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return losses, bounded > free


def cispo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float | None,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """REINFORCE weighted by the bounded ratio, through which no gradient flows, so that no token loses its own (MiniMax-M1
    2025, section 3.1): (losses (B, T), clipped (B, T) bool), both 0 outside the mask.

    logprobs, old_logprobs, advantages: (B, T). The ratio is kept in [1 - clip_low, 1 + clip_high]; clip_low None: it has no
    lower bound.
    """
    ratio = probability_ratio(logprobs.detach(), old_logprobs, mask)
    bounded = ratio.clamp(None if clip_low is None else 1 - clip_low, 1 + clip_high)
    return bounded * reinforce(logprobs, advantages, mask), bounded != ratio


def reinforce(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-advantage * log-prob (Williams 1992), (B, T), 0 outside the mask. logprobs, advantages: (B, T)."""
    return -torch.where(mask, advantages, 0) * torch.where(mask, logprobs, 0)


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
