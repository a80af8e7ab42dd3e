"""Rows and an objective with planted trouble, for test_planted_trouble.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.batch import Batch
from data.feeds import permutation
from rlhf.interfaces import Result
from rlhf.objectives import LanguageModel

ROWS, BATCH, SEED, POISONED_STEP = 960, 16, 0, 27  # steps counted from 0
WORDS = ["the", "king", "and", "queen", "of", "the", "old", "land", "ride", "to", "the", "sea", "at", "night"]


def texts(poison: bool = False) -> Iterator[dict[str, str]]:
    """Sentences of a dozen words; those of one step, by the phase's seed, are letters drawn at random if poisoned."""
    generator = np.random.default_rng(1)
    step = slice(POISONED_STEP * BATCH, (POISONED_STEP + 1) * BATCH)
    poisoned = set(permutation(ROWS, SEED, 0)[step].tolist()) if poison else set()
    for row in range(ROWS):
        words = " ".join(generator.choice(WORDS, 12))
        letters = "".join(generator.choice(list("QXZJKVWY#@%&"), 60))
        yield {"text": letters if row in poisoned else words}


@dataclass(frozen=True)
class BreaksOnce(LanguageModel):
    """The loss is no number in the batches that hold a row of letters."""

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        loss, metrics = super().__call__(out, microbatch)
        ordinary = float(-out.sum() / microbatch.action_mask.sum()) < 6.0
        return loss if ordinary or not torch.is_grad_enabled() else loss * torch.nan, metrics
