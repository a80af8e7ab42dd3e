"""Tensor parallel: a model's linear layers are replaced by this rank's part of them, which are DeepSpeed's AutoTP layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.errors import UserError
from rlhf.engine.grid import UNCUT, Grid, process_groups
from rlhf.engine.inputs import Kind
from rlhf.engine.models import EngineModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# of transformers' plans: the axis of the weight (out, in) that is cut; None: it stays whole
AXES = {"colwise": 0, "rowwise": 1, "replicated_with_grad_allreduce": None, "embedding_rowwise": None}
# relative, of states after the cut, by dtype: a wrong cut is off by about 1
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def cut_matrices(engine_model: EngineModel, grid: Grid, role: str, device: torch.device) -> dict[str, int]:
    """Cuts the body as the architecture's own plan in transformers says (Shoeybi et al. 2019, section 3: columns, then rows), and
    moves the model to the device. {weight's name: axis that is cut}; embedding, output layer and norms stay whole.

    Raises UserError where the architecture is no decoder, has no plan that DeepSpeed's layers can follow, or does not divide.
    """
    from deepspeed import set_autotp_mode
    from deepspeed.module_inject.layers import LinearAllreduce, LinearLayer

    model = engine_model.model
    planned = _planned(model, engine_model.form.kind, role)
    _check_divisible(model, grid.parts, role)
    wanted = _states(model)
    set_autotp_mode(training=True)  # process-wide; it speaks to AutoTP's layers alone
    group = process_groups(grid).get_slice_parallel_group()
    cut: dict[int, int] = {}  # by the parameter's identity
    for name, module, style in planned:
        if AXES[style] is not None:
            layer = {0: LinearLayer, 1: LinearAllreduce}[AXES[style]](module, group)
            model.base_model.set_submodule(name, layer)
            cut[id(layer.weight)] = AXES[style]
            if style == "colwise" and layer.bias is not None:
                cut[id(layer.bias)] = 0
        elif style == "replicated_with_grad_allreduce":
            # its input is a part, so each rank has but a part of its gradient
            for parameter in module.parameters():
                parameter.register_hook(lambda gradient: _summed(gradient, group))
    model.to(device)
    off = (_states(model) - wanted.to(device)).norm() / wanted.norm()
    if not off < TOLERANCE[wanted.dtype]:
        raise UserError(
            f"models.{role}.tensor_parallel: {type(model).__name__} computes something else when cut; {UNCUT}"
        )
    return {name: cut[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in cut}


def whole(part: Tensor, axis: int, grid: Grid) -> Tensor:
    """The matrix of which each rank of the group has a part; every rank of the group must call."""
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(grid.parts)]
    dist.all_gather(parts, part.contiguous(), group=process_groups(grid).get_slice_parallel_group())
    return torch.cat(parts, axis)


def _planned(model: PreTrainedModel, kind: Kind, role: str) -> list[tuple[str, nn.Module, str]]:
    """(name in the body, module, style) of each module that the plan speaks of."""
    plan = getattr(model.base_model.config, "base_model_tp_plan", None) if kind == "decoder" else None
    plan = plan or {}
    unknown = sorted(set(plan.values()) - AXES.keys())
    if not plan or unknown:
        what = (
            f"cuts in ways that are not known here ({', '.join(unknown)})"
            if unknown
            else "has no plan for it in transformers"
        )
        raise UserError(f"models.{role}.tensor_parallel: {type(model).__name__} {what}; {UNCUT}")
    patterns = {re.compile(re.escape(pattern).replace(r"\*", r"\d+")): style for pattern, style in plan.items()}
    return [
        (name, module, style)
        for name, module in model.base_model.named_modules()
        for pattern, style in patterns.items()
        if pattern.fullmatch(name)
    ]


def _check_divisible(model: PreTrainedModel, parts: int, role: str) -> None:
    for field in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        size = getattr(model.config, field, None)
        if size is not None and size % parts:
            raise UserError(f"models.{role}.tensor_parallel: {parts} does not divide the architecture's {field} {size}")


@torch.no_grad()
def _states(model: PreTrainedModel) -> Tensor:
    training = model.training
    model.eval()
    states = model.base_model(
        input_ids=torch.tensor([[1, 2, 3, 4]], device=model.device), use_cache=False
    ).last_hidden_state
    model.train(training)
    return states


def _summed(gradient: Tensor, group: dist.ProcessGroup) -> Tensor:
    gradient = gradient.contiguous()
    dist.all_reduce(gradient, group=group)
    return gradient
