"""Runs the phases in order, skips finished phases with unchanged inputs, and writes the summary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from data.sources import Rows
from rlhf.config.load import dump_config
from rlhf.config.roles import CORPUS, JUDGE, PHASE, needs_cluster, resolve_models, result_role, samples_answers
from rlhf.config.schema import Config, Phase
from rlhf.interfaces import Algorithm, Runtime
from rlhf.lineage import lineage_of
from rlhf.needs import needed_models
from rlhf.phases import best_of_n, corpus, label, rl, supervised
from rlhf.phases.base import PhaseContext, resolve_path
from rlhf.rundir import Artifact, RunDirectory, fingerprint, write_atomically
from rlhf.summary import Summary, summarise

LOOPS = {
    "corpus": corpus.run,
    "rl": rl.run,
    "best_of_n": best_of_n.run,
    "label": label.run,
}  # every other kind is supervised


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
            for phase in self.config.phases:
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
                if runtime is None and needs_cluster(phase):
                    runtime = stack.enter_context(self.connect())
                    startup = time.monotonic() - self.started
                artifacts[phase.name] = self.run_phase(phase, runtime, artifacts, lineage)
                ran = True
        if not ran:
            self.console.print("Nothing is left to do. To run everything again: the same command with --fresh.")
        return summarise(self.config, artifacts, startup, self.run_directory.root)

    def run_phase(
        self, phase: Phase, runtime: Runtime | None, artifacts: dict[str, Artifact], lineage: dict[str, Any]
    ) -> Artifact:
        started, syncs = time.monotonic(), dict(runtime.rollout_stats) if runtime else {}
        context = PhaseContext(
            config=self.config,
            phase=phase,
            runtime=runtime,
            run=self.run_directory,
            artifacts=artifacts,
            opened=self.opened,
            id=fingerprint(lineage),
            staging=self.run_directory.staging(phase.name),
            console=self.console,
            **self.given_to(phase),
        )
        if runtime is not None:
            runtime.expect(*self.expected(context))
        metrics = LOOPS.get(phase.kind, supervised.run)(context)
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
        models = needed_models(self.config, context.phase, context.algorithm)
        roles = {role: model.pool for role, model in models.items() if role != JUDGE}
        later = self.config.phases[self.config.phases.index(context.phase) :]
        for phase in filter(samples_answers, later):
            start = resolve_models(self.config, phase)["policy"].path
            while start and start.startswith(PHASE) and start.removeprefix(PHASE) not in context.artifacts:
                start = self.start_of(start.removeprefix(PHASE))
            return roles, (resolve_path(start, context.artifacts), phase.max_length) if start else None
        return roles, None

    def start_of(self, name: str) -> str | None:
        """The path that the phase's trained model starts from; None for a new model."""
        phase = next(phase for phase in self.config.phases if phase.name == name)
        return resolve_models(self.config, phase)[result_role(phase)].path

    def clear(self, phase: Phase) -> None:
        """Deletes the working files of a finished corpus phase, which are as large as its artifact."""
        if phase.kind == CORPUS:
            shutil.rmtree(self.run_directory.checkpoints(phase.name, "").directory, ignore_errors=True)

    def lineage(self, phase: Phase, artifacts: dict[str, Artifact]) -> dict[str, Any]:
        """Everything that the phase's result depends on (`rlhf.lineage`). Opens the phase's data sets."""
        self.opened = {}
        return lineage_of(self.config, phase, artifacts, self.given_to(phase), self.opened)

    def given_to(self, phase: Phase) -> dict[str, Any]:
        """The caller's own objects that this kind of phase uses."""
        names = {"rl": ("algorithm", "reward", "rollout"), "best_of_n": ("reward",)}.get(phase.kind, ())
        return {name: self.given[name] for name in names}
