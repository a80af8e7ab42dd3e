"""Waiting for calls on the cluster, and its errors: a failed rank, weights that did not arrive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray

LOG_WAIT_EVERY_S = 30.0

logger = logging.getLogger(__name__)


def finished(
    references: Sequence[ray.ObjectRef], timeout_s: float, awaited: Callable[[Sequence[ray.ObjectRef]], str]
) -> Iterator[list[ray.ObjectRef]]:
    """The references as they finish, until all have. While none finishes, logs what `awaited` says of those in flight.

    Raises TimeoutError where none finishes and `timeout_s` seconds have passed.
    """
    started, pending = time.monotonic(), list(references)
    while pending:
        done, pending = ray.wait(pending, timeout=min(LOG_WAIT_EVERY_S, timeout_s))
        waited_s = time.monotonic() - started
        if done:
            yield done
            continue
        message = f"waiting for {awaited(pending)}: {waited_s:.0f} s of at most {timeout_s:.0f} s"
        if waited_s >= timeout_s:
            raise TimeoutError(f"gave up {message}")
        logger.warning(message)


def needs_and_has(options: Sequence[Mapping[str, Any]]) -> str:
    """The resources that actors with these Ray options ask for, and the cluster's free ones, without those of placed actors."""
    needs = [{name: value for name, value in each.items() if name in ("num_cpus", "num_gpus")} for each in options]
    free = ray.available_resources()
    return f"needs {needs}, the cluster has {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free"


class WorkerError(RuntimeError):
    """A rank failed, and its whole group was stopped. The message holds the rank's traceback."""

    def __init__(self, role: str, rank: int, node: str, call: str, cause: str) -> None:
        super().__init__(role, rank, node, call, cause)  # all arguments, so that the error pickles
        self.role, self.rank, self.node, self.call, self.cause = role, rank, node, call, cause

    def __str__(self) -> str:
        return f"{self.role}/{self.rank} on node {self.node} failed in {self.role}.{self.call}:\n{self.cause}"


class WeightSyncError(RuntimeError):
    """A rollout engine does not hold the weights that the trainer sent."""
