"""What the engine relies on: the gradient of a real model's parameters, however the rows are cut; and memory."""

from __future__ import annotations

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.batch import BASE
from rlhf.testing.arithmetic import smallest_budget
from rlhf.testing.cases import ObjectiveCase, expect_same, expect_same_gradient
from rlhf.testing.problems import other_order, poisoned
from rlhf.testing.report import Broken, Skipped

LARGEST = 6  # times `out`: one tensor on the way
HELD = 48  # times `out`: all that is kept for the backward pass


def the_gradient_is_the_same_for_any_microbatches(case: ObjectiveCase) -> None:
    least = smallest_budget(case.batch, case.objective.unit)
    for budget in (least, 2 * least + 1):
        expect_same_gradient(
            case.gradient_of(case.batch, budget=budget),
            case.gradient,
            "the model's gradient depends on the size of micro-batches ({}); return sums over items, and compare a row "
            'with others only inside one group, with unit "pairs"',
        )


def the_gradient_is_the_same_for_any_ranks(case: ObjectiveCase) -> None:
    least = smallest_budget(case.batch, case.objective.unit)
    for ranks in (2, 3):
        expect_same_gradient(
            case.gradient_of(case.batch, shards=ranks, budget=2 * least),
            case.gradient,
            f"the model's gradient is another on {ranks} ranks than on one ({{}}); divide by nothing: a rank sees its own "
            "rows only, the engine divides by the global count",
        )


def the_gradient_is_the_same_packed_or_padded(case: ObjectiveCase) -> None:
    told = (
        "the model's gradient is another where rows are padded than where they are packed ({}); read columns through "
    )
    expect_same_gradient(case.gradient_of(case.batch, packing=False), case.gradient, told + "action_mask")


def the_gradient_is_the_same_in_any_order_of_rows(case: ObjectiveCase) -> None:
    order = other_order(case.batch, within_groups=case.objective.unit != "pairs")
    told = "{} depends on the order of the rows ({{}}); say which rows belong together with group_ids"
    loss, derivative = case.slope()
    out = case.out[order] if case.objective.output == "scores" else case.out[..., order, :]
    found, slope = case.slope(out, case.shipped.select(order))
    expect_same(found, loss, told.format("the loss"))
    wanted = derivative[order] if case.objective.output == "scores" else derivative[..., order, :]
    expect_same(slope, wanted, told.format("the gradient"))
    expect_same_gradient(case.gradient_of(case.batch.select(order)), case.gradient, told.format("the model's gradient"))


def nothing_outside_the_mask_reaches_the_model(case: ObjectiveCase) -> None:
    found = case.gradient_of(poisoned(case.batch))
    told = (
        "NaN in a column, outside of action_mask, reaches the model's gradient ({}); select with torch.where(mask, x, "
    )
    expect_same_gradient(found, case.gradient, told + "0) before any arithmetic")


def it_needs_memory_for_a_few_columns_alone(case: ObjectiveCase) -> str:
    """No (T, T) tensor, none as large as the vocabulary."""
    batch = case.long.keep(BASE | case.objective.columns)
    if case.objective.columns - batch.columns.keys():
        raise Skipped("the algorithm gives no such columns for long rows")
    draw = torch.Generator().manual_seed(case.seed)
    pair = (2, *batch.tokens.shape)
    shapes = {"scores": (len(batch),), "logprobs_entropy": pair, "logprobs_normalizer": pair}
    shape = shapes.get(case.objective.output, tuple(batch.tokens.shape))
    out = (torch.randn(shape, generator=draw, dtype=torch.float64) * 0.2 - 4).requires_grad_()
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    unit = 8 * max(out.numel(), batch.tokens.numel())
    with saved_tensors_hooks(pack, lambda tensor: tensor), LargestStorage() as largest:
        loss, _ = case.objective(out, batch)
        torch.autograd.grad(loss, out)
    one, held = largest.bytes / unit, sum(kept.values()) / unit
    if one > LARGEST or held > HELD:
        raise Broken(
            f"with rows of {batch.width} tokens it makes a tensor {one:.0f} times as large as `out` and keeps {held:.0f} "
            f"times for the backward pass; at most {LARGEST} and {HELD}: make no (T, T) or vocabulary-sized tensor"
        )
    return f"largest tensor {one:.1f} x out, kept {held:.1f} x out"


class LargestStorage(TorchDispatchMode):
    """The memory of the largest tensor that any operation gave, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [leaf.untyped_storage().nbytes() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.bytes = max([self.bytes, *found])
        return result


RULES = (
    the_gradient_is_the_same_for_any_microbatches,
    the_gradient_is_the_same_for_any_ranks,
    the_gradient_is_the_same_packed_or_padded,
    the_gradient_is_the_same_in_any_order_of_rows,
    nothing_outside_the_mask_reaches_the_model,
    it_needs_memory_for_a_few_columns_alone,
)
