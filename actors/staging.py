"""Puts a batch into the object store: one set of shards for all groups, with columns added beside them later.

Rows are dealt to mini-batches first, then to shards, so mini-batches do not depend on the number of ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray
import torch
from torch import Tensor

from data.batch import BASE, Batch
from data.packing import balance


def split_rows(
    lengths: Sequence[int], group_ids: Sequence[int] | None, shards: int, minibatches: int, seed: int
) -> list[list[np.ndarray]]:
    """Row indices as `[shard][minibatch]`; each row occurs once. Pure.

    A seeded permutation deals the units (rows, or all rows of one group_id) to `minibatches` parts of equal size, give or take
    one; each part is spread over the shards, balanced by tokens. No mini-batch is empty: there are never more mini-batches than
    units. A shard may be empty.
    """
    grouped: dict[int, list[int]] = {}
    for row, group in enumerate(range(len(lengths)) if group_ids is None else group_ids):
        grouped.setdefault(group, []).append(row)
    units = list(grouped.values())
    costs = [sum(lengths[row] for row in unit) for unit in units]
    order = np.random.default_rng(seed).permutation(len(units))
    result: list[list[np.ndarray]] = [[] for _ in range(shards)]
    for part in np.array_split(order, max(1, min(minibatches, len(units)))):
        chosen = sorted(part.tolist())
        for shard, members in enumerate(balance([costs[unit] for unit in chosen], shards)):
            rows = [row for member in members for row in units[chosen[member]]]
            result[shard].append(np.array(rows, dtype=np.int64))
    return result


@dataclass(frozen=True)
class Shard:
    """One shard as a rank receives it: references to its columns, and the sizes of its mini-batches."""

    parts: tuple[tuple[frozenset[str], ray.ObjectRef], ...]  # (names, Batch or {name: array}), the base Batch first
    sizes: tuple[int, ...]  # rows of each mini-batch, in the shard's row order

    def read(self, columns: frozenset[str]) -> Batch:
        """The base columns, and the given columns that the shard has. Fetches no others."""
        batch = None
        for names, reference in self.parts:
            if batch is None:
                batch = ray.get(reference).keep(BASE | columns)
            elif wanted := names & columns:
                arrays = ray.get(reference)
                batch = batch.with_columns(**{name: np.array(arrays[name]) for name in wanted})
        return batch


@dataclass(frozen=True)
class StagedBatch:
    """A batch as shards in the object store; implements `Staged`. Immutable: `with_columns` returns a new one."""

    size: int  # rows
    width: int  # T of the whole batch; a shard's T is its own longest row
    shards: tuple[Shard, ...]
    rows: tuple[np.ndarray, ...]  # per shard: the indices of its rows in the whole batch
    widths: tuple[int, ...]  # per shard
    counters: Counter  # the runtime's bytes_through_driver and rpcs

    @classmethod
    def put(cls, batch: Batch, shards: int, minibatches: int, seed: int, counters: Counter) -> StagedBatch:
        """Splits the batch and puts every shard into the store. `meta` stays on the driver."""
        groups = batch.group_ids.tolist() if "group_ids" in batch else None
        split = split_rows(batch.lengths.tolist(), groups, shards, minibatches, seed)
        staged, rows, widths = [], [], []
        for parts in split:
            index = np.concatenate(parts)
            shard = batch.keep(batch.columns).select(torch.from_numpy(index))
            counters["bytes_through_driver"] += sum(column.nbytes for column in shard.columns.values())
            staged.append(Shard(((frozenset(shard.columns), ray.put(shard)),), tuple(map(len, parts))))
            rows.append(index)
            widths.append(shard.width)
        return cls(len(batch), batch.width, tuple(staged), tuple(rows), tuple(widths), counters)

    @property
    def minibatches(self) -> int:
        """The number asked for, or the number of units if that is smaller."""
        return len(self.shards[0].sizes)

    def with_columns(self, **columns: Tensor) -> StagedBatch:
        """Puts (B,) or (B, T) columns, in the global row order, into the store beside the shards."""
        for name, column in columns.items():
            if tuple(column.shape) not in [(self.size,), (self.size, self.width)]:
                shape, wanted = tuple(column.shape), (self.size, self.width)
                raise ValueError(f"column {name!r} has shape {shape}; wanted {wanted} or {wanted[:1]}")
        names = frozenset(columns)
        shards = []
        for shard, rows, width in zip(self.shards, self.rows, self.widths):
            arrays = {name: _slice(column.detach().cpu().numpy(), rows, width) for name, column in columns.items()}
            self.counters["bytes_through_driver"] += sum(array.nbytes for array in arrays.values())
            shards.append(replace(shard, parts=(*shard.parts, (names, ray.put(arrays)))))
        return replace(self, shards=tuple(shards))

    def of_replica(self, replica: int, replicas: int) -> tuple[Shard, ...]:
        """The shards of one replica. Raises ValueError where they do not divide evenly over the replicas."""
        if len(self.shards) % replicas:
            raise ValueError(
                f"the batch has {len(self.shards)} shards, staged without a group of {replicas} replicas in mind"
            )
        return self.shards[replica::replicas]

    def gather(self, results: Sequence[np.ndarray]) -> Tensor:
        """(B, T) or (B,) fp32 in the global row order. results: each replica's (b, t) or (b,), in the order of its shards."""
        replicas = len(results)
        whole = np.zeros((self.size, self.width) if results[0].ndim == 2 else self.size, np.float32)
        for replica, result in enumerate(results):
            self.counters["bytes_through_driver"] += result.nbytes
            rows = np.concatenate(self.rows[replica::replicas])
            if result.ndim == 2:
                whole[rows, : result.shape[1]] = result
            else:
                whole[rows] = result
        return torch.from_numpy(whole)


def _slice(column: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    return column[rows, :width] if column.ndim == 2 else column[rows]


def all_rows(shards: Sequence[Shard], columns: frozenset[str]) -> Batch:
    """On a rank: all rows of its shards, in shard order."""
    return Batch.cat([shard.read(columns) for shard in shards])


def minibatches(shards: Sequence[Shard], columns: frozenset[str]) -> list[Batch]:
    """On a rank: its rows of each mini-batch, which may be none. All ranks have the mini-batches in the same order."""
    parts: list[list[Batch]] = [[] for _ in shards[0].sizes]
    for shard in shards:
        batch = shard.read(columns)
        for part, size, end in zip(parts, shard.sizes, np.cumsum(shard.sizes)):
            part.append(batch.select(range(end - size, end)))
    return [Batch.cat(part) for part in parts]
