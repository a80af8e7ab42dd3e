"""The Ray actor of one rank, the same class for every role. It holds a training engine (`rlhf.engine`) and passes calls on."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import ray

from actors.staging import Shard, all_rows, minibatches
from actors.weight_items import WeightItem, checksum
from data.batch import Batch
from rlhf.interfaces import AuxiliaryLoss, ModelBuild, Objective, Output, Passes
from rlhf.skipped import failed

if TYPE_CHECKING:
    from rlhf.engine.engine import Engine


class ModelWorker:
    """Rank `rank` of the role's `world` ranks. Call `connect`, then `build`. They import the engine, so a failed import is a failed
    call with a traceback."""

    def __init__(self, role: str, rank: int, world: int, device_setting: str) -> None:
        self.role, self.rank, self.world, self.device_setting = role, rank, world, device_setting
        self._engine: Engine | None = None
        self._checksum = 0

    def __repr__(self) -> str:
        return f"{self.role}/{self.rank}"

    def address(self) -> tuple[str, int]:
        """(IP address of this node, a port that is free now): the rendezvous of the ranks."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def connect(self, address: tuple[str, int], timeout_s: float) -> str:
        """Joins the group's process group; a collective fails after `timeout_s` seconds. Returns this node's IP address."""
        from rlhf.engine.device import init_distributed, resolve

        self.device = resolve(self.device_setting)
        init_distributed(self.rank, self.world, *address, self.device, timeout_s)
        return ray.util.get_node_ip_address()

    def build(self, build: ModelBuild) -> None:
        """Loads the model in place of the previous one."""
        from rlhf.engine.engine import Engine

        self.release()
        self._engine = Engine(build, self.device)

    def release(self) -> None:
        """Frees the model and its optimizer; the process stays for the next `build`."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError(f"{self!r} holds no model: it was released, or never built")
        return self._engine

    def forward(self, shards: tuple[Shard, ...], output: Output, temperature: float) -> np.ndarray | None:
        """(b, T) or (b,) fp32 of this replica's rows, in the order of its shards; None but on the replica's leader."""
        found = self.engine.forward(all_rows(shards, frozenset()), output, temperature)
        return found.float().cpu().numpy() if self.engine.leads else None

    def train(
        self,
        shards: tuple[Shard, ...],
        objective: Objective,
        passes: Passes,
        auxiliary_shards: tuple[Shard, ...] | None,
        auxiliary: AuxiliaryLoss | None,
    ) -> list[dict[str, float]]:
        """One optimizer step per mini-batch and epoch; returns the metrics of each step, over all ranks. Stops after a failed
        step, or where approx_kl exceeds passes.max_kl."""
        from rlhf.engine.engine import Term

        batches = minibatches(shards, objective.columns)
        terms: list[Term | None] = [None] * len(batches)
        if auxiliary is not None:
            terms = [
                Term(batch, auxiliary.objective, weight=auxiliary.weight, name=auxiliary.name)
                for batch in minibatches(auxiliary_shards, auxiliary.objective.columns)
            ]
        done: list[dict[str, float]] = []
        for batch, term in [*zip(batches, terms, strict=True)] * passes.epochs:
            done.append(self.engine.train(batch, objective, passes.temperature, term))
            if failed(done[-1]) or (passes.max_kl is not None and done[-1].get("approx_kl", 0.0) > passes.max_kl):
                break
        return done

    def evaluate(self, shards: tuple[Shard, ...], objective: Objective) -> tuple[dict[str, float], float]:
        """(metric sums, count of the objective's unit) over all ranks."""
        return self.engine.evaluate(all_rows(shards, objective.columns), objective)

    def use_average(self) -> None:
        self.engine.use_average()

    def save(self, directory: Path) -> None:
        self.engine.save(directory)

    def load(self, directory: Path) -> None:
        self.engine.load(directory)

    def export(self, directory: Path) -> None:
        self.engine.export(directory)

    def weight_plan(self, bucket_bytes: int) -> int:
        """Splits the weights into buckets; returns their number."""
        self._checksum = 0
        return self.engine.weight_plan(bucket_bytes)

    def weight_bucket(self, index: int) -> list[WeightItem] | None:
        """The bucket on rank 0, None on other ranks. All ranks take part, for they gather a sharded model together."""
        items = self.engine.weight_bucket(index)
        self._checksum = (self._checksum + checksum(items or ())) % 2**64
        return items

    def weight_checksum(self) -> int:
        """The checksum over all buckets since `weight_plan`."""
        return self._checksum

    def logprobs_of(self, sequences: list[list[int]]) -> list[list[float]]:
        """log p of every token but the first, at temperature 1. Every rank computes all of them, for they are few."""
        batch = Batch.from_rows(sequences, [[False] + [True] * (len(tokens) - 1) for tokens in sequences])
        logprobs = self.engine.forward(batch, "logprobs", 1.0)
        return [row[1 : len(tokens)].tolist() for row, tokens in zip(logprobs, sequences)]
