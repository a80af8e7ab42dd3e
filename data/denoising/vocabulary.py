"""What denoising knows about a tokenizer: which tokens are special, where words begin, the sentinels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    ordinary: np.ndarray  # (ordinary tokens,) int32: ids of all that are not special
    special: np.ndarray  # (size,) bool
    begins_word: np.ndarray  # (size,) bool
    ids: dict[str, int]  # of the special tokens that a corruption asked for
    end: int  # end of text

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, special_tokens: tuple[str, ...]) -> Vocabulary:
        """Raises UserError where a special token is missing."""
        raise NotImplementedError
