"""The Python API: `rlhf.run(rlhf.load_config("configs/grpo.yaml"), algorithm=…, reward=…)`.

The only module of `rlhf` that imports `actors`, and only when a run starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from data.errors import UserError
from data.sample import Sample
from rlhf.config.check import check
from rlhf.config.kinds import CORPUS
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config

if TYPE_CHECKING:  # these import torch
    from rlhf.interfaces import Algorithm, RewardSource, Runtime
    from rlhf.scaling.law_report import Report
    from rlhf.summary import Summary

    Connect = Callable[[], AbstractContextManager[Runtime]]


def run(
    config: Config,
    *,
    algorithm: Algorithm | None = None,
    reward: RewardSource | Callable[[Sample], float | Mapping[str, float]] | None = None,
    rollout: Callable | None = None,
    address: str | None = None,
    console: Console | None = None,
) -> Summary:
    """Runs every unfinished phase of the config, on a local Ray cluster or the cluster at `address`.

    algorithm: replaces the config's algorithm in every rl phase; may be defined in the caller's own file.
    reward: replaces the config's reward; a function of one Sample, or an object with `score(samples)`.
    rollout: replaces the config's rollout; a coroutine function or an environment class, see `rlhf.rollout`.
    Raises UserError for mistakes in the config or the data, if possible before the cluster starts.
    """
    check(config, algorithm=algorithm, reward=reward, rollout_given=rollout is not None)
    given = {"algorithm": algorithm, "reward": reward, "rollout": rollout}
    return _run(config, _connecting(config, address, algorithm, reward), console, None, **given)


def make_corpora(config: Config, *, address: str | None = None, console: Console | None = None) -> Summary:
    """Runs only the config's corpus phases; starts a cluster only if one of them has several workers. The data of the
    other phases count as text that the corpora must not contain.

    Raises UserError for mistakes in the config or the data, and for a config without a corpus phase.
    """
    check(config)
    corpora = [phase for phase in config.phases if phase.kind == CORPUS]
    if not corpora:
        raise UserError("there is no phase of kind corpus in this config; add one, or use `launch.py run`")
    needed = config.model_copy(update={"phases": corpora, "device": "auto"})  # no models: no devices are reserved
    return _run(config, _connecting(needed, address), console, [phase.name for phase in corpora])


def scaling_law(config: Config, *, address: str | None = None, console: Console | None = None) -> Report:
    """Trains the grid of the config's `scaling` section and fits a scaling law to the losses. Writes to the run's
    directory with -scaling appended to its name. Trained points of the grid are not trained again.

    Raises UserError for mistakes in the config or the data, and for a config without a `scaling` section.
    """
    from rlhf.scaling.trainings import scale  # with its plots

    check_scaling(config)
    return scale(config, lambda needed: _connecting(needed, address), console or Console(stderr=True))


def check_scaling(config: Config) -> None:
    """Raises UserError for mistakes that `scaling_law` would find before it trains anything."""
    # with torch
    from rlhf.scaling.size_grid import grid_config
    from rlhf.scaling.sizes import expect_sizes

    resolved = check(config)
    if config.scaling is None:
        raise UserError("there is no section `scaling` in this config; see docs/scaling.md")
    check(grid_config(resolved))
    expect_sizes(resolved)


def _run(config: Config, connect: Connect, console: Console | None, names: list[str] | None, **given: Any) -> Summary:
    started = time.monotonic()
    with _opened(config, connect, names) as connect:
        from rlhf.controller import Controller  # with torch and the phases, which load while the cluster starts

        return Controller(config, connect, console=console, started=started, **given).run(names)


@contextmanager
def _opened(config: Config, connect: Connect, names: list[str] | None) -> Iterator[Connect]:
    """Starts the cluster at once if a phase has no artifact; else only when a phase has to run."""
    artifacts = Path(config.run.directory) / "artifacts"
    phases = [
        phase for phase in resolve(config).phases if phase.needs_cluster and (names is None or phase.name in names)
    ]
    if all((artifacts / phase.name).exists() for phase in phases):
        yield connect
    else:
        with connect() as runtime:
            yield lambda: nullcontext(runtime)


def _connecting(config: Config, address: str | None, *given: Any) -> Connect:
    def connect() -> AbstractContextManager[Runtime]:
        from actors.connect import connect  # with Ray

        return connect(config, address, *given)

    return connect
