"""The source of each row of a training, as a pure function of the row's number.

Row r has the point frac(r / golden ratio + offset) of a low-discrepancy sequence (Weyl 1916; Niederreiter 1992, section 3.1) and
takes the source whose share of [0, 1) contains the point. So every stretch of rows has nearly the wanted shares. The number of
rows of a source before any row is a sum with a closed form, so exact resume needs no stored state.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from data.errors import UserError

ONE = 2**64  # points are 64-bit fractions, as integers: the same on every machine
GOLDEN = 11400714819323198485  # 2**64 / golden ratio, rounded to an odd integer
SCHEDULE_STEPS = 1000  # a schedule's weights are constant over a thousandth of the training


@dataclass(frozen=True)
class Mixture:
    """windows: {source: rows in one pass}.
    weights: {source: weight}, of any scale. None: in proportion to windows ** (1 / temperature) (Conneau and Lample 2019, section
        3.1; Xue et al. 2021, mT5, section 3.2); temperature 1 is proportional to size, higher ones favour small sources.
    schedule: instead of weights, (share of the training done, weights), ascending. Linear in between, constant before the first
        and after the last entry, in `SCHEDULE_STEPS` steps.
    total_rows: rows of the whole training, by default one pass; the end of the schedule. Later rows keep the last weights.

    Raises UserError where weights do not fit the sources.
    """

    windows: Mapping[str, int]
    weights: Mapping[str, float] | None = None
    temperature: float = 1.0
    schedule: Sequence[tuple[float, Mapping[str, float]]] = ()
    total_rows: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule and self.weights is not None:
            raise UserError("mixture: both weights and a schedule of weights are given; keep one of them")
        if not self.temperature > 0:
            raise UserError(f"mixture.temperature is {self.temperature}; it must be above 0")
        shares = [share for share, _ in self.schedule]
        if shares != sorted(set(shares)) or not all(0 <= share <= 1 for share in shares):
            raise UserError(f"mixture.schedule: shares of the training must ascend from 0 to 1, not {shares}")
        for weights in self._given():
            self._check(weights)
        if not self._given() and not any(self.windows.values()):
            raise UserError("mixture: no source has any tokens to train on")

    @property
    def drawn(self) -> list[str]:
        """The sources with rows in the training: those with windows, and with a weight above 0 at some time."""
        given = self._given()
        return [
            source
            for source, n in self.windows.items()
            if n and (not given or any(weights[source] for weights in given))
        ]

    @property
    def pass_rows(self) -> int:
        """The rows of one pass: all windows of the drawn sources."""
        return sum(self.windows[source] for source in self.drawn)

    @cached_property
    def _total_rows(self) -> int:
        return self.pass_rows if self.total_rows is None else max(self.total_rows, 1)

    def _given(self) -> list[Mapping[str, float]]:
        return [weights for _, weights in self.schedule] or ([] if self.weights is None else [self.weights])

    def locate(self, row: int) -> tuple[str, int]:
        """(source of the row, the row's number among this source's rows, from 0 over the whole training)."""
        piece = self._piece(row)
        source = bisect_right(self._bounds[piece], self._point(row)) - 1
        return self.sources[source], self._rows_before(source, row, piece)

    def rows_before(self, row: int) -> dict[str, int]:
        """{source: its rows before this row}."""
        piece = self._piece(row)
        return {source: self._rows_before(number, row, piece) for number, source in enumerate(self.sources)}

    def epochs(self, rows: int) -> dict[str, float]:
        """{source: passes over it in the first `rows` rows}, as fractions."""
        return {source: count / max(self.windows[source], 1) for source, count in self.rows_before(rows).items()}

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(self.windows)

    def shares(self, done: float) -> dict[str, float]:
        """{source: its share} after this share of the training; the sum is 1."""
        if self.schedule:
            at = [share for share, _ in self.schedule]
            weights = [float(np.interp(done, at, [w[source] for _, w in self.schedule])) for source in self.windows]
        elif self.weights is not None:
            weights = [float(self.weights[source]) for source in self.windows]
        else:
            largest = max(self.windows.values())
            weights = [(count / largest) ** (1 / self.temperature) for count in self.windows.values()]
        total = math.fsum(weights)
        return {source: weight / total for source, weight in zip(self.windows, weights, strict=True)}

    def _check(self, weights: Mapping[str, float]) -> None:
        for source in self.windows:
            if source not in weights:
                raise UserError(f"mixture: no weight for source {source!r}; give it 0 to leave it out")
        for source, weight in weights.items():
            if source not in self.windows:
                raise UserError(f"mixture: there is no source {source!r}; the sources are {', '.join(self.windows)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"mixture: the weight of {source!r} is {weight}; it must be 0 or more")
            if weight > 0 and not self.windows[source]:
                raise UserError(f"mixture: source {source!r} has no tokens to train on; give it weight 0")
        if not any(weights.values()):
            raise UserError("mixture: all weights are 0")

    def _piece(self, row: int) -> int:
        """The number of the row's stretch: rows with the same weights."""
        return bisect_right(self._starts, row) - 1

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each stretch."""
        if not self.schedule:
            return [0]
        return sorted({step * self._total_rows // SCHEDULE_STEPS for step in range(SCHEDULE_STEPS)})

    @cached_property
    def _bounds(self) -> list[list[int]]:
        """(stretches, sources + 1): source s has the points from bounds[s] up to bounds[s + 1]."""
        ends = [*self._starts[1:], max(self._total_rows, self._starts[-1] + 1)]
        middles = [(start + end) / 2 / self._total_rows for start, end in zip(self._starts, ends, strict=True)]
        return [self._bounds_at(middle) for middle in middles]

    def _bounds_at(self, done: float) -> list[int]:
        shares = list(self.shares(done).values())
        bounds = [min(int(end * ONE), ONE) for end in accumulate(shares, initial=0.0)]
        last = max(number for number, share in enumerate(shares) if share > 0)
        return bounds[: last + 1] + [ONE] * (len(bounds) - last - 1)  # a sum of floats may end below 1

    @cached_property
    def _before_stretch(self) -> list[list[int]]:
        """(stretches, sources): rows of each source before the stretch."""
        counts = [[0] * len(self.windows)]
        for (start, bounds), stop in zip(zip(self._starts, self._bounds), self._starts[1:]):
            given = [self._points_in(*bounds[number : number + 2], start, stop) for number in range(len(self.windows))]
            counts.append([before + more for before, more in zip(counts[-1], given, strict=True)])
        return counts

    def _rows_before(self, source: int, row: int, piece: int) -> int:
        lower, upper = self._bounds[piece][source : source + 2]
        return self._before_stretch[piece][source] + self._points_in(lower, upper, self._starts[piece], row)

    @cached_property
    def _offset(self) -> int:
        return int(np.random.default_rng(self.seed).integers(0, ONE, dtype=np.uint64))

    def _point(self, row: int) -> int:
        return (row * GOLDEN + self._offset) % ONE

    def _points_in(self, lower: int, upper: int, start: int, stop: int) -> int:
        """How many rows from start to stop have a point between the bounds. A difference of two sums, because
        [x mod m < bound] = floor(x / m) - floor((x - bound) / m)."""
        first, count = self._point(start), stop - start
        return sum_of_floors(count, ONE, GOLDEN, first - lower) - sum_of_floors(count, ONE, GOLDEN, first - upper)


def sum_of_floors(count: int, divisor: int, factor: int, offset: int) -> int:
    """The sum of floor((factor * i + offset) / divisor) for i from 0 to count - 1, in time logarithmic in count.

    By the reciprocity of these sums (Graham, Knuth and Patashnik, Concrete Mathematics, section 3.5): take out whole multiples,
    then count the rest along the other axis, a sum of the same form with factor and divisor swapped.
    """
    total, sign = 0, 1
    while count > 0:
        whole, factor = divmod(factor, divisor)
        rest, offset = divmod(offset, divisor)
        total += sign * (whole * (count * (count - 1) // 2) + rest * count)
        height = (factor * (count - 1) + offset) // divisor  # value of the last term
        if height == 0:
            break
        # each i counts the levels 1 … height at or below its line, and reaches level j + 1 from i = ceil((divisor (j + 1) - offset) / factor) on
        total += sign * count * height
        sign, offset = -sign, divisor - offset + factor - 1
        count, divisor, factor = height, factor, divisor
    return total
