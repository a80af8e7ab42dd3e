"""Spreads rows evenly over shards and packs sequences into rows of fixed length. Pure functions of costs and lengths."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def balance(costs: Sequence[int], parts: int) -> list[list[int]]:
    """Splits items into `parts` lists of about equal cost; the counts are equal where `parts` divides the number of items.

    Puts the most expensive item first onto the cheapest part with room (LPT scheduling, Graham 1969). Each item is in one part,
    and each part's indices ascend.
    """
    room = -(-len(costs) // parts)
    heap = [(0, part) for part in range(parts)]
    result: list[list[int]] = [[] for _ in range(parts)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, part = heapq.heappop(heap)
        result[part].append(item)
        if len(result[part]) < room:
            heapq.heappush(heap, (load + costs[item], part))
    return [sorted(part) for part in result]


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Packs sequences into rows of at most `row_tokens` tokens by first-fit decreasing (Johnson 1973), which takes at most 11/9
    of the fewest possible rows, plus one.

    Raises ValueError where a sequence is longer than a row.
    """
    rows: list[list[int]] = []
    space: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[item]
        if length > row_tokens:
            raise ValueError(f"a sequence of {length} tokens does not fit a row of {row_tokens}")
        for row, free in enumerate(space):
            if length <= free:
                rows[row].append(item)
                space[row] -= length
                break
        else:
            rows.append([item])
            space.append(row_tokens - length)
    return rows
