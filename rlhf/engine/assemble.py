"""A role's model on this rank: built, cut where ranks share it, and handed to DeepSpeed where it is trained or sharded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.errors import UserError
from rlhf.engine.build import build_model
from rlhf.engine.device import Device
from rlhf.engine.grid import Grid, process_groups
from rlhf.engine.inputs import Form
from rlhf.engine.optim import deepspeed_config, optimizer
from rlhf.engine.pipeline import CONFIG as PIPELINE_CONFIG
from rlhf.engine.pipeline import Pipeline, cut_layers
from rlhf.engine.runner import Runner, Whole
from rlhf.engine.tensor import cut_matrices
from rlhf.engine.weights import WeightReader
from rlhf.interfaces import ModelBuild


@dataclass(frozen=True)
class Assembly:
    """deepspeed: its engine; None of a model that is neither trained nor sharded nor cut into stages. parameters: this rank's.
    stage: of ZeRO."""

    deepspeed: Any | None
    runner: Runner
    weights: WeightReader
    parameters: Sequence[nn.Parameter]
    form: Form
    stage: int


def assemble(build: ModelBuild, device: Device, grid: Grid) -> Assembly:
    """Every rank must call. Raises UserError where the model cannot be built, cut or trained here."""
    dtype, trained = device.dtype(build.dtype), build.optim is not None
    # stages 1 and 2 shard what is there in training alone
    stage = build.zero_stage if trained or build.zero_stage == 3 else 0
    if trained and dtype != torch.float32:
        # in 16 bits, DeepSpeed's stage 0 keeps no fp32 weights, and its stage 1, which is all that a pipeline takes, computes as
        # stage 2 does but holds more
        stage = max(stage, 1 if grid.stages > 1 else 2)
    model = build_model(build, dtype)
    axes = cut_matrices(model, grid, build.role, device.torch_device) if grid.parts > 1 else {}
    module, stages = cut_layers(model, grid, build.role) if grid.stages > 1 else (model, {})
    engine = None
    if trained or stage == 3 or grid.stages > 1:
        import deepspeed  # not before init_distributed has named the accelerator

        if trained and dtype == torch.float16 and not deepspeed.get_accelerator().is_fp16_supported():
            advice = f"float16 is not for this device ({device.kind}); take bfloat16 or float32"
            raise UserError(f"models.{build.role}.dtype: {advice}")
        config = deepspeed_config(module, stage, dtype, grid.replicas, build.optim)
        deepspeed.utils.groups.mpu = None  # of an engine before
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer(module, build.optim) if trained else None,
            config=config | (PIPELINE_CONFIG if grid.stages > 1 else {}),
            mpu=process_groups(grid) if grid.parts > 1 and grid.stages == 1 else None,  # a pipeline brings its own
            dist_init_required=False,
        )
    if trained and dtype == torch.float16:
        # at its smallest scale it would raise at the next overflow, of a step that may be in flight already
        engine.optimizer.loss_scaler.raise_error_at_min_scale = False
    if grid.stages > 1:
        runner = Pipeline(engine, model, device.torch_device)
    else:
        runner = Whole(engine or model.to(device.torch_device), model.form, device.torch_device)
    return Assembly(
        deepspeed=engine,
        runner=runner,
        weights=WeightReader(model.model, grid, axes, stages),
        parameters=list(module.parameters()),
        form=model.form,
        stage=stage,
    )
