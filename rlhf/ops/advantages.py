"""From rewards to advantages: over the tokens of a sequence (GAE), or among the samples of one prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def token_rewards(scores: Tensor, penalties: Tensor, mask: Tensor) -> Tensor:
    """(B, T): minus the penalty on every selected token, and the score added on the row's last one; 0 outside the mask.

    scores: (B,). penalties: (B, T), coefficient included. mask: (B, T) bool; a row that selects no token gets nothing.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(1, keepdim=True)  # (B, 1)
    return torch.where(mask, -penalties, 0) + torch.where(mask & (positions == last), scores[:, None], 0)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16): (advantages, returns), each (B, T), 0
    outside the mask; returns = advantages + values.

    rewards, values: (B, T). mask: (B, T) bool. A token outside the mask is no step of the episode: the recursion skips
    over it, so the token before a hole is followed by the token after it. The row's last selected token ends it.
    """
    rewards = torch.where(mask, rewards, 0)
    values = torch.where(mask, values, 0)
    advantages = torch.zeros_like(rewards)
    advantage = next_value = rewards.new_zeros(len(rewards))  # (B,), of the next selected token
    for t in reversed(range(rewards.shape[1])):
        step = mask[:, t]
        error = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(step, error + gamma * lam * advantage, advantage)
        next_value = torch.where(step, values[:, t], next_value)
        advantages[:, t] = torch.where(step, advantage, 0)
    return advantages, advantages + values


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """(B, T): the token's own reward and those of the later tokens, each step discounted by gamma; 0 outside the mask.

    rewards: (B, T). mask: (B, T) bool, with holes as in `gae`.
    """
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)[0]


def on_tokens(gains: Tensor, mask: Tensor) -> Tensor:
    """(B,) -> (B, T): the row's number on each of its tokens that mask (B, T) selects, 0 elsewhere."""
    return torch.where(mask, gains[:, None], 0)


def group_centred(rewards: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """(B,): each reward minus its group's mean (Dr. GRPO, Liu et al. 2025).

    rewards: (B,). groups: row indices of each group; sizes may differ. A row in no group, or alone in one, gets 0, and so
    do the rows of a group whose rewards are all the same.
    """
    return _by_group(rewards, groups, lambda own: own - own.mean())


def group_normalised(rewards: Tensor, groups: Sequence[Tensor], eps: float = 1e-6) -> Tensor:
    """(B,): as `group_centred`, over the group's unbiased standard deviation plus eps (GRPO, Shao et al. 2024)."""
    return _by_group(rewards, groups, lambda own: (own - own.mean()) / (own.std() + eps))


def leave_one_out(rewards: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """(B,): each reward minus the mean of the others in its group (RLOO, Kool et al. 2019); groups as above."""
    return _by_group(rewards, groups, lambda own: (own - own.mean()) * len(own) / (len(own) - 1))


def batch_normalised(gains: Tensor, spread_of: Tensor, eps: float) -> Tensor:
    """(B,): gains over the unbiased standard deviation of `spread_of`, of all rows together, plus eps; 0 in a batch of
    one, or without a spread.

    gains, spread_of: (B,). Source: `scale_rewards="batch"` of TRL, after Lite PPO (Liu et al. 2025).
    """
    if len(gains) < 2 or not (spread := spread_of.std()) > 0:
        return torch.zeros_like(gains)
    return gains / (spread + eps)


def length_weighted_centred(rewards: Tensor, lengths: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """(B,): each reward minus its group's mean weighted by lengths, the baseline of the least variance where a row's
    squared gradient grows with its tokens (OPO, Hao et al. 2025); 0 as in `group_centred`.

    rewards: (B,). lengths: (B,), trained tokens of each row.
    """
    result = torch.zeros_like(rewards)
    for rows in groups:
        own, weights = rewards[rows], lengths[rows].to(rewards.dtype)
        if (own != own[0]).any():
            result[rows] = own - (weights * own).sum() / weights.sum().clamp(min=1)
    return result


def _by_group(rewards: Tensor, groups: Sequence[Tensor], advantage: Callable[[Tensor], Tensor]) -> Tensor:
    result = torch.zeros_like(rewards)
    for rows in groups:
        own = rewards[rows]
        if (own != own[0]).any():  # else rounding, over a spread of nearly 0, would pass for an advantage
            result[rows] = advantage(own)
    return result
