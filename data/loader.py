"""The order in which a data set's units are visited."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.errors import UserError


@dataclass(frozen=True)
class Order:
    """A new seeded permutation each epoch. Which units a step takes depends on (seed, step) alone, so a resumed run needs
    the step's number and nothing else.

    The last units of an epoch that do not fill a batch are left out, so that every step weighs the same; since each epoch
    is shuffled anew, they are other units every time. Raises UserError where there are fewer units than a batch takes.
    """

    units: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.units < self.batch_size:
            raise UserError(
                f"a step takes {self.batch_size} rows, but the data has {self.units} to train on: lower the batch size "
                "(batch_size, for rl prompts_per_step) or bring more rows"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.units // self.batch_size

    def indices(self, step: int) -> list[int]:
        """The units of this step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return _recent(self.units, self.seed, epoch)[place * self.batch_size : (place + 1) * self.batch_size].tolist()


def permutation(units: int, seed: int, epoch: int) -> np.ndarray:
    """(units,) int64: the order in which this epoch visits all units."""
    return np.random.default_rng((seed, epoch)).permutation(units)


_recent = lru_cache(maxsize=4)(permutation)
