"""The inputs that a phase's result depends on: config, named code, data, parent phases. A finished phase runs again
only if one of them has changed."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.corpus.units import files_of
from data.errors import UserError
from data.feedback.columns import conversion_of
from data.imports import load_object
from data.messages import strings_in
from data.sources import Rows
from rlhf.config.kinds import CORPUS, PHASE
from rlhf.config.resolved import ResolvedPhase
from rlhf.corpus.cleaning_steps import STEPS, plain_source
from rlhf.corpus.reserved import open_reserved, reserved_sets
from rlhf.phases.base import open_data
from rlhf.rundir import Artifact, fingerprint

# Settings that do not change the result. The limits of reward and judge calls (time, retries, place) decide whether
# there is a score, but not its value: a run that failed on a limit continues under a wider limit.
LIMITS = {"limits"}
COSMETIC: dict[str, Any] = {
    "goals": True,
    "checkpoint_every": True,
    "store_every": True,
    "spikes": {"at_most"},
    "reward": {"__all__": LIMITS},
    "watch": {"gold": {"__all__": LIMITS}, "format": LIMITS},
    "judge": {"timeout_s", "retries", "at_once", "pool", "key_variable"},
}


def lineage_of(
    phase: ResolvedPhase,
    artifacts: Mapping[str, Artifact],
    given: Mapping[str, Any],
    opened: dict[str, Rows] | None = None,
) -> dict[str, Any]:
    """All inputs as JSON values. Of a function, its own source counts, not the source of the functions it calls.

    given: the caller's own objects, used instead of the config's, by name.
    opened: receives the phase's data sets, see `open_data`.
    Raises UserError where a function that the config names does not exist.
    """
    if phase.kind.name == CORPUS:
        return _of_a_corpus(phase, artifacts, opened)
    settings = phase.settings.model_dump(mode="json", exclude=COSMETIC | {"models": True})
    models, corpora = phase.needed, phase.corpora
    paths = {role: model.path for role, model in models.items() if model.path}
    sets = {name: data for name, data in phase.data_sets.items() if name not in corpora}
    rows = {name: open_data(data, artifacts, opened) for name, data in sets.items()}
    lineage = {
        "phase": settings,
        "models": {role: model.model_dump(mode="json", exclude={"pool"}) for role, model in models.items()},
        "parents": {role: _parent(path, artifacts) for role, path in paths.items() if path.startswith(PHASE)},
        "data": {name: opened.fingerprint for name, opened in rows.items()},
        "seed": phase.config.run.seed,
        "code": {path: source_of(path) for path in functions_of(phase, given)},
    }
    for name, corpus in corpora.items():
        lineage["parents"][name] = artifacts[corpus.name].id
        lineage.setdefault("weights", {})[name] = {source.name: source.weight for source in corpus.sources}
    if converted := conversions(phase, rows):
        lineage["conversions"] = converted
    return lineage | {name: identity(value) for name, value in given.items()}


def _of_a_corpus(
    phase: ResolvedPhase, artifacts: Mapping[str, Artifact], opened: dict[str, Rows] | None
) -> dict[str, Any]:
    """The inputs of a corpus phase. Files count by name, size and modification time, because they may be too many to
    read before every run. Weights of sources are left out: they are an input of the phase that trains on the corpus."""
    settings = phase.settings
    parameters = [value for step in settings.steps for value in strings_in(step.parameters)]
    tokenizer = [settings.tokenizer.path] if settings.tokenizer and settings.tokenizer.path else []
    functions = [path for source in settings.sources for path in strings_in(source.path) if not _is_file(path)]
    functions += [step.name for step in settings.steps if step.name not in STEPS]
    reserved = {name: open_reserved(data, opened) for name, data in reserved_sets(phase.config, settings).items()}
    return {
        "phase": settings.model_dump(
            mode="json", exclude={"goals": True, "workers": True, "sources": {"__all__": {"weight"}}}
        ),
        "parents": {path: _parent(path, artifacts) for path in (*parameters, *tokenizer) if path.startswith(PHASE)},
        "files": fingerprint(files_of([plain_source(source) for source in settings.sources])),
        "parameters": {path: _stat_of(path) for path in (*parameters, *tokenizer) if _is_file(path)},
        "reserved": {name: rows.fingerprint for name, rows in reserved.items()},
        "seed": phase.config.run.seed,
        "code": {path: source_of(path) for path in functions},
    }


def _is_file(text: str) -> bool:
    """Whether a parameter is the path of an existing file or directory."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except OSError:  # too long for a file name
        return False


def _stat_of(path: str) -> str:
    root = Path(path).expanduser()
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    stats = [(str(file), file.stat()) for file in files]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _parent(path: str, artifacts: Mapping[str, Artifact]) -> str:
    if path.removeprefix(PHASE) not in artifacts:
        raise UserError(f"{path}: this phase has not run yet; run the config first: launch.py run")
    return artifacts[path.removeprefix(PHASE)].id


def conversions(phase: ResolvedPhase, rows: Mapping[str, Rows]) -> dict[str, str]:
    """{data set: "kind → kind"} of the data sets whose rows are converted to the kind that the phase's loss reads."""
    if not phase.kind.supervised:
        return {}
    found = {name: conversion_of(phase.rows, rows[name].columns) for name in ("data", "eval_data") if name in rows}
    return {name: text for name, text in found.items() if text}


def functions_of(phase: ResolvedPhase, given: Mapping[str, Any]) -> list[str]:
    """Every module:attribute that the config names, except data functions and functions that `given` replaces."""
    settings, replaced = phase.settings, {"reward"} if given.get("reward") is not None else set()
    listed = [rewards for name, rewards in phase.listed_rewards.items() if name not in replaced]
    paths = [reward.source for rewards in listed for reward in rewards]
    answers = getattr(settings, "answers", None)
    paths += [score.source for score in answers.scores.values()] if answers else []
    paths += [getattr(settings, name, None) for name in ("gold", "rollout") if given.get(name) is None]
    named = [getattr(settings, name, None) for name in ("algorithm", "loss", "objective") if given.get(name) is None]
    paths += [part.name for part in named if part]
    return sorted({path for path in paths if path and ":" in path})


def source_of(path: str) -> str | None:
    """A hash of the function's or class's source. For any other object, of its module's source, because the object's
    repr may differ between processes. Raises UserError where the path leads nowhere."""
    value = load_object(path)
    if inspect.isfunction(value) or inspect.isclass(value):
        return identity(value)
    try:
        return fingerprint(inspect.getsource(sys.modules[path.partition(":")[0]]))
    except (OSError, TypeError):  # not written in Python
        return None


def identity(value: Any) -> str | None:
    """A hash of an object's parameters and source, so that a phase runs again with an edited algorithm or reward."""
    if value is None:
        return None
    code = value if inspect.isfunction(value) or inspect.isclass(value) else type(value)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):  # defined in an interactive session
        source = ""
    described = code.__qualname__ if code is value else f"{value!r} {getattr(value, '__dict__', '')}"
    return fingerprint([re.sub(r" at 0x[0-9a-f]+", "", described), source])  # addresses differ between processes
