"""The objectives of pretraining: each a language model's loss and the row transform that says what there is to predict.

The transform is the class of `data.denoising` that it inherits from; docs/pretraining.md says which goes with which architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from data.denoising.corruption import PrefixSplit
from data.denoising.denoisers import MixtureOfDenoisers
from data.denoising.masking import Masking
from data.denoising.spans import SpanCorruption
from rlhf.objectives.supervised import LanguageModel

PREFIX: frozenset[str] = frozenset({"prefix_lengths"})


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
