"""Runs the phases in order, skips those whose inputs did not change, and leaves the summary."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from data.feedback.convert import conversion_of
from data.imports import load_object
from data.sources import Rows
from rlhf.config.load import dump_config
from rlhf.config.roles import PHASE, reward_parts
from rlhf.config.schema import Config, Data, Phase
from rlhf.interfaces import Algorithm, Runtime
from rlhf.needs import needed_models
from rlhf.phases import best_of_n, label, rl, supervised
from rlhf.phases.base import PhaseContext, open_data
from rlhf.rundir import Artifact, RunDirectory, fingerprint, write_atomically
from rlhf.summary import Summary, summarise

LOOPS = {"rl": rl.run, "best_of_n": best_of_n.run, "label": label.run}  # every other kind is supervised

# What may change without the phase's result changing: how long calls may take, how often they are tried and where they run
# decides whether there is a score, and not which, so that a run that failed on a limit goes on under a wider one.
LIMITS = {"limits"}
COSMETIC: dict[str, Any] = {
    "goals": True,
    "checkpoint_every": True,
    "store_every": True,
    "reward": {"__all__": LIMITS},
    "watch": {"gold": {"__all__": LIMITS}, "format": LIMITS},
    "judge": {"timeout_s", "retries", "at_once", "pool", "key_variable"},
}


class Controller:
    """`connect` opens the cluster; it is called only if some phase has to run."""

    def __init__(
        self,
        config: Config,
        connect: Callable[[], AbstractContextManager[Runtime]],
        *,
        algorithm: Algorithm | None = None,
        reward: Any = None,
        rollout: Any = None,
        console: Console | None = None,
    ) -> None:
        self.config, self.connect = config, connect
        self.given = {"algorithm": algorithm, "reward": reward, "rollout": rollout}  # instead of the config's
        self.console = console or Console(stderr=True)
        self.run_directory = RunDirectory(Path(config.run.directory))

    def run(self) -> Summary:
        """Every phase in order. An interrupted run goes on where its last checkpoint stands."""
        started = time.monotonic()
        self.run_directory.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.run_directory.root / "config.yaml", dump_config(self.config))
        artifacts: dict[str, Artifact] = {}
        startup = 0.0
        with ExitStack() as stack:
            runtime: Runtime | None = None
            for phase in self.config.phases:
                lineage = self.lineage(phase, artifacts)
                done = Artifact.read(self.run_directory.artifact(phase.name))
                if done is not None and done.id == fingerprint(lineage):
                    self.console.print(f"[bold]{phase.name:<9}[/] done before, inputs unchanged", highlight=False)
                    artifacts[phase.name] = done
                    continue
                if runtime is None:
                    runtime = stack.enter_context(self.connect())
                    startup = time.monotonic() - started
                artifacts[phase.name] = self.run_phase(phase, runtime, artifacts, lineage)
        if runtime is None:
            self.console.print("Every phase is finished. To run it anew: the same command with --fresh.")
        return summarise(self.config, artifacts, startup, self.run_directory.root)

    def run_phase(
        self, phase: Phase, runtime: Runtime, artifacts: dict[str, Artifact], lineage: dict[str, Any]
    ) -> Artifact:
        started, syncs = time.monotonic(), dict(runtime.rollout_stats)
        context = PhaseContext(
            config=self.config,
            phase=phase,
            runtime=runtime,
            run=self.run_directory,
            artifacts=artifacts,
            id=fingerprint(lineage),
            staging=self.run_directory.staging(phase.name),
            console=self.console,
            **self.given_to(phase),
        )
        metrics = LOOPS.get(phase.kind, supervised.run)(context)
        for role in context.models:
            runtime.release(role)
        artifact = Artifact(
            path=self.run_directory.artifact(phase.name),
            id=context.id,
            metrics=metrics,
            lineage=lineage,
            seconds=round(time.monotonic() - started, 2),
            syncs={name: count - syncs.get(name, 0) for name, count in runtime.rollout_stats.items()},
            data=[report.as_dict() for report in context.reports],
            answers=context.answers,
        )
        artifact.commit(context.staging)
        return artifact

    def lineage(self, phase: Phase, artifacts: dict[str, Artifact]) -> dict[str, Any]:
        """Everything that the phase's result depends on: its config, the source of the functions that it names, its data's
        contents, its parents, the seed, and the caller's own algorithm and reward. `conversions` says which data sets become
        rows of another kind. Of a function, its own lines count, and not those of what it calls.

        Raises UserError where a function that the config names is not there.
        """
        settings = phase.model_dump(mode="json", exclude=COSMETIC | {"models": True})
        models = needed_models(self.config, phase, self.given["algorithm"])
        parents = {
            role: artifacts[model.path.removeprefix(PHASE)].id
            for role, model in models.items()
            if (model.path or "").startswith(PHASE)
        }
        sets = {name: value for name in ("data", "eval_data") if isinstance(value := getattr(phase, name, None), Data)}
        for name in ("answers", "ptx"):
            if part := getattr(phase, name, None):
                sets[name] = part.data
        rows = {name: open_data(data, artifacts) for name, data in sets.items()}
        lineage = {
            "phase": settings,
            "models": {role: model.model_dump(mode="json", exclude={"pool"}) for role, model in models.items()},
            "parents": parents,
            "data": {name: opened.fingerprint for name, opened in rows.items()},
            "seed": self.config.run.seed,
            "code": {path: source_of(path) for path in functions_of(phase, self.given_to(phase))},
        }
        if converted := conversions(phase, rows):
            lineage["conversions"] = converted
        return lineage | {name: identity(value) for name, value in self.given_to(phase).items()}

    def given_to(self, phase: Phase) -> dict[str, Any]:
        """What this phase has of the caller's own objects."""
        names = {"rl": ("algorithm", "reward", "rollout"), "best_of_n": ("reward",)}.get(phase.kind, ())
        return {name: self.given[name] for name in names}


def conversions(phase: Phase, rows: Mapping[str, Rows]) -> dict[str, str]:
    """{data set: what its rows are turned into}, of those that are not of the kind that the phase's loss reads."""
    if phase.kind not in supervised.RECIPES:
        return {}
    kind = supervised.rows_of(phase)
    found = {name: conversion_of(kind, rows[name].columns) for name in ("data", "eval_data") if name in rows}
    return {name: text for name, text in found.items() if text}


def functions_of(phase: Phase, given: Mapping[str, Any]) -> list[str]:
    """Every module:attribute that the phase calls by its config, but for what is given in its place and what yields its data."""
    if given.get("reward") is not None:
        phase = phase.model_copy(update={"reward": []})
    paths = [part.source for part in reward_parts(phase)]
    paths += [score.source for score in phase.answers.scores.values()] if phase.answers else []
    paths += [getattr(phase, name, None) for name in ("gold", "rollout") if given.get(name) is None]
    named = [getattr(phase, name, None) for name in ("algorithm", "loss") if given.get(name) is None]
    paths += [part.name for part in named if part]
    return sorted({path for path in paths if path and ":" in path})


def source_of(path: str) -> str | None:
    """A function's or class's source; of any other object, that of the module that makes it: what the object holds may read
    otherwise in every process. Raises UserError where nothing is there."""
    value = load_object(path)
    if inspect.isfunction(value) or inspect.isclass(value):
        return identity(value)
    try:
        return fingerprint(inspect.getsource(sys.modules[path.partition(":")[0]]))
    except (OSError, TypeError):  # no Python
        return None


def identity(value: Any) -> str | None:
    """An object's parameters and source, so that an edited algorithm or reward runs again."""
    if value is None:
        return None
    code = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):  # typed into an interpreter: no source to compare
        source = ""
    described = code.__qualname__ if code is value else f"{value!r} {getattr(value, '__dict__', '')}"
    return fingerprint([re.sub(r" at 0x[0-9a-f]+", "", described), source])  # an address is another in every process
