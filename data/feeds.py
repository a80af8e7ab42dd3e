"""Training rows as an endless sequence: what number n gives is a pure function of n, so that exact resume, batches whose size
grows and batches that are skipped need nothing but numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import groupby
from typing import Protocol

import numpy as np

from data.batch import Batch
from data.errors import UserError
from data.examples import Examples
from data.loader import permutation
from data.tokens.mixture import Mixture
from data.unit import Example


class Feed(Protocol):
    """A number stands for one unit of the training: a row, a comparison's rows, a window with all documents in it."""

    @property
    def pass_rows(self) -> int:
        """The numbers of one pass over the data."""
        ...

    @property
    def rows_of_largest_unit(self) -> int:
        """How many rows must stay together in a micro-batch at most."""
        ...

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The units of these numbers under each other."""
        ...

    def rows(self, number: int) -> list[Example]:
        """One unit's rows, not padded."""
        ...

    def epochs(self, rows: int) -> dict[str, float]:
        """How often each data set has been passed after the first so many numbers; {} for a single plain set."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """A data set in memory, each pass in a new permutation. per_epoch: how many units a pass takes, those that the permutation
    leaves over being others every time."""

    examples: Examples
    per_epoch: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.per_epoch <= len(self.examples):
            raise ValueError(f"a pass over {len(self.examples)} units cannot take {self.per_epoch}")

    @property
    def pass_rows(self) -> int:
        return self.per_epoch

    @property
    def rows_of_largest_unit(self) -> int:
        return self.examples.rows_of_largest_unit

    def batch(self, numbers: Sequence[int]) -> Batch:
        places = [divmod(number, self.per_epoch) for number in numbers]
        return self.examples.batch([int(self._order(epoch)[place]) for epoch, place in places])

    def rows(self, number: int) -> list[Example]:
        epoch, place = divmod(number, self.per_epoch)
        return self.examples.rows(int(self._order(epoch)[place]))

    def epochs(self, rows: int) -> dict[str, float]:
        return {}

    @cached_property
    def _order(self):
        """(units,) int64 of a pass; two are kept, since a batch may end one and begin the next."""
        return lru_cache(maxsize=2)(partial(permutation, len(self.examples), self.seed))


@dataclass(frozen=True)
class Blend:
    """Several data sets in the mixture's shares; its sources are the feeds, its windows their rows of one pass. meta says of
    each row its `data_set`.

    Raises UserError where the sets' rows have different columns, which no one objective could read.
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
                    f"data.mix.{name}: its rows have no {', '.join(sorted(missing))}, as those of {having} have: mix only rows "
                    "that the phase's objective reads alike"
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
        """By set; of a corpus also by `set/source`."""
        given = self.mixture.rows_before(rows)
        passes = {name: given[name] / self.feeds[name].pass_rows for name in self.mixture.drawn}
        inner = {name: self.feeds[name].epochs(given[name]) for name in self.mixture.drawn}
        return passes | {f"{name}/{source}": count for name, found in inner.items() for source, count in found.items()}

    def _part(self, name: str, numbers: list[int]) -> Batch:
        batch = self.feeds[name].batch(numbers)
        return replace(batch, meta=tuple({**meta, "data_set": name} for meta in batch.meta))


def seed_of(seed: int, name: str) -> int:
    """Of a named data set's order, so that two sets made of the same rows do not show the same row at the same time."""
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return int(np.random.SeedSequence((seed, digest)).generate_state(1, np.uint64)[0])


def shares(
    rows: Mapping[str, int],
    weights: Mapping[str, float],
    caps: Mapping[str, int] | None = None,
    temperature: float = 1.0,
) -> dict[str, float]:
    """A weight for every data set: those that have none share what is left up to 1, by min(rows, cap) ** (1 / temperature)
    (examples-proportional mixing with a limit and a temperature, Raffel et al. 2020, section 3.5.2; FLAN caps alike, Wei et al.
    2022, section 2.4). rows: of one pass."""
    caps = caps or {}
    others = {
        name: min(count, caps.get(name, count)) ** (1 / temperature)
        for name, count in rows.items()
        if name not in weights
    }
    left, total = max(1 - sum(weights.values()), 0.0), sum(others.values()) or 1
    return {name: weights[name] if name in weights else left * others[name] / total for name in rows}
