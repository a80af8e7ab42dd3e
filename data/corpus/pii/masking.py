"""Replaces what finders find by numbered placeholders."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

PLACEHOLDER = re.compile(r"<([A-Z]+)_([0-9]{1,9})>")


class Found(NamedTuple):
    """A place, and what it says in a form that is the same for all ways to write it."""

    start: int
    stop: int
    value: str


Finder = Callable[[str], Iterable[Found]]  # in any order, of one kind of data


def mask(text: str, finders: Mapping[str, Finder]) -> tuple[str, dict[str, int]]:
    """The masked text, and how many places were masked by kind. Of places that overlap the earlier finder's is taken.

    Masking may uncover more, for what stood beside a place has a placeholder beside it now: goes on until nothing is found.
    """
    numbers: dict[tuple[str, str], int] = {}  # by kind and value
    highest: Counter[str] = Counter()
    for match in PLACEHOLDER.finditer(text):  # of an earlier masking: stay, and are not given to other values
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
    """(start, stop, kind, value), in order and apart from each other and from placeholders."""
    taken = [(match.start(), match.end()) for match in PLACEHOLDER.finditer(text)] if "<" in text else []
    places = []
    for kind, finder in finders.items():
        for start, stop, value in _apart(finder(text), taken):
            places.append((start, stop, kind, value))
    return sorted(places)


def _apart(found: Iterable[Found], taken: list[tuple[int, int]]) -> Iterator[Found]:
    """Those that touch no place of `taken`, which they join; it stays sorted."""
    for each in sorted(found):
        index = bisect_left(taken, (each.start, each.start))
        before = taken[index - 1][1] if index else 0
        after = taken[index][0] if index < len(taken) else each.stop
        if before <= each.start < each.stop <= after:
            taken.insert(index, (each.start, each.stop))
            yield each
