"""Trains the grid as one run on one cluster, fits the law, and writes scaling.json, scaling.png and scaling.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from rlhf.config.resolved import Resolved, ResolvedPhase, resolve
from rlhf.config.schema import Config
from rlhf.controller import Controller
from rlhf.interfaces import Runtime
from rlhf.rundir import Artifact, RunDirectory
from rlhf.scaling.law_report import Report, write_report
from rlhf.scaling.measure import measurements, model_facts
from rlhf.scaling.size_grid import grid_config, phases_before, points_of

Connect = Callable[[Config], Callable[[], AbstractContextManager[Runtime]]]


class _Grid(Controller):
    """Prints the number of each training before it starts."""

    def run_phase(
        self, phase: ResolvedPhase, runtime: Runtime | None, artifacts: dict[str, Artifact], lineage: dict[str, Any]
    ) -> Artifact:
        names = [each.name for each in self.config.phases if each.name not in self.finished]
        place = f"training {names.index(phase.name) + 1} of {len(names)}"
        told = (
            f"[bold]{phase.name}[/] {place}: {phase.settings.steps:,} steps, learning rate {phase.settings.optim.lr:g}"
        )
        self.console.print(told, highlight=False, soft_wrap=True)
        return super().run_phase(phase, runtime, artifacts, lineage)


def scale(config: Config, connect: Connect, console: Console) -> Report:
    """Trains the unfinished points of the grid, fits the law and writes the report. connect: opens the cluster that a
    config needs.

    Phases that the scaled phase needs run in the config's own run directory, where `launch.py run` finds them done.
    Raises UserError where the losses cannot determine a law.
    """
    resolved = resolve(config)
    grid = grid_config(resolved)
    finished = _earlier(resolved, connect, console)
    points = [phase for phase in grid.phases if phase.name not in finished]
    needed = grid.model_copy(update={"phases": points})  # finished phases need no devices
    _Grid(grid, connect(needed), console=console, finished=finished).run()
    root = Path(grid.run.directory)
    artifacts = RunDirectory(root).finished(point.name for point in points_of(config.scaling))
    measured = measurements(config, root, artifacts)
    model = model_facts(artifacts[measured[0].point.name].path, resolved.scaled.settings.max_length)
    return write_report(config, root, measured, model)


def _earlier(resolved: Resolved, connect: Connect, console: Console) -> Mapping[str, Artifact]:
    config, phases = resolved.config, phases_before(resolved)
    names = [phase.name for phase in phases]
    if not names:
        return {}
    needed = config.model_copy(update={"phases": phases})
    Controller(config, connect(needed), console=console).run(names)
    return RunDirectory(Path(config.run.directory)).finished(names)
