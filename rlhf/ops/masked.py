"""Reductions over the entries that a mask selects. What lies outside the mask, NaN included, never reaches a result."""

from __future__ import annotations

import torch
from torch import Tensor


def sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the selected entries, over all dimensions or over `dim`; 0 where none is selected.

    values, mask: same shape, mask bool.
    """
    # torch.where and not a product, since NaN * 0 is NaN
    return torch.where(mask, values, 0).sum(dim=dim)


def mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the selected entries, over all dimensions or over `dim`; 0 where none is selected."""
    return sum(values, mask, dim) / mask.sum(dim=dim).clamp(min=1)


def variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance (n - 1) of all selected entries; 0 where fewer than two are selected."""
    # NaN must be gone before the square: its gradient would be 0 * NaN
    values = torch.where(mask, values, 0)
    squares = (values - mean(values, mask)).square()
    return sum(squares, mask) / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Selected entries scaled to unit variance and, with `shift_mean`, moved to mean 0; 0 outside the mask."""
    values = torch.where(mask, values, 0)
    average = mean(values, mask)
    whitened = (values - average) * torch.rsqrt(variance(values, mask) + eps)
    if not shift_mean:
        whitened = whitened + average
    return torch.where(mask, whitened, 0)
