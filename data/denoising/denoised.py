"""Rows that are corrupted as they are drawn, so that every pass over the data corrupts them differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.batch import Batch
from data.denoising.corruption import Corrupted, Corruption
from data.denoising.vocabulary import Vocabulary


@dataclass(frozen=True)
class Denoised:
    """Wraps a feed (`data.feeds`) or a set of examples and corrupts its rows. A number always gives the same corrupted rows.

    Rows with a prompt and an answer are not texts: where the corruption has a prefix, their prefix is the prompt, and the model
    predicts the rest unchanged.
    """

    rows: Any  # Feed, Examples or TokenRows
    corruption: Corruption
    vocabulary: Vocabulary
    seed: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getattr__(self, name: str) -> Any:
        """All else is that of the rows."""
        if name == "rows":  # a copy asks before it has fields
            raise AttributeError(name)
        return getattr(self.rows, name)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """tokens, lengths, action_mask, meta, and prefix_lengths or inputs."""
        corrupted, meta = [], []
        for number in numbers:
            for place, row in enumerate(self.rows.rows(number)):
                generator = np.random.default_rng((self.seed, number, place))
                corrupted.append(self._corrupt(row.tokens, row.mask, generator))
                meta.append(row.meta)
        return batch_of(corrupted, meta)

    def _corrupt(self, tokens: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> Corrupted:
        found = self.corruption.corrupt(tokens, self.vocabulary, generator)
        if found.prefix_length is None or mask[1:].all():
            return found
        # in a row without an answer the model predicts nothing
        return Corrupted(tokens, mask, prefix_length=int(mask.argmax()) if mask.any() else len(tokens) - 1)


def batch_of(rows: Sequence[Corrupted], meta: Sequence[dict[str, Any]] = ()) -> Batch:
    """A batch of the rows, padded. All rows have a prefix, or all have inputs, or none has either."""
    batch = Batch.from_rows([row.tokens for row in rows], [row.mask for row in rows], meta)
    if rows[0].prefix_length is not None:
        return batch.with_columns(prefix_lengths=[row.prefix_length for row in rows])
    if rows[0].inputs is None:
        return batch
    inputs = np.zeros(tuple(batch.tokens.shape), np.int32)
    for number, row in enumerate(rows):
        inputs[number, : len(row.inputs)] = row.inputs
    return batch.with_columns(inputs=inputs)
