"""The batch: typed columns over B rows and T token positions, right-padded. Models and objectives read batches.

Column t of every (B, T) tensor speaks about token t: `logprobs[b, t] = log p(tokens[b, t] | tokens[b, :t])` and
`values[b, t]` is the value of the state before token t; both are 0 at t = 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

# name -> (shape, dtype). The attention mask is `arange(T) < lengths` and is never stored.
COLUMNS: dict[str, tuple[str, torch.dtype]] = {
    "tokens": ("token", torch.int32),  # token ids, 0 beyond the length
    "lengths": ("row", torch.int32),  # tokens in the row, prompt and response
    "action_mask": ("token", torch.bool),  # True = trained on: sampled, assistant's, or every token of a text
    "prefix_lengths": ("row", torch.int32),  # tokens of the row's prefix, which is read in both directions
    "inputs": ("token", torch.int32),  # the masked tokens, which a masked language model reads in place of `tokens`
    "group_ids": ("row", torch.int32),  # same prompt, or the rows of one comparison (best row first)
    "ranks": ("row", torch.float32),  # rank in its comparison, 1 = best; equal ranks are a tie
    "margins": ("row", torch.float32),  # how much better the chosen row of its pair is; 0 = unknown
    "weights": ("row", torch.float32),  # weight of the row or its comparison in the loss; mean 1 over the data set
    "ratings": ("row", torch.float32),  # the score that a reward model should give the row
    "desirable": ("row", torch.float32),  # 1 = good, 0 = bad, or the share of annotators who called it good
    "step_labels": ("token", torch.float32),  # at the token after each step of an answer: 1 = right, 0 = wrong
    "rewards": ("row", torch.float32),  # NaN = no score
    "greedy_rewards": ("row", torch.float32),  # reward of the greedy answer to the row's prompt
    "truncated": ("row", torch.bool),  # the response hit the length limit before its end token
    "policy_version": ("row", torch.int32),  # version of the weights that sampled the row
    "rollout_logprobs": ("token", torch.float32),  # by the rollout engine, at the sampling temperature
    "old_logprobs": ("token", torch.float32),  # by the policy before this step's updates
    "ref_logprobs": ("token", torch.float32),  # by the reference
    "values": ("token", torch.float32),  # by the critic
    "advantages": ("token", torch.float32),
    "returns": ("token", torch.float32),
}

BASE = frozenset({"tokens", "lengths", "action_mask", "group_ids"})  # every model and objective reads these


@dataclass(frozen=True)
class Batch:
    """B rows of columns, which are attributes (`batch.rewards`). An algorithm may add columns outside `COLUMNS` as (B,) or
    (B, T) tensors. A batch never changes: every method returns a new batch, which shares tensors with the old one."""

    columns: dict[str, Tensor]
    meta: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def from_rows(
        cls, tokens: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]], meta: Iterable[dict] = (), **rows: Any
    ) -> Batch:
        """Right-pads `tokens` and `masks` (one sequence a row); `rows` are further (B,) columns."""
        lengths = [len(row) for row in tokens]
        width = max(lengths, default=0)
        padded = np.zeros((len(lengths), width), np.int32)
        action = np.zeros((len(lengths), width), bool)
        for i, (row, mask) in enumerate(zip(tokens, masks, strict=True)):
            if len(row) != len(mask):
                raise ValueError(f"row {i}: {len(row)} tokens but {len(mask)} mask values")
            padded[i, : len(row)] = row
            action[i, : len(row)] = mask
        columns = {
            "tokens": torch.from_numpy(padded),
            "action_mask": torch.from_numpy(action),
            "lengths": torch.tensor(lengths, dtype=torch.int32),
        }
        return cls(columns, tuple(meta)).with_columns(**rows)

    def __len__(self) -> int:
        return len(self.columns["lengths"])

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getattr__(self, name: str) -> Tensor:
        columns = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(f"the batch has no column {name!r}; it has {', '.join(sorted(columns))}")
        return columns[name]

    @property
    def width(self) -> int:
        """T, the padded length."""
        return self.columns["tokens"].shape[1]

    @property
    def attention_mask(self) -> Tensor:
        """(B, T) bool, True on real tokens."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths[:, None]

    def with_columns(self, **columns: Any) -> Batch:
        """A batch with these columns added or replaced, cast to their declared dtype.

        Raises ValueError where a column's shape is not (B,) or (B, T) as declared.
        """
        rows, width = len(self), self.width
        added = {}
        for name, value in columns.items():
            kind, dtype = COLUMNS.get(name, (None, None))
            tensor = torch.as_tensor(value, dtype=dtype)
            shapes = {"row": [(rows,)], "token": [(rows, width)]}.get(kind, [(rows,), (rows, width)])
            if tuple(tensor.shape) not in shapes:
                raise ValueError(
                    f"column {name!r} has shape {tuple(tensor.shape)}; wanted {' or '.join(map(str, shapes))}"
                )
            added[name] = tensor
        return Batch({**self.columns, **added}, self.meta)

    def keep(self, names: Iterable[str]) -> Batch:
        """A batch of those of these columns that exist, without meta: what a worker gets."""
        return Batch({name: self.columns[name] for name in sorted(set(names) & self.columns.keys())})

    def select(self, rows: Sequence[int] | Tensor) -> Batch:
        """The rows at these indices, trimmed to the longest row among them."""
        index = torch.as_tensor(rows, dtype=torch.long)
        width = int(self.lengths[index].max()) if len(index) else 0
        picked = {
            name: value[index][:, :width] if value.ndim == 2 else value[index] for name, value in self.columns.items()
        }
        return Batch(picked, tuple(self.meta[i] for i in index.tolist()) if self.meta else ())

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """The rows of all batches, padded to the widest. Raises ValueError where the batches have different columns."""
        width = max(batch.width for batch in batches)
        names = batches[0].columns.keys()
        for batch in batches:
            if batch.columns.keys() != names:
                raise ValueError(f"cannot concatenate: columns {sorted(names)} and {sorted(batch.columns)}")
        joined = {}
        for name in names:
            parts = [batch.columns[name] for batch in batches]
            if parts[0].ndim == 2:
                parts = [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
            joined[name] = torch.cat(parts)
        return Batch(joined, tuple(row for batch in batches for row in batch.meta))

    def groups(self) -> list[Tensor]:
        """Row indices of each group of `group_ids`, in order of first appearance."""
        rows_of: dict[int, list[int]] = {}
        for row, group in enumerate(self.group_ids.tolist()):
            rows_of.setdefault(group, []).append(row)
        return [torch.tensor(rows) for rows in rows_of.values()]

    def validate(self) -> Batch:
        """The batch itself. Raises ValueError where lengths, masks or dtypes break the batch's rules."""
        if (self.lengths < 1).any() or (self.lengths > self.width).any():
            raise ValueError(f"lengths must lie in 1..{self.width}, got {self.lengths.min()}..{self.lengths.max()}")
        outside = (self.action_mask & ~self.attention_mask).any(1)
        if outside.any():
            raise ValueError(f"row {int(outside.nonzero()[0])}: action_mask is set beyond the row's length")
        if self.action_mask[:, 0].any():
            raise ValueError("action_mask is set on the first token, which nothing predicts")
        for name, value in self.columns.items():
            if name in COLUMNS and value.dtype != COLUMNS[name][1]:
                raise ValueError(f"column {name!r} is {value.dtype}, wanted {COLUMNS[name][1]}")
        return self

    def __reduce__(self):
        # numpy arrays pass through Ray's object store as raw buffers; torch tensors would be pickled
        return _from_arrays, ({name: value.detach().cpu().numpy() for name, value in self.columns.items()}, self.meta)


def _from_arrays(arrays: dict[str, np.ndarray], meta: tuple) -> Batch:
    # torch does not respect the store's read-only buffers, so copy them: ids and floats of one shard, not weights
    return Batch({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, meta)
