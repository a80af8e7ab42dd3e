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


def group_centred(rewards: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """(B,): each reward minus its group's mean (Dr. GRPO, Liu et al. 2025).

    rewards: (B,). groups: row indices of each group; sizes may differ. A row in no group, or alone in one, gets 0.
    """
    return _by_group(rewards, groups, lambda own: own - own.mean())


def group_normalised(rewards: Tensor, groups: Sequence[Tensor], eps: float = 1e-6) -> Tensor:
    """(B,): as `group_centred`, over the group's unbiased standard deviation plus eps (GRPO, Shao et al. 2024)."""
    return _by_group(rewards, groups, lambda own: (own - own.mean()) / (own.std() + eps))


def leave_one_out(rewards: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """(B,): each reward minus the mean of the others in its group (RLOO, Kool et al. 2019); groups as above."""
    return _by_group(rewards, groups, lambda own: (own - own.mean()) * len(own) / (len(own) - 1))


def _by_group(rewards: Tensor, groups: Sequence[Tensor], advantage: Callable[[Tensor], Tensor]) -> Tensor:
    result = torch.zeros_like(rewards)
    for rows in groups:
        if len(rows) > 1:
            result[rows] = advantage(rewards[rows])
    return result
