"""Runs the phases in order, skips finished phases with unchanged inputs, and writes the summary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from data.imports import load_object
from data.sources import Rows
from rlhf.config.kinds import CORPUS, JUDGE, PHASE
from rlhf.config.load import dump_config
from rlhf.config.resolved import ResolvedPhase, resolve
from rlhf.config.schema import Config
from rlhf.interfaces import Algorithm, Runtime
from rlhf.lineage import lineage_of
from rlhf.phases.base import PhaseContext, resolve_path
from rlhf.rundir import Artifact, RunDirectory, fingerprint, write_atomically
from rlhf.summary import Summary, summarise


class Controller:
    """Runs a config. `connect` opens the cluster and is called only if a phase that needs it has to run."""

    def __init__(
        self,
        config: Config,
        connect: Callable[[], AbstractContextManager[Runtime]],
        *,
        algorithm: Algorithm | None = None,
        reward: Any = None,
        rollout: Any = None,
        console: Console | None = None,
        finished: Mapping[str, Artifact] | None = None,
        started: float | None = None,
    ) -> None:
        """algorithm, reward, rollout: the caller's own objects, used instead of the config's.

        finished: artifacts by phase, made by another run; these phases do not run here.
        started: time.monotonic() at the start of the program, for the summary's start-up time; default: now.
        """
        self.config, self.connect = config, connect
        self.resolved = resolve(config, algorithm=algorithm)
        self.finished = dict(finished or {})
        self.given = {"algorithm": algorithm, "reward": reward, "rollout": rollout}
        self.opened: dict[str, Rows] = {}  # data sets of the current phase, see `open_data`
        self.started = time.monotonic() if started is None else started
        self.console = console or Console(stderr=True)
        self.run_directory = RunDirectory(Path(config.run.directory))

    def run(self, names: Collection[str] | None = None) -> Summary:
        """Runs all phases in order, or only the named ones; continues an interrupted phase from its checkpoint."""
        self.run_directory.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.run_directory.root / "config.yaml", dump_config(self.config))
        artifacts = dict(self.finished)
        startup = 0.0
        with ExitStack() as stack:
            runtime: Runtime | None = None
            ran = False
            for phase in self.resolved.phases:
                if phase.name in self.finished:
                    continue
                done = Artifact.read(self.run_directory.artifact(phase.name))
                if names is not None and phase.name not in names:
                    artifacts |= {phase.name: done} if done else {}
                    continue
                lineage = self.lineage(phase, artifacts)
                if done is not None and done.id == fingerprint(lineage):
                    self.clear(phase)
                    self.console.print(f"[bold]{phase.name:<9}[/] done before, inputs unchanged", highlight=False)
                    artifacts[phase.name] = done
                    continue
                if runtime is None and phase.needs_cluster:
                    runtime = stack.enter_context(self.connect())
                    startup = time.monotonic() - self.started
                artifacts[phase.name] = self.run_phase(phase, runtime, artifacts, lineage)
                ran = True
        if not ran:
            self.console.print("Nothing is left to do. To run everything again: the same command with --fresh.")
        return summarise(self.config, artifacts, startup, self.run_directory.root)

    def run_phase(
        self, phase: ResolvedPhase, runtime: Runtime | None, artifacts: dict[str, Artifact], lineage: dict[str, Any]
    ) -> Artifact:
        started, syncs = time.monotonic(), dict(runtime.rollout_stats) if runtime else {}
        given = self.given_to(phase)
        context = PhaseContext(
            resolved=phase,
            runtime=runtime,
            run=self.run_directory,
            artifacts=artifacts,
            opened=self.opened,
            id=fingerprint(lineage),
            staging=self.run_directory.staging(phase.name),
            console=self.console,
            reward=given.get("reward"),
            rollout=given.get("rollout"),
        )
        if runtime is not None:
            runtime.expect(*self.expected(context))
        metrics = load_object(phase.kind.loop)(context)
        for role in context.models:
            runtime.release(role)
        artifact = Artifact(
            path=self.run_directory.artifact(phase.name),
            id=context.id,
            metrics=metrics,
            lineage=lineage,
            seconds=round(time.monotonic() - started, 2),
            syncs={name: count - syncs[name] for name, count in runtime.rollout_stats.items()} if runtime else {},
            data=[report.as_dict() for report in context.reports],
            answers=context.answers,
        )
        artifact.commit(context.staging)
        self.clear(phase)
        return artifact

    def expected(self, context: PhaseContext) -> tuple[dict[str, str], tuple[str, int] | None]:
        """({role: pool}, (model path, max_length) of the rollout engines): the processes that the phase will ask for.
        If it needs no engines, those of the next phase that does, so that they start early, if that policy exists."""
        resolved = context.resolved
        roles = {role: model.pool for role, model in resolved.needed.items() if role != JUDGE}
        later = self.resolved.phases[self.resolved.phases.index(resolved) :]
        if (asking := next((phase for phase in later if phase.samples_answers), None)) is None:
            return roles, None
        place, start = asking, asking.models["policy"].path
        while start and start.startswith(PHASE) and start.removeprefix(PHASE) not in context.artifacts:
            place = place.parent(start)
            start = place.models[place.kind.result].path
        return roles, (resolve_path(start, context.artifacts), asking.settings.max_length) if start else None

    def clear(self, phase: ResolvedPhase) -> None:
        """Deletes the working files of a finished corpus phase, which are as large as its artifact."""
        if phase.kind.name == CORPUS:
            shutil.rmtree(self.run_directory.checkpoints(phase.name, "").directory, ignore_errors=True)

    def lineage(self, phase: ResolvedPhase, artifacts: dict[str, Artifact]) -> dict[str, Any]:
        """Everything that the phase's result depends on (`rlhf.lineage`). Opens the phase's data sets."""
        self.opened = {}
        return lineage_of(phase, artifacts, self.given_to(phase), self.opened)

    def given_to(self, phase: ResolvedPhase) -> dict[str, Any]:
        """The caller's own objects that this kind of phase uses."""
        return {name: self.given[name] for name in phase.kind.given}
