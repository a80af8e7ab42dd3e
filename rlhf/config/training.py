"""Settings of training: the optimizer, batches that grow, and the recovery from loss spikes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf.config.node import Fraction, Node


class Optim(Node):
    name: Literal["adamw", "adafactor"] = "adamw"
    lr: float = Field(3e-4, gt=0)
    # of AdamW; Adafactor has no first moment, and the decay of its second moment is 1 - step ** -0.8
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)  # of AdamW
    weight_decay: float = Field(0.1, ge=0)  # of matrices only
    warmup: Fraction = 0.05  # share of the phase's steps
    warmup_steps: int | None = Field(None, ge=0)  # instead of the share
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"  # wsd: warm-up, stable, decay
    decay: Fraction = 0.2  # of wsd: the share of the phase's steps at its end in which the rate falls linearly
    final_lr_ratio: Fraction = 0.1
    clip_norm: float = Field(1.0, gt=0)


class Ramp(Node):
    """Batches grow linearly from `batch_size` rows to the phase's own batch_size (Brown et al. 2020)."""

    batch_size: int = Field(ge=1)  # rows of the first step
    tokens: int = Field(ge=1)  # until the full size is reached; a row counts as max_length tokens


class Spikes(Node):
    """After a step whose loss or gradient norm leaps or is not finite, the run goes back to its last checkpoint and skips
    the batches since then (Chowdhery et al. 2022, section 5.1)."""

    window: int = Field(64, ge=16)  # earlier steps that a step is compared with
    threshold: float = Field(10.0, gt=0)  # robust standard deviations that count as a leap
    at_most: int = Field(8, ge=1)  # spikes; one more ends the run
