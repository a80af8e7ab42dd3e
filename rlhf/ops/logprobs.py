"""Log-probabilities of tokens, and the only place that shifts by one: a model's output at t speaks about token t + 1,
every column t of this project speaks about token t."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Beside = Literal["entropy", "normalizer"] | None  # what comes with the log-probs
KEPT_BYTES = 2**26  # of log-probs over the whole vocabulary, which the backward pass then need not compute again


def shift_right(outputs: Tensor) -> Tensor:
    """(B, T) of a model's outputs, whose column t speaks about token t + 1 -> (B, T) about token t; column 0 is 0."""
    return functional.pad(outputs, (1, 0))[:, :-1]


def shift_left(columns: Tensor) -> Tensor:
    """(B, T) about token t -> (B, T) at the position that predicts it, t - 1; the last column is 0.

    Of a mask of tokens it makes the mask of the hidden states that predict them, in the same row-major order.
    """
    return functional.pad(columns, (0, 1))[:, 1:]


def logprobs_from_logits(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(tokens[b, t] | tokens[b, < t]), (B, T) at least fp32, from a model's logits (B, T, V); column 0 is 0."""
    distribution = _log_softmax(logits, temperature)
    chosen = shift_left(tokens.long())[..., None]
    return shift_right(distribution.gather(-1, chosen).squeeze(-1))


def entropy_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of the distribution that token t was drawn from, (B, T) at least fp32, from a model's logits
    (B, T, V); column 0 is 0."""
    distribution = _log_softmax(logits, temperature)
    return shift_right(-(distribution.exp() * distribution).sum(-1))


def selected_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
    bias: Tensor | None = None,
) -> Tensor:
    """log softmax((hidden @ weight.T + bias) / temperature) at `targets`: (N,), fp32 or fp64.

    hidden: (N, D), the states that predict the targets, in weight's dtype. weight: (V, D). targets: (N,) int.
    Holds the logits of `chunk_tokens` tokens at a time, in the forward pass and in the backward pass, which computes
    them again where all of them would take more than `KEPT_BYTES`; so peak memory does not grow with N x V. N = 0 is allowed
    and keeps the graph.
    """
    return _Distribution.apply(hidden, weight, bias, targets.long(), temperature, chunk_tokens, None)[0]


def selected_logprobs_and_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selected_logprobs`, and the entropy in nats of the distributions that the targets are drawn from: (N,) each."""
    return _Distribution.apply(hidden, weight, bias, targets.long(), temperature, chunk_tokens, "entropy")[:2]


def selected_logprobs_and_normalizer(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selected_logprobs`, and log Z = logsumexp((hidden @ weight.T + bias) / temperature) that they were normalised by: (N,)
    each, with gradients through both."""
    selected, _, normalizer = _Distribution.apply(
        hidden, weight, bias, targets.long(), temperature, chunk_tokens, "normalizer"
    )
    return selected, normalizer


class _Distribution(torch.autograd.Function):
    """Selected logit minus logsumexp, and, as `beside` asks, the entropy or the logsumexp itself; saves (N,) tensors beside its
    inputs, and all log-probs only where they are few."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, chunk_tokens, beside: Beside):
        normalizer = hidden.new_empty(len(hidden), dtype=_wide(hidden.dtype))
        selected = torch.empty_like(normalizer)
        entropy = torch.empty_like(normalizer) if beside == "entropy" else None
        size = len(hidden) * len(weight) * normalizer.element_size()
        kept: list[Tensor] | None = [] if any(ctx.needs_input_grad) and size <= KEPT_BYTES else None
        for rows in _chunks(len(hidden), chunk_tokens):
            logits = _logits(hidden[rows], weight, bias, temperature)
            normalizer[rows] = logits.logsumexp(-1)
            selected[rows] = logits.gather(-1, targets[rows, None]).squeeze(-1)
            if kept is not None or entropy is not None:
                logprobs = logits.sub_(normalizer[rows, None])
            if kept is not None:
                kept.append(logprobs)
            if entropy is not None:
                entropy[rows] = -(logprobs.exp() * logprobs).sum(-1)
        # weight itself and no view of it: ZeRO-3 swaps the data of the parameter between the two passes
        ctx.save_for_backward(hidden, weight, bias, targets, normalizer, entropy)
        ctx.temperature, ctx.chunk_tokens, ctx.kept = temperature, chunk_tokens, kept
        return selected - normalizer, entropy, normalizer if beside == "normalizer" else None

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, entropy_gradient, normalizer_gradient):
        hidden, weight, bias, targets, normalizer, entropy = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        # sums over chunks are wide: bf16 would lose a small chunk beside the sum of many
        d_hidden = torch.empty_like(hidden) if for_hidden else None
        d_weight = torch.zeros_like(weight, dtype=normalizer.dtype) if for_weight else None
        d_bias = torch.zeros_like(bias, dtype=normalizer.dtype) if for_bias else None
        for number, rows in enumerate(_chunks(len(hidden), ctx.chunk_tokens)):
            if ctx.kept is None:
                logprobs = _logits(hidden[rows], weight, bias, ctx.temperature).sub_(normalizer[rows, None])
            else:
                logprobs = ctx.kept[number]
            scale = gradient[rows, None]
            # d log p(target) / d logits = one-hot(target) - p;  d entropy / d logits = -p (log p + entropy);
            # d log Z / d logits = p
            factor = -scale
            if entropy is not None:
                factor = factor - entropy_gradient[rows, None] * (logprobs + entropy[rows, None])
            if normalizer_gradient is not None:
                factor = factor + normalizer_gradient[rows, None]
            d_logits = logprobs.exp().mul_(factor)
            d_logits.scatter_add_(-1, targets[rows, None], scale)
            if ctx.temperature != 1:
                d_logits.div_(ctx.temperature)
            if for_bias:
                d_bias += d_logits.sum(0)
            d_logits = d_logits.to(weight.dtype)
            if for_hidden:
                d_hidden[rows] = d_logits @ weight
            if for_weight:
                d_weight += d_logits.T @ hidden[rows]
        narrow = [None if d is None else d.to(weight.dtype) for d in (d_weight, d_bias)]
        return d_hidden, *narrow, None, None, None, None


def _chunks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, rows, size))


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """(N, V), at least fp32, a fresh tensor."""
    logits = functional.linear(hidden, weight, bias)
    logits = logits.to(_wide(logits.dtype))
    return logits if temperature == 1 else logits.div_(temperature)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits.to(_wide(logits.dtype)) / temperature, dim=-1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
