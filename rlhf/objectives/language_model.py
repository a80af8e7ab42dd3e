"""The objectives of pretraining and SFT: a language model's loss, alone or with a row transform that hides part of the text.

The transform is the class of `data.denoising` that an objective inherits from; docs/pretraining.md says which objective goes with
which architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data.denoising.corruption import PrefixSplit
from data.denoising.denoisers import MixtureOfDenoisers
from data.denoising.masking import Masking
from data.denoising.spans import SpanCorruption
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch

PREFIX: frozenset[str] = frozenset({"prefix_lengths"})


@dataclass(frozen=True)
class LanguageModel:
    """Negative log-likelihood of the trained tokens.

    z_loss: weight of (log Z)^2, which keeps the normaliser of the logits near 1 (PaLM, Chowdhery et al. 2022, section 5: 1e-4).
    Where it is above 0, the metrics are the two parts of the loss: "nll" and, weighted, "z_loss".
    """

    z_loss: float = 0.0

    unit: ClassVar[Unit] = "tokens"
    columns: ClassVar[frozenset[str]] = frozenset()

    @property
    def output(self) -> Output:
        return "logprobs_normalizer" if self.z_loss else "logprobs"

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs, or with z_loss (2, b, T): log-probs and log Z."""
        mask = microbatch.action_mask
        if not self.z_loss:
            return -masked.sum(out, mask), {}
        logprobs, normalizer = out
        nll = -masked.sum(logprobs, mask)
        # values outside the mask must be gone before the square, whose gradient would be 0 * NaN
        penalty = self.z_loss * normalizer.where(mask, 0).square().sum()
        return nll + penalty, {"nll": nll.detach(), "z_loss": penalty.detach()}


@dataclass(frozen=True)
class PrefixLanguageModel(PrefixSplit, LanguageModel):
    """The rest of a text after a prefix that is read in both directions (Raffel et al. 2020, section 3.2.1)."""

    columns: ClassVar[frozenset[str]] = PREFIX


@dataclass(frozen=True)
class MaskedLanguageModel(Masking, LanguageModel):
    """Masked tokens of a text that an encoder reads whole (Devlin et al. 2019)."""

    columns: ClassVar[frozenset[str]] = frozenset({"inputs"})


@dataclass(frozen=True)
class SpanLanguageModel(SpanCorruption, LanguageModel):
    """Dropped spans of a text (Raffel et al. 2020, section 3.1.4)."""

    columns: ClassVar[frozenset[str]] = PREFIX


@dataclass(frozen=True)
class DenoisersLanguageModel(MixtureOfDenoisers, LanguageModel):
    """Short spans, long or many spans, and continuations, told apart by a mode token (Tay et al. 2022, UL2)."""

    columns: ClassVar[frozenset[str]] = PREFIX
