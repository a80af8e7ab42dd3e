"""The row numbers of each optimizer step, with growing batches (a ramp) and skipped batches. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from data.errors import UserError
from rlhf.config.schema import SupervisedPhase


@dataclass(frozen=True)
class StepPlan:
    """Rows are numbered over all epochs (`data.feeds`). Batches grow linearly from `first_size` to `batch_size` rows
    over the first `ramp_rows` rows, in multiples of `first_size` (Brown et al. 2020, section 2.3). Without a ramp, all
    have `batch_size` rows."""

    batch_size: int
    first_size: int
    ramp_rows: int = 0

    @classmethod
    def of(cls, phase: SupervisedPhase, rows: int) -> StepPlan:
        """rows: of one epoch. Raises UserError where a step takes more rows."""
        if rows < phase.batch_size:
            raise UserError(
                f"a step takes {phase.batch_size} rows, but the data has {rows} to train on: lower "
                f"phases.{phase.name}.batch_size or bring more rows"
            )
        if phase.ramp is None:
            return cls(phase.batch_size, phase.batch_size)
        return cls(phase.batch_size, phase.ramp.batch_size, -(-phase.ramp.tokens // phase.max_length))

    def size(self, step: int) -> int:
        """The number of rows of the step, counted from 0."""
        return self.before(step + 1) - self.before(step)

    def before(self, step: int) -> int:
        """The number of rows of all steps before this step."""
        ramp = self._ramp
        if step < len(ramp):
            return ramp[step]
        return ramp[-1] + (step - len(ramp) + 1) * self.batch_size

    def numbers(self, step: int, skipped: int = 0) -> range:
        """The row numbers of the step, after `skipped` rows were skipped."""
        return range(self.before(step) + skipped, self.before(step + 1) + skipped)

    def steps(self, rows: int) -> int:
        """How many complete steps these rows make."""
        beyond = rows - self._ramp[-1]
        if beyond < 0:
            return bisect_left(self._ramp, rows + 1) - 1
        return len(self._ramp) - 1 + beyond // self.batch_size

    @cached_property
    def _ramp(self) -> list[int]:
        """The number of rows before each step, up to the first step with batch_size rows."""
        starts = [0]
        while starts[-1] < self.ramp_rows:
            grown = (self.batch_size - self.first_size) * starts[-1] // self.ramp_rows
            starts.append(starts[-1] + self.first_size + grown // self.first_size * self.first_size)
        return starts
