"""Errors of the cluster: a failed rank, weights that did not arrive."""

from __future__ import annotations


class WorkerError(RuntimeError):
    """A rank failed, and its whole group was stopped. The message holds the rank's traceback."""

    def __init__(self, role: str, rank: int, node: str, call: str, cause: str) -> None:
        super().__init__(role, rank, node, call, cause)  # all arguments, so that the error pickles
        self.role, self.rank, self.node, self.call, self.cause = role, rank, node, call, cause

    def __str__(self) -> str:
        return f"{self.role}/{self.rank} on node {self.node} failed in {self.role}.{self.call}:\n{self.cause}"


class WeightSyncError(RuntimeError):
    """A rollout engine does not hold the weights that the trainer sent."""
