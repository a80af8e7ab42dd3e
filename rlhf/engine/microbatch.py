"""Which rows share a micro-batch, how it lies in packed rows, and what the model says of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from data.batch import Batch
from data.packing import pack
from rlhf.interfaces import Output, Unit
from rlhf.ops.logprobs import shift_left


def lay_out(lengths: Sequence[int], packing: bool) -> list[list[int]]:
    """The documents of each packed row; rows are as long as the longest document, so that a document costs attention
    over at most that many tokens whatever the micro-batch holds. Without `packing`, one document a row."""
    if not packing:
        return [[document] for document in range(len(lengths))]
    return pack(lengths, max(lengths, default=0))


def padded_tokens(lengths: Sequence[int], packing: bool) -> int:
    """Tokens that the model sees when these documents make one micro-batch, padding included."""
    return len(lay_out(lengths, packing)) * max(lengths, default=0)


def units_of(batch: Batch, unit: Unit) -> list[list[int]]:
    """The rows that must share a micro-batch: those of one group where pairs are counted, else each row alone."""
    return [rows.tolist() for rows in batch.groups()] if unit == "pairs" else [[row] for row in range(len(batch))]


def count_of(batch: Batch, unit: Unit) -> int:
    """Trained tokens, rows, or groups of rows."""
    return int(batch.action_mask.sum()) if unit == "tokens" else len(units_of(batch, unit))


def split(lengths: Sequence[int], units: Sequence[Sequence[int]], budget: int, packing: bool = True) -> list[list[int]]:
    """The rows of each micro-batch, each at most `budget` tokens with its padding.

    lengths: tokens of each row. units: the rows that must stay together, adjacent and in this order; each row once.
    Units of like length go together (longest first), so that rows are short where documents are and little is padding.
    Raises ValueError where one unit alone is over the budget.
    """
    left = sorted(units, key=lambda unit: -max(lengths[row] for row in unit))
    microbatches = []
    while left:
        count = _fitting(lengths, left, budget, packing)
        if count == 0:
            raise ValueError(f"rows of {[lengths[row] for row in left[0]]} tokens must share a micro-batch of {budget}")
        microbatches.append([row for unit in left[:count] for row in unit])
        left = left[count:]
    return microbatches


def _fitting(lengths: Sequence[int], units: Sequence[Sequence[int]], budget: int, packing: bool) -> int:
    """How many of the first units fit `budget` together; padding only adds to their tokens, which bounds the search."""
    totals = accumulate(sum(lengths[row] for row in unit) for unit in units)
    candidates = sum(total <= budget for total in totals)

    def cost(count: int) -> int:
        return padded_tokens([lengths[row] for unit in units[:count] for row in unit], packing)

    return bisect_right(range(1, candidates + 1), budget, key=cost)


@dataclass(frozen=True)
class Packed:
    """A micro-batch of b documents in R rows of L tokens."""

    tokens: Tensor  # (R, L) int64, 0 where no document lies
    positions: Tensor  # (R, L) int64, from 0 in each document; padding goes on counting, so that it begins none
    starts: Tensor  # (b,) int64, where each document begins in the flattened rows


def pack_documents(tokens: Tensor, lengths: Tensor, packing: bool = True) -> Packed:
    """tokens (b, T), lengths (b,) -> their packed rows; one row of one token where b = 0, for a rank without work must
    still run the model."""
    sizes = lengths.tolist()
    rows = lay_out(sizes, packing)
    shape = max(len(rows), 1), max(sizes, default=1)
    packed = torch.zeros(shape, dtype=torch.int64)
    positions = torch.arange(shape[1]).repeat(shape[0], 1)
    starts = torch.zeros(len(sizes), dtype=torch.int64)
    for row, documents in enumerate(rows):
        offset = 0
        for document in documents:
            size = sizes[document]
            packed[row, offset : offset + size] = tokens[document, :size]
            positions[row, offset:] = torch.arange(shape[1] - offset)
            starts[document] = row * shape[1] + offset
            offset += size
    return Packed(packed, positions, starts)


def outputs(
    model: nn.Module, microbatch: Batch, output: Output, temperature: float, packing: bool, device: torch.device
) -> Tensor:
    """(b, T), with entropies (2, b, T), 0 where action_mask is False; for "scores" (b,). On the device. model: an EngineModel,
    or DeepSpeed's wrapper of one. An empty micro-batch runs it, too: its ranks are waited for."""
    packed = pack_documents(microbatch.tokens, microbatch.lengths, packing)
    places = ending(microbatch, packed) if output == "scores" else predicting(microbatch, packed)
    targets = microbatch.tokens[microbatch.action_mask] if output.startswith("logprobs") else None
    inputs = [None if x is None else x.to(device) for x in (packed.tokens, packed.positions, places, targets)]
    out = model(*inputs, temperature, output == "logprobs_entropy")
    if output == "scores":
        return out
    mask = microbatch.action_mask.to(device)
    shape = (*out.shape[:-1], *mask.shape)
    return torch.zeros(shape, dtype=out.dtype, device=device).masked_scatter(mask.expand(shape), out)


def predicting(microbatch: Batch, packed: Packed) -> Tensor:
    """(N,) int64: where, in the flattened rows, the states before the N action tokens are, in row-major order."""
    places = packed.starts[:, None] + torch.arange(microbatch.width)
    return places[shift_left(microbatch.action_mask)[:, : microbatch.width]]  # the shift makes a column out of none


def ending(microbatch: Batch, packed: Packed) -> Tensor:
    """(b,) int64: where, in the flattened rows, each document's last token is."""
    return packed.starts + microbatch.lengths - 1
