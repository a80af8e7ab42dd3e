"""Replaces personal data by numbered placeholders."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

PLACEHOLDER = re.compile(r"<([A-Z]+)_([0-9]{1,9})>")


class PiiSpan(NamedTuple):
    """The span of one value in a text, and the value in a normal form, the same for all spellings."""

    start: int
    stop: int
    value: str


Finder = Callable[[str], Iterable[PiiSpan]]  # finds one kind of data, in any order


def mask(text: str, finders: Mapping[str, Finder]) -> tuple[str, dict[str, int]]:
    """(masked text, number of masked places by kind). Of overlapping places, masks the one of the earlier finder.

    A placeholder may let a finder recognise its neighbour, so masking repeats until nothing is found.
    """
    numbers: dict[tuple[str, str], int] = {}  # by kind and value
    highest: Counter[str] = Counter()
    for match in PLACEHOLDER.finditer(text):  # of an earlier masking: their numbers are not given to other values
        highest[match[1]] = max(highest[match[1]], int(match[2]))
    counts: Counter[str] = Counter()
    while places := _places(text, finders):
        pieces, end = [], 0
        for start, stop, kind, value in places:
            name = kind.upper()
            if (kind, value) not in numbers:
                highest[name] += 1
                numbers[kind, value] = highest[name]
            pieces += [text[end:start], f"<{name}_{numbers[kind, value]}>"]
            end = stop
            counts[kind] += 1
        text = "".join([*pieces, text[end:]])
    return text, {kind: counts[kind] for kind in finders if counts[kind]}


def _places(text: str, finders: Mapping[str, Finder]) -> list[tuple[int, int, str, str]]:
    """(start, stop, kind, value), in order, without overlap with each other or with placeholders."""
    taken = [(match.start(), match.end()) for match in PLACEHOLDER.finditer(text)] if "<" in text else []
    places = []
    for kind, finder in finders.items():
        for start, stop, value in _apart(finder(text), taken):
            places.append((start, stop, kind, value))
    return sorted(places)


def _apart(found: Iterable[PiiSpan], taken: list[tuple[int, int]]) -> Iterator[PiiSpan]:
    """The spans that overlap no place of `taken`. Adds them to it, in order."""
    for each in sorted(found):
        index = bisect_left(taken, (each.start, each.start))
        before = taken[index - 1][1] if index else 0
        after = taken[index][0] if index < len(taken) else each.stop
        if before <= each.start < each.stop <= after:
            taken.insert(index, (each.start, each.stop))
            yield each
