"""What every objective promises about its loss as a function of the model's output. A rule's name is its sentence."""

from __future__ import annotations

import dataclasses
import typing
from functools import partial

import cloudpickle
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from data.batch import Batch
from rlhf.interfaces import Output, Unit
from rlhf.testing.arithmetic import units_of
from rlhf.testing.cases import ObjectiveCase, expect_declared, expect_same, rows_of
from rlhf.testing.problems import poisoned, replaced, widened
from rlhf.testing.report import Broken, Skipped

STEP = 1e-5  # of finite differences
PROBES = 8  # entries of `out`
ZERO_ON_POLICY = ("clip_fraction", "approx_kl")  # metrics
POLICY_COLUMNS = ("old_logprobs", "rollout_logprobs")  # log-probs of the policy's own weights, before the step
ALL_LOGPROBS = (*POLICY_COLUMNS, "ref_logprobs")


def it_declares_a_known_output_unit_and_columns(case: ObjectiveCase) -> None:
    objective = case.objective
    for name, kind in (("output", Output), ("unit", Unit)):
        value, known = getattr(objective, name, None), typing.get_args(kind)
        if value not in known:
            raise Broken(f"its `{name}` is {value!r}; take one of {', '.join(known)}")
    columns = getattr(objective, "columns", None)
    if not isinstance(columns, frozenset):
        raise Broken(f"its `columns` are {columns!r}; give a frozenset of column names")
    missing = sorted(columns - case.batch.columns.keys())
    if missing:
        raise Broken(
            f"its `columns` name {', '.join(missing)}, which neither the rollout, nor the algorithm's `needs`, nor its "
            "`advantages` gives; add them there or read another column"
        )


def it_reads_the_columns_that_it_declares_and_no_others(case: ObjectiveCase) -> None:
    told = "it reads {}, which a rank does not get; add the name to `columns`"
    expect_declared(partial(case.objective, case.out), case.shipped, case.batch, case.batch.columns, told)


def it_is_frozen_and_travels_by_value(case: ObjectiveCase) -> None:
    objective = case.objective
    if dataclasses.is_dataclass(objective) and not objective.__dataclass_params__.frozen:
        raise Broken("it can be changed, and each rank has a copy of its own; make it @dataclass(frozen=True)")
    loss, _ = case.slope()
    travelled = cloudpickle.loads(cloudpickle.dumps(objective))
    again, _ = dataclasses.replace(case, objective=travelled).slope()
    expect_same(again, loss, "after pickling, its loss is another ({}); keep no state outside of its fields")


def it_returns_a_loss_with_a_gradient_and_metrics_without(case: ObjectiveCase) -> None:
    out = case.out.clone().requires_grad_()
    loss, metrics = case.objective(out, case.shipped)
    if not isinstance(loss, Tensor) or loss.shape != ():
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise Broken(f"its loss is {shape}, not one number; return the sum, such as token_losses.sum()")
    if not loss.requires_grad or not torch.autograd.grad(loss, out, retain_graph=True)[0].any():
        raise Broken("its loss does not depend on `out`: nothing would be learned; look for a detach() too many")
    if not torch.isfinite(loss):
        raise Broken(f"its loss is {float(loss)} on an ordinary batch; look for a log or a division without a floor")
    for name, value in metrics.items():
        if not isinstance(value, Tensor) or value.shape != ():
            raise Broken(f"its metric {name!r} is not a tensor of one number; return a sum, such as clipped.sum()")
        if value.requires_grad:
            raise Broken(f"its metric {name!r} carries a gradient and keeps the graph alive; detach it")


def losses_and_metrics_of_two_halves_add_up(case: ObjectiveCase) -> None:
    units = units_of(case.shipped, case.objective.unit)
    parts = [[row for unit in units[start::2] for row in unit] for start in (0, 1)]
    results = [case.objective(*rows_of(case, rows)) for rows in (parts[0] + parts[1], *parts)]
    (whole, metrics), (first, one), (second, two) = results
    what = "the halves of a batch do not add up to the whole: {} is {{}}; return a sum over the micro-batch and divide "
    what += "by nothing that depends on its other rows: the engine divides by the global count"
    expect_same(first + second, whole, what.format("the loss"))
    for name, value in metrics.items():
        expect_same((one[name] + two[name]).double(), value.double(), what.format(f"the metric {name!r}"))


def nothing_outside_the_mask_reaches_the_loss(case: ObjectiveCase) -> None:
    loss, derivative = case.slope()
    out = torch.where(case.mask, case.out, torch.nan)
    batch = poisoned(case.shipped)
    told = "NaN outside of action_mask reaches {} ({{}}); select with torch.where(mask, x, 0) before any arithmetic, "
    told += "since NaN * 0 is NaN"
    found, slope = case.slope(out, batch)
    expect_same(found, loss, told.format("the loss"))
    expect_same(slope[case.mask], derivative[case.mask], told.format("the gradient"))
    for name, value in case.metrics(out, batch).items():
        clean = case.metrics(case.out, case.shipped)[name]
        expect_same(torch.tensor(value), torch.tensor(clean), told.format(f"the metric {name!r}"))


def padding_on_the_right_changes_nothing(case: ObjectiveCase) -> None:
    if case.objective.output == "scores":
        out = case.out
    else:
        out = pad(case.out, (0, 3))
    loss, derivative = case.slope()
    found, slope = case.slope(out, widened(case.shipped))
    told = "more padding columns change {} ({{}}); reduce over action_mask, never over the width"
    expect_same(found, loss, told.format("the loss"))
    if case.objective.output != "scores":
        slope = slope[..., : derivative.shape[-1]]
    expect_same(slope, derivative, told.format("the gradient"))


def a_row_without_trained_tokens_is_harmless(case: ObjectiveCase) -> None:
    mask = case.shipped.action_mask.clone()
    mask[0] = False
    loss, derivative = case.slope(batch=replaced(case.shipped, action_mask=mask))
    if not (loss.isfinite() and derivative.isfinite().all()):
        raise Broken("a row whose action_mask is empty makes it NaN; keep the divisor at least 1: clamp(min=1)")


def nothing_is_clipped_on_policy(case: ObjectiveCase) -> str | None:
    """At old == new the ratio is 1."""
    columns = case.objective.columns
    before = ("values",) if case.objective.output == "values" else POLICY_COLUMNS
    if case.objective.output == "scores" or before[0] not in columns:
        raise Skipped("it compares with no column of the policy before the step")
    on_policy = replaced(
        case.shipped, **{name: case.out if case.out.ndim == 2 else case.out[0] for name in before if name in columns}
    )
    metrics = case.metrics(case.out, on_policy)
    found = {name: metrics[name] for name in ZERO_ON_POLICY if name in metrics}
    for name, value in found.items():
        if abs(value) > 1e-4:
            raise Broken(
                f"with {before[0]} equal to its own output, {name} is {value:.3g} and not 0; the ratio of a token must "
                "be exp(out - old) of the same column"
            )
    if found:
        return f"{', '.join(found)}: 0"
    if case.objective.output == "values":
        raise Skipped(f"it reports none of {', '.join(ZERO_ON_POLICY)}")
    _expect_ratios(case, on_policy)
    return "it reports no clip_fraction; its gradient there depends on ratios alone"


def _expect_ratios(case: ObjectiveCase, on_policy: Batch) -> None:
    """The same change of both log-probs of a token leaves its ratio, and so the gradient, as it is."""
    draw = torch.Generator().manual_seed(case.seed)
    shift = 0.5 * torch.randn(case.shipped.tokens.shape, generator=draw, dtype=torch.float64)
    moved = {name: on_policy.columns[name] + shift for name in ALL_LOGPROBS if name in case.objective.columns}
    out = case.out + shift if case.out.ndim == 2 else torch.stack([case.out[0] + shift, case.out[1]])
    _, wanted = case.slope(batch=on_policy)
    _, found = case.slope(out, replaced(on_policy, **moved))
    told = (
        "with old_logprobs equal to its own output, the gradient depends on their size ({}), though each ratio is 1; "
    )
    told += "the ratio of a token must be exp(out - old) of the same column"
    expect_same(found[case.mask], wanted[case.mask], told)


def without_advantage_there_is_no_gradient(case: ObjectiveCase) -> None:
    columns = case.objective.columns
    if "advantages" not in columns:
        raise Skipped("it reads no advantages")
    idle = replaced(case.shipped, advantages=torch.zeros_like(case.shipped.advantages))
    _, derivative = case.slope(batch=idle)
    if not derivative.any():
        return
    others = [name for name, there in (("KL", "ref_logprobs" in columns), ("entropy", case.out.ndim == 3)) if there]
    if others:
        raise Skipped(f"it has another term: {', '.join(others)}")
    raise Broken(
        "where all advantages are 0, its gradient is not; multiply the policy's term by the advantage, nothing else"
    )


def its_gradient_agrees_with_finite_differences(case: ObjectiveCase) -> str:
    held = HeldStops()
    leaf = case.out.clone().requires_grad_()
    with held:
        loss, _ = case.objective(leaf, case.shipped)
    if loss.dtype != torch.float64:
        raise Skipped(f"it computes in {loss.dtype} where the model is float64; too coarse to tell")
    (derivative,) = torch.autograd.grad(loss, leaf)
    middle = float(loss.detach())

    def at(place: Tensor, step: float) -> float:
        moved = case.out.clone()
        moved[tuple(place)] += step
        with held.again():
            loss, _ = case.objective(moved.requires_grad_(), case.shipped)
        return float(loss.detach())

    draw = torch.Generator().manual_seed(case.seed)
    places = case.mask.nonzero()
    places = places[torch.randperm(len(places), generator=draw)[:PROBES]]
    smooth = 0
    for place in places:
        left, right = (middle - at(place, -STEP)) / STEP, (at(place, STEP) - middle) / STEP
        size = max(abs(left), abs(right))
        if abs(left - right) > 0.01 * size + 1e-5:  # a kink
            continue
        smooth += 1
        slope, analytic = (left + right) / 2, float(derivative[tuple(place)])
        if abs(slope - analytic) > 1e-3 * size + 1e-5:
            raise Broken(
                f"autograd says {analytic:.5g} where finite differences say {slope:.5g}, at entry {tuple(place.tolist())} "
                "of `out`; look at your own backward(), in-place changes and .data"
            )
    if not smooth:
        raise Skipped("every probed entry lies at a kink")
    return f"at {smooth} entries"


class HeldStops(TorchFunctionMode):
    """What detach() and no_grad() cut off is held at its value of the first call, as its derivative says; a finite
    difference would move it."""

    def __init__(self) -> None:
        super().__init__()
        self._values: list[Tensor] = []
        self._next: int | None = None  # None while recording
        self._inside_no_grad = False  # the user's own; the forward() of an autograd.Function has no graph, either

    def again(self) -> HeldStops:
        self._next = 0
        return self

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch._C._set_grad_enabled:
            self._inside_no_grad = not args[0]
        stops = self._inside_no_grad or func in (Tensor.detach, torch.detach, Tensor.data.__get__)
        return self._held(result) if stops and isinstance(result, Tensor) else result

    def _held(self, result: Tensor) -> Tensor:
        if self._next is None:
            self._values.append(result.clone())
            return result
        if self._next == len(self._values):
            raise Skipped("it detaches other values from call to call")
        self._next += 1
        return self._values[self._next - 1]


FIRST = (
    it_declares_a_known_output_unit_and_columns,
    it_reads_the_columns_that_it_declares_and_no_others,
    it_returns_a_loss_with_a_gradient_and_metrics_without,
)
RULES = (
    it_is_frozen_and_travels_by_value,
    losses_and_metrics_of_two_halves_add_up,
    nothing_outside_the_mask_reaches_the_loss,
    padding_on_the_right_changes_nothing,
    a_row_without_trained_tokens_is_harmless,
    nothing_is_clipped_on_policy,
    without_advantage_there_is_no_gradient,
    its_gradient_agrees_with_finite_differences,
)
