"""Steps that go wrong: a loss or a gradient that leaps or is no number, found by what the last steps were like, and what was
skipped for it.

The run goes back to its last checkpoint and passes over the batches since then: it is not a batch alone that makes a loss leap, but
a batch in a state, and other batches in that state mostly do not (Chowdhery et al. 2022, PaLM, section 5.1).
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

TO_SIGMA = 1.4826  # of a normal distribution, its standard deviation over its median absolute deviation
# in logarithms: with less, steps are so alike that any other would seem to leap
LEAST_SPREAD = {"loss": 0.03, "grad_norm": 0.2}
FEWEST = 16  # steps to compare with
SETTLED = 5  # steps after a checkpoint: a leap before them may come from an update that the checkpoint has in it


@dataclass(frozen=True)
class Incident:
    """One return to a checkpoint. Rows are numbers of `data.feeds`."""

    step: int  # that went wrong, counted from 1 as in metrics.jsonl
    reason: str
    loss: float | None  # None: no number
    grad_norm: float | None
    back_to: int  # finished steps of the checkpoint
    skipped_from: int  # first row that is passed over
    skipped: int  # rows

    def __str__(self) -> str:
        return f"{self.reason}; back to step {self.back_to}, past {self.skipped} rows"


class Detector:
    """Compares each step with the last `window` good ones, by the logarithms of loss and gradient norm."""

    def __init__(self, settings: Spikes, state: Mapping[str, Sequence[float]] | None = None) -> None:
        self.settings = settings
        self._seen = {name: deque((state or {}).get(name, ()), settings.window) for name in LEAST_SPREAD}

    def leap(self, metrics: Mapping[str, float]) -> str | None:
        """What leapt, and by how much; None where the step is like those before it, of which it is then one."""
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
    """(the median of the later half, the standard deviation around the trend). The trend is the line through the medians of both
    halves (Tukey 1977, the resistant line), the deviation the median absolute one: a few values that leap move neither, and a loss
    that falls does not seem to spread. It is not expected to go on falling: a step is only held against those before it."""
    values = np.asarray(values)
    places, half = np.arange(len(values)), len(values) // 2
    first, last = (float(np.median(part)) for part in (values[:half], values[-half:]))
    slope = (last - first) / (len(values) - half)
    line = last + slope * (places - np.median(places[-half:]))
    spread = TO_SIGMA * float(np.median(np.abs(values - line)))
    return last, max(spread, least_spread)


@dataclass
class Guard:
    """What a phase does about steps that go wrong: without settings, it stops.

    path: where the incidents are kept, so that a run that is killed goes on past the same batches.
    """

    settings: Spikes | None
    path: Path
    owner: str  # fingerprint of the phase's inputs
    detector: Detector | None = None
    incidents: tuple[Incident, ...] = ()

    @classmethod
    def of(cls, settings: Spikes | None, path: Path, owner: str, progress: Mapping[str, Any]) -> Guard:
        """progress: of the checkpoint that the phase goes on from. Incidents of other inputs are forgotten, and those since the
        last one that the checkpoint can know of: it went back to it, or to one before it."""
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
        """Rows passed over so far."""
        return sum(incident.skipped for incident in self.incidents)

    def go_back(self, state: Mapping[str, Any] | None) -> None:
        """To what the checkpoint says of the steps before it."""
        self.detector = self.settings and Detector(self.settings, state)

    def trouble(self, step: int, metrics: Mapping[str, float], role: str) -> str | None:
        """What is wrong with this step's metrics; None where nothing is.

        Raises UserError where loss or gradient is no number and the phase has no settings for it.
        """
        if self.settings is None:
            expect_trained(role, step + 1, metrics, ", or set the phase's `spikes` to pass over such batches")
            return None
        if failed(metrics):
            return what_failed(metrics)
        if metrics.get("skipped"):  # float16, whose scale is lowered
            return None
        return self.detector.leap(metrics)

    def record(
        self, step: int, reason: str, metrics: Mapping[str, float], progress: Mapping[str, Any], plan: StepPlan
    ) -> None:
        """Notes, on disk before the run goes on, that this step sent it back to the checkpoint with this progress, from where it
        passes over the rows of all steps since.

        Raises UserError where there were as many incidents as are allowed.
        """
        if len(self.incidents) >= self.settings.at_most:
            raise UserError(
                f"step {step + 1}: {reason}, after {len(self.incidents)} incidents; raise spikes.at_most to go on from the last "
                "checkpoint, or begin anew with a lower learning rate or other data"
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
        """Whether a leap at this step, counted from 0, may come from the checkpoint itself, saved after so many steps: a loss is
        measured before its update, so a bad update shows in the next one."""
        return step < saved + SETTLED or any(incident.back_to == saved for incident in self.incidents)

    def state(self) -> dict[str, list[float]] | None:
        """What `go_back` takes, for the checkpoint."""
        return self.detector and self.detector.state()

    def figures(self) -> dict[str, float]:
        """For the phase's result: nothing where nothing went wrong."""
        return {"incidents": float(len(self.incidents))} if self.incidents else {}

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"owner": self.owner, "incidents": [asdict(each) for each in self.incidents]}
        write_atomically(self.path, json.dumps(content, indent=2) + "\n")


def read_incidents(path: Path, owner: str) -> tuple[Incident, ...]:
    """Those of a phase with these inputs."""
    if not path.exists():
        return ()
    content = json.loads(path.read_text())
    return tuple(Incident(**each) for each in content["incidents"]) if content["owner"] == owner else ()


def _number(value: float) -> float | None:
    """As JSON knows it."""
    return value if math.isfinite(value) else None
