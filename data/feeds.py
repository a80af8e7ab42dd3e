"""Feeds: training rows as an endless sequence, in which number n always gives the same unit. So numbers alone suffice for exact
resume, for batches that grow and for batches that are skipped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby
from typing import Protocol

import numpy as np

from data.batch import Batch
from data.errors import UserError
from data.examples import Examples
from data.tokens.mixture import Mixture
from data.unit import Example


class Feed(Protocol):
    """Gives the unit of each number: a row, a comparison's rows, or a window's documents."""

    @property
    def pass_rows(self) -> int:
        """How many numbers one pass over the data has."""

    @property
    def rows_of_largest_unit(self) -> int:
        """The most rows that must stay together in a micro-batch."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The rows of these numbers' units."""

    def rows(self, number: int) -> list[Example]:
        """One unit's rows, without padding."""

    def epochs(self, rows: int) -> dict[str, float]:
        """{data set: passes over it} in the first `rows` numbers; {} for a single set in memory."""


@dataclass(frozen=True)
class Order:
    """The units of a data set as an endless sequence. Each pass visits `per_pass` of the `units` in a new permutation, which
    depends on the seed and the number of the pass alone. The units that a pass leaves out differ from pass to pass.

    Raises ValueError where `per_pass` is not from 1 to `units`.
    """

    units: int
    per_pass: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.per_pass <= self.units:
            raise ValueError(f"a pass over {self.units} units cannot take {self.per_pass}")

    @classmethod
    def of_batches(cls, units: int, batch_size: int, seed: int) -> Order:
        """An order whose passes hold only full batches. Raises UserError where there are fewer units than a batch takes."""
        if units < batch_size:
            raise UserError(
                f"a step takes {batch_size} rows, but the data has {units} to train on: lower the batch size "
                "(batch_size, for rl prompts_per_step) or bring more rows"
            )
        return cls(units, units - units % batch_size, seed)

    def units_of(self, numbers: Iterable[int]) -> list[int]:
        """The unit at each of these numbers, which count from 0 over all passes."""
        places = [divmod(number, self.per_pass) for number in numbers]
        return [int(self._permutation(number)[place]) for number, place in places]

    def batch(self, step: int, size: int) -> list[int]:
        """The units of a step, counted from 0, where each step takes `size`."""
        return self.units_of(range(step * size, (step + 1) * size))

    @cached_property
    def _permutation(self):
        # two passes are kept, since a batch may end one and begin the next
        return lru_cache(maxsize=2)(partial(permutation, self.units, self.seed))


def permutation(units: int, seed: int, number: int) -> np.ndarray:
    """(units,) int64: all units in the order of pass `number`."""
    return np.random.default_rng((seed, number)).permutation(units)


@dataclass(frozen=True)
class Shuffled:
    """A data set in memory, visited in an `Order` of which each pass takes `per_pass` units."""

    examples: Examples
    per_pass: int
    seed: int

    def __post_init__(self) -> None:
        _ = self._order  # raises ValueError where `per_pass` does not fit

    @property
    def pass_rows(self) -> int:
        return self.per_pass

    @property
    def rows_of_largest_unit(self) -> int:
        return self.examples.rows_of_largest_unit

    def batch(self, numbers: Sequence[int]) -> Batch:
        return self.examples.batch(self._order.units_of(numbers))

    def rows(self, number: int) -> list[Example]:
        return self.examples.rows(*self._order.units_of([number]))

    def epochs(self, rows: int) -> dict[str, float]:
        return {}

    @cached_property
    def _order(self) -> Order:
        return Order(len(self.examples), self.per_pass, self.seed)


@dataclass(frozen=True)
class Blend:
    """Several data sets in the shares of a mixture, whose sources are the feeds and whose windows are their rows of one pass.
    Each row's meta names its `data_set`.

    Raises UserError where the sets' rows have different columns: no objective could read them all.
    """

    feeds: Mapping[str, Feed]
    mixture: Mixture

    def __post_init__(self) -> None:
        columns = {name: set(self.feeds[name].batch([0]).columns) for name in self.mixture.drawn}
        every, shared = set().union(*columns.values()), set.intersection(*columns.values())
        for name, own in columns.items():
            if missing := every - own:
                having = ", ".join(other for other, found in columns.items() if found & missing)
                raise UserError(
                    f"data.mix.{name}: its rows lack {', '.join(sorted(missing))}, which {having} has: mix only data sets of the "
                    "same columns"
                )
        if "group_ids" in shared:
            raise ValueError("comparisons cannot be blended: their group_ids are numbered within a set's batch")

    @property
    def pass_rows(self) -> int:
        return self.mixture.pass_rows

    @property
    def rows_of_largest_unit(self) -> int:
        return max(self.feeds[name].rows_of_largest_unit for name in self.mixture.drawn)

    def batch(self, numbers: Sequence[int]) -> Batch:
        located = [self.mixture.locate(number) for number in numbers]
        runs = groupby(located, key=lambda found: found[0])
        return Batch.cat([self._part(name, [number for _, number in run]) for name, run in runs])

    def rows(self, number: int) -> list[Example]:
        name, drawn = self.mixture.locate(number)
        return [replace(row, meta={**row.meta, "data_set": name}) for row in self.feeds[name].rows(drawn)]

    def epochs(self, rows: int) -> dict[str, float]:
        """By data set, and for a corpus also by `set/source`."""
        given = self.mixture.rows_before(rows)
        passes = {name: given[name] / self.feeds[name].pass_rows for name in self.mixture.drawn}
        inner = {name: self.feeds[name].epochs(given[name]) for name in self.mixture.drawn}
        return passes | {f"{name}/{source}": count for name, found in inner.items() for source, count in found.items()}

    def _part(self, name: str, numbers: list[int]) -> Batch:
        batch = self.feeds[name].batch(numbers)
        return replace(batch, meta=tuple({**meta, "data_set": name} for meta in batch.meta))


def seed_of(seed: int, name: str) -> int:
    """The seed of a named data set's order. Two sets of the same rows get different orders."""
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return int(np.random.SeedSequence((seed, digest)).generate_state(1, np.uint64)[0])


def shares(
    rows: Mapping[str, int],
    weights: Mapping[str, float],
    caps: Mapping[str, int] | None = None,
    temperature: float = 1.0,
) -> dict[str, float]:
    """{data set: weight}. Sets without a given weight share the rest up to 1, in proportion to min(rows, cap) ** (1 / temperature)
    (examples-proportional mixing with a limit and a temperature, Raffel et al. 2020, section 3.5.2; FLAN has the same caps, Wei
    et al. 2022, section 2.4). rows: of one pass."""
    caps = caps or {}
    others = {
        name: min(count, caps.get(name, count)) ** (1 / temperature)
        for name, count in rows.items()
        if name not in weights
    }
    left, total = max(1 - sum(weights.values()), 0.0), sum(others.values()) or 1
    return {name: weights[name] if name in weights else left * others[name] / total for name in rows}
