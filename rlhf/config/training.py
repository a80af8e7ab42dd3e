"""The configuration of training: the optimiser, the size of its steps, and what is done about steps that go wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf.config.node import Fraction, Node


class Optim(Node):
    name: Literal["adamw", "adafactor"] = "adamw"
    lr: float = Field(3e-4, gt=0)
    betas: tuple[float, float] = (
        0.9,
        0.95,
    )  # of AdamW; Adafactor has no first moment, and its second is 1 - step ** -0.8
    eps: float = Field(1e-8, gt=0)  # of AdamW
    weight_decay: float = Field(0.1, ge=0)  # on matrices only
    warmup: Fraction = 0.05  # share of the phase's steps
    warmup_steps: int | None = Field(None, ge=0)  # instead of the share
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    decay: Fraction = 0.2  # of wsd: the last share of the phase's steps, in which the rate falls linearly
    final_lr_ratio: Fraction = 0.1
    clip_norm: float = Field(1.0, gt=0)


class Ramp(Node):
    """Smaller batches first: from `batch_size` rows a step linearly to the phase's own (Brown et al. 2020)."""

    batch_size: int = Field(ge=1)  # rows of the first step
    tokens: int = Field(ge=1)  # after which the full size is reached; a row counts as max_length tokens


class Spikes(Node):
    """A step whose loss or gradient norm leaps, or is not finite, sends the run back to its last checkpoint; the batches since
    then are skipped (Chowdhery et al. 2022, section 5.1)."""

    window: int = Field(64, ge=16)  # steps that a step is compared with
    threshold: float = Field(10.0, gt=0)  # leaps of so many robust standard deviations
    at_most: int = Field(8, ge=1)  # incidents; the next one ends the run
