"""Loss spikes: detects steps whose loss or gradient norm leaps above that of the last steps or is not finite, and
decides which batches to skip.

The run returns to its last checkpoint and skips the batches since then. A spike needs both a batch and a state of the
model: the same state mostly does not spike on other batches (Chowdhery et al. 2022, PaLM, section 5.1).
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import UserError
from rlhf.config.training import Spikes
from rlhf.phases.step_plan import StepPlan
from rlhf.rundir import write_atomically
from rlhf.skipped import expect_trained, failed, what_failed

TO_SIGMA = 1.4826  # standard deviation over median absolute deviation, for a normal distribution
# in logarithms; with a smaller spread, steps are so similar that every other step would count as a leap
LEAST_SPREAD = {"loss": 0.03, "grad_norm": 0.2}
FEWEST = 16  # the least number of steps to compare with
SETTLED = 5  # a leap within this many steps after a checkpoint may come from an update that the checkpoint contains


@dataclass(frozen=True)
class Incident:
    """One return to a checkpoint. Rows are numbered as in `data.feeds`."""

    step: int  # the failed step, counted from 1 as in metrics.jsonl
    reason: str
    loss: float | None  # None: not finite
    grad_norm: float | None
    back_to: int  # finished steps of the checkpoint
    skipped_from: int  # first skipped row
    skipped: int  # number of skipped rows

    def __str__(self) -> str:
        return f"{self.reason}; back to step {self.back_to}, past {self.skipped} rows"


class Detector:
    """Compares each step with the last `window` good steps, by the logarithms of loss and gradient norm."""

    def __init__(self, settings: Spikes, state: Mapping[str, Sequence[float]] | None = None) -> None:
        self.settings = settings
        self._seen = {name: deque((state or {}).get(name, ()), settings.window) for name in LEAST_SPREAD}

    def leap(self, metrics: Mapping[str, float]) -> str | None:
        """Which figure leapt and by how much, as a message; None for a good step, which counts for the next ones."""
        for name, seen in self._seen.items():
            if len(seen) < FEWEST:
                continue
            value, usual, spread = math.log(max(metrics[name], 1e-12)), *usual_of(seen, LEAST_SPREAD[name])
            if value > usual + self.settings.threshold * spread:
                return (
                    f"{name} leapt to {metrics[name]:.4g}, {(value - usual) / spread:.0f} deviations above {math.exp(usual):.4g}, "
                    f"by the last {len(seen)} steps"
                )
        for name, seen in self._seen.items():
            seen.append(math.log(max(metrics[name], 1e-12)))
        return None

    def state(self) -> dict[str, list[float]]:
        """For the checkpoint, as JSON values."""
        return {name: list(seen) for name, seen in self._seen.items()}


def usual_of(values: Sequence[float], least_spread: float) -> tuple[float, float]:
    """(median of the later half, standard deviation around the trend). The trend is the line through the medians of
    both halves (Tukey 1977, the resistant line); the deviation comes from the median absolute deviation. So a few leaps
    change neither, and a falling loss does not widen the spread. The trend is not extrapolated: a step is compared only
    with the values before it."""
    values = np.asarray(values)
    places, half = np.arange(len(values)), len(values) // 2
    first, last = (float(np.median(part)) for part in (values[:half], values[-half:]))
    slope = (last - first) / (len(values) - half)
    line = last + slope * (places - np.median(places[-half:]))
    spread = TO_SIGMA * float(np.median(np.abs(values - line)))
    return last, max(spread, least_spread)


@dataclass
class Guard:
    """Decides what a phase does about failed steps. Without settings, the phase stops.

    path: the file of incidents, from which a killed run learns which batches to skip.
    """

    settings: Spikes | None
    path: Path
    owner: str  # fingerprint of the phase's inputs
    detector: Detector | None = None
    incidents: tuple[Incident, ...] = ()

    @classmethod
    def of(cls, settings: Spikes | None, path: Path, owner: str, progress: Mapping[str, Any]) -> Guard:
        """progress: of the checkpoint that the phase continues from. Forgets incidents of other inputs, and incidents
        that returned to a later checkpoint than this one."""
        known = read_incidents(path, owner)
        while known and known[-1].back_to > progress["step"]:
            known = known[:-1]
        guard = cls(settings, path, owner, incidents=known)
        if known:
            guard._write()
        else:
            path.unlink(missing_ok=True)
        guard.go_back(progress.get("spikes"))
        return guard

    @property
    def skipped(self) -> int:
        """The number of rows skipped so far."""
        return sum(incident.skipped for incident in self.incidents)

    def go_back(self, state: Mapping[str, Any] | None) -> None:
        """Restores the detector from a checkpoint's `state`."""
        self.detector = self.settings and Detector(self.settings, state)

    def trouble(self, step: int, metrics: Mapping[str, float], role: str) -> str | None:
        """A message that says what is wrong with the step's metrics; None for a good step.

        Raises UserError where loss or gradient is not finite and the phase has no `spikes` section.
        """
        if self.settings is None:
            expect_trained(role, step + 1, metrics, ", or set the phase's `spikes` to pass over such batches")
            return None
        if failed(metrics):
            return what_failed(metrics)
        if metrics.get("skipped"):  # the loss scale of float16 was too large and is lowered
            return None
        return self.detector.leap(metrics)

    def record(
        self, step: int, reason: str, metrics: Mapping[str, float], progress: Mapping[str, Any], plan: StepPlan
    ) -> None:
        """Writes an incident to disk: the run returns from `step` to the checkpoint with this progress, and skips the
        rows of all steps in between.

        Raises UserError where there were as many incidents as `spikes.at_most` allows.
        """
        if len(self.incidents) >= self.settings.at_most:
            raise UserError(
                f"step {step + 1}: {reason}, after {len(self.incidents)} incidents; raise spikes.at_most to go on from the last "
                "checkpoint, or start again with a lower learning rate or other data"
            )
        back_to = progress["step"]
        incident = Incident(
            step=step + 1,
            reason=reason,
            loss=_number(metrics["loss"]),
            grad_norm=_number(metrics["grad_norm"]),
            back_to=back_to,
            skipped_from=plan.before(back_to) + self.skipped,
            skipped=plan.before(step + 1) - plan.before(back_to),
        )
        self.incidents = (*self.incidents, incident)
        self._write()
        self.go_back(progress.get("spikes"))

    def doubts(self, step: int, saved: int) -> bool:
        """Whether a leap at `step`, counted from 0, may come from the checkpoint itself, saved after `saved` steps. A
        loss is measured before its update, so a bad update shows in a later step."""
        return step < saved + SETTLED or any(incident.back_to == saved for incident in self.incidents)

    def state(self) -> dict[str, list[float]] | None:
        """The detector's state for the checkpoint, see `go_back`."""
        return self.detector and self.detector.state()

    def figures(self) -> dict[str, float]:
        """The number of incidents, for the phase's result; empty if there was none."""
        return {"incidents": float(len(self.incidents))} if self.incidents else {}

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"owner": self.owner, "incidents": [asdict(each) for each in self.incidents]}
        write_atomically(self.path, json.dumps(content, indent=2) + "\n")


def read_incidents(path: Path, owner: str) -> tuple[Incident, ...]:
    """The incidents in the file; empty if they belong to other inputs."""
    if not path.exists():
        return ()
    content = json.loads(path.read_text())
    return tuple(Incident(**each) for each in content["incidents"]) if content["owner"] == owner else ()


def _number(value: float) -> float | None:
    """The value, or None if it is not finite: JSON has no such numbers."""
    return value if math.isfinite(value) else None
