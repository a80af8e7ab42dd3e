"""The optimiser, its learning-rate schedule, and what DeepSpeed is told about both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhf.interfaces import OptimSettings

if TYPE_CHECKING:  # DeepSpeed is not imported before init_distributed has named the accelerator
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

GROWTH_STEPS = 2000  # as in torch.amp.GradScaler


def lr_at(step: int, settings: OptimSettings) -> float:
    """The learning rate of optimizer step `step`, counted from 1: linear warm-up that reaches `lr` at `warmup_steps`,
    then the schedule, which reaches `lr * final_lr_ratio` at `total_steps` and stays there.

    wsd, "warm-up, stable, decay" (MiniCPM, Hu et al. 2024, section 4): `lr` until the last `decay_steps`, in which it falls
    linearly.
    """
    if step < settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    start = settings.warmup_steps
    if settings.schedule == "wsd":
        start = max(start, settings.total_steps - settings.decay_steps)
    progress = min(1.0, max(0, step - start) / max(1, settings.total_steps - start))
    falling = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    height = 1.0 if settings.schedule == "constant" else settings.final_lr_ratio
    return settings.lr * (height + (1 - height) * falling)


def optimizer(model: nn.Module, settings: OptimSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), or Adafactor (Shazeer and Stern 2018) without a first moment, whose second moment
    decays by 1 - step^-0.8 (section 7.2), whose updates are clipped at a root mean square of 1 (section 6), and whose step
    size is the schedule's alone.

    Either decays matrices only: weights of two or more dimensions, embeddings among them (where they are tied they are the
    output matrix, too), and neither biases nor norms.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "adafactor":
        from transformers.optimization import Adafactor  # imports the whole Trainer

        return Adafactor(groups, lr=settings.lr, decay_rate=-0.8, scale_parameter=False, relative_step=False)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)


def grown_loss_scale(scaler: DynamicLossScaler) -> float:
    """The loss scale of the next step: twice the last one's after every GROWTH_STEPS without an overflow. DeepSpeed itself would
    double it before it divides the gradient by it, and so take a step of half a gradient."""
    since_overflow = scaler.cur_iter - scaler.last_overflow_iter - 1
    if since_overflow and since_overflow % GROWTH_STEPS == 0:
        scaler.cur_scale *= 2
    return scaler.cur_scale


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
    elif dtype == torch.float16:
        # dynamic loss scaling (Micikevicius et al. 2018, section 3.2) with the numbers of torch.amp.GradScaler: from 2^16, half
        # after an overflow; how it grows, `grown_loss_scale` says
        never = 2**31
        config["fp16"] = {"enabled": True, "loss_scale": 0, "initial_scale_power": 16, "hysteresis": 1}
        config["fp16"]["loss_scale_window"] = never
    if dtype != torch.float32:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if settings is not None and stage > 0:  # the engine itself clips at stage 0, where DeepSpeed tells no norm
        config["gradient_clipping"] = settings.clip_norm
    return config
