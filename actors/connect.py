"""A run's connection to a cluster: while Ray's processes start, the driver imports what the phases need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from actors.cluster import by_value, cluster
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config

if TYPE_CHECKING:
    from actors.runtime import ClusterRuntime
    from rlhf.interfaces import Algorithm

# beside the phases' loops: torch and transformers take seconds to import
NEEDED = ("actors.runtime", "rlhf.controller")


@contextmanager
def connect(
    config: Config, address: str | None = None, algorithm: Algorithm | None = None, reward: Any = None
) -> Iterator[ClusterRuntime]:
    """The run's runtime on the cluster at `address`, or on one of this machine's own; afterwards nothing of it is left.

    algorithm, reward: the caller's own objects, whose modules the workers may not be able to import.
    """
    resolved = resolve(config, algorithm=algorithm)
    loops = {phase.kind.loop.partition(":")[0] for phase in resolved.phases}
    loading = Thread(target=lambda: [import_module(name) for name in (*NEEDED, *loops)])
    loading.start()
    with cluster(address, config.device) as available:
        loading.join()
        # not at the top: these imports take as long as Ray's start, and go on beside it
        from actors.placement import plan
        from actors.runtime import ClusterRuntime

        for value in (algorithm, reward):
            by_value(value)
        with ClusterRuntime(config, plan(resolved, available)) as runtime:
            yield runtime
