"""Errors of the cluster's making: a rank that failed, weights that did not arrive."""

from __future__ import annotations


class WorkerError(RuntimeError):
    """A rank of a group failed; the whole group was stopped. The message carries the rank's own traceback."""

    def __init__(self, role: str, rank: int, node: str, call: str, cause: str) -> None:
        super().__init__(role, rank, node, call, cause)  # the arguments as given, so that the error pickles
        self.role, self.rank, self.node, self.call, self.cause = role, rank, node, call, cause

    def __str__(self) -> str:
        return f"{self.role}/{self.rank} on node {self.node} failed in {self.role}.{self.call}:\n{self.cause}"


class WeightSyncError(RuntimeError):
    """A rollout engine does not hold the weights that the trainer sent."""
