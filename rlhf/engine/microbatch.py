"""Which rows share a micro-batch, and how it lies in packed rows. What the model reads of it is in inputs.py."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from data.batch import Batch
from data.packing import pack
from rlhf.interfaces import Unit


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
