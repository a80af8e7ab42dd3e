"""The optimiser: AdamW, its learning-rate schedule, and what DeepSpeed is told about both."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rlhf.interfaces import OptimSettings


def lr_at(step: int, settings: OptimSettings) -> float:
    """The learning rate of optimizer step `step`, counted from 1: linear warm-up that reaches `lr` at `warmup_steps`,
    then the schedule, which reaches `lr * final_lr_ratio` at `total_steps` and stays there."""
    if step < settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    progress = min(1.0, (step - settings.warmup_steps) / max(1, settings.total_steps - settings.warmup_steps))
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    height = 1.0 if settings.schedule == "constant" else settings.final_lr_ratio
    return settings.lr * (height + (1 - height) * shape[settings.schedule])


def adamw(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices only: weights of two or more dimensions, embeddings among
    them (where they are tied they are the output matrix, too), and neither biases nor norms."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, eps=settings.eps
    )


def deepspeed_config(
    model: nn.Module, stage: int, dtype: torch.dtype, world: int, settings: OptimSettings | None
) -> dict[str, Any]:
    """DeepSpeed's config. Batch sizes say one row a rank and no accumulation: the engine itself counts both.

    Of a model under ZeRO 3 only the matrices are partitioned: gathering vectors costs more than they save.
    """
    vectors = [parameter.numel() for parameter in model.parameters() if parameter.ndim < 2]
    config: dict[str, Any] = {
        "train_batch_size": world,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": max(vectors, default=0)},
        "steps_per_print": 2**31,
    }
    if dtype == torch.bfloat16:
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if settings is not None:
        config["gradient_clipping"] = settings.clip_norm
    return config
