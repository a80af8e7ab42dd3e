"""Objectives of a user, good and broken: each mistake is called by its name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from broken import expect_broken

from rlhf.ops import masked
from rlhf.testing import ConformanceError, check


@dataclass(frozen=True)
class Ratio:
    """A policy objective, right: the surrogate without a clip. Those below each spoil one thing in it."""

    output = "logprobs"
    unit = "tokens"
    columns = frozenset({"old_logprobs", "advantages"})

    def terms(self, out, batch):
        mask = batch.action_mask
        ratio = torch.where(mask, out - batch.old_logprobs, 0).exp()
        return torch.where(mask, -ratio * torch.where(mask, batch.advantages, 0), 0)

    def __call__(self, out, microbatch):
        return self.terms(out, microbatch).sum(), {}


@dataclass(frozen=True)
class Mean(Ratio):
    def __call__(self, out, microbatch):
        return masked.mean(self.terms(out, microbatch), microbatch.action_mask), {}


@dataclass(frozen=True)
class CentresInMicrobatch(Ratio):
    def __call__(self, out, microbatch):
        mask = microbatch.action_mask
        centred = microbatch.advantages - masked.mean(microbatch.advantages, mask)
        return super().__call__(out, microbatch.with_columns(advantages=centred))


@dataclass(frozen=True)
class MaskTimesNan(Ratio):
    def terms(self, out, batch):
        return -(out - batch.old_logprobs).exp() * batch.advantages * batch.action_mask


@dataclass(frozen=True)
class SumsBeforeItSelects(Ratio):
    def terms(self, out, batch):
        ratio = (out - batch.old_logprobs).sum(1, keepdim=True).clamp(-1, 1).exp()
        return torch.where(batch.action_mask, -ratio * batch.advantages, 0)


@dataclass(frozen=True)
class ForgetsOld(Ratio):
    def terms(self, out, batch):
        mask = batch.action_mask
        return torch.where(mask, -torch.where(mask, out, 0).exp() * torch.where(mask, batch.advantages, 0), 0)


@dataclass(frozen=True)
class OffByOne(Ratio):
    def terms(self, out, batch):
        old = torch.where(batch.action_mask, batch.old_logprobs, 0).roll(1, dims=1)
        ratio = torch.where(batch.action_mask, out - old, 0).exp()
        return torch.where(batch.action_mask, -ratio * torch.where(batch.action_mask, batch.advantages, 0), 0)


@dataclass(frozen=True)
class OffByOneWithMetric(OffByOne):
    def __call__(self, out, microbatch):
        old = torch.where(microbatch.action_mask, microbatch.old_logprobs, 0).roll(1, dims=1)
        gap = masked.sum((out.detach() - old).square() / 2, microbatch.action_mask)
        return super().__call__(out, microbatch)[0], {"approx_kl": gap}


@dataclass(frozen=True)
class ReadsUndeclared(Ratio):
    def __call__(self, out, microbatch):
        return (self.terms(out, microbatch) * microbatch.rewards[:, None]).sum(), {}


@dataclass(frozen=True)
class PairsOfTokens(Ratio):
    def terms(self, out, batch):
        terms = super().terms(out, batch)
        size = terms.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        return torch.where(causal, terms[:, None, :], 0).sum(2) / size * 0 + terms


@dataclass(frozen=True)
class OneHot(Ratio):
    def terms(self, out, batch):
        tokens = torch.nn.functional.one_hot(batch.tokens.long())
        return super().terms(out, batch) * tokens.sum(-1)


@dataclass(frozen=True)
class Detached(Ratio):
    def __call__(self, out, microbatch):
        return self.terms(out.detach(), microbatch).sum().requires_grad_() + 0 * out[microbatch.action_mask].sum(), {}


@dataclass(frozen=True)
class MetricWithGraph(Ratio):
    def __call__(self, out, microbatch):
        loss, _ = super().__call__(out, microbatch)
        return loss, {"surrogate": loss}


@dataclass(frozen=True)
class AMeanAsMetric(Ratio):
    def __call__(self, out, microbatch):
        loss, _ = super().__call__(out, microbatch)
        return loss, {"advantage": masked.mean(microbatch.advantages, microbatch.action_mask)}


@dataclass(frozen=True)
class OneValueAToken(Ratio):
    def __call__(self, out, microbatch):
        return self.terms(out, microbatch), {}


@dataclass(frozen=True)
class DividesByTrained(Ratio):
    unit = "rows"

    def __call__(self, out, microbatch):
        return (self.terms(out, microbatch).sum(1) / microbatch.action_mask.sum(1)).sum(), {}


@dataclass(frozen=True)
class MeanOverWidth(Ratio):
    unit = "rows"

    def __call__(self, out, microbatch):
        return self.terms(out, microbatch).mean(1).sum(), {}


@dataclass(frozen=True)
class NextRow(Ratio):
    """Compares a row with the one that happens to follow it."""

    unit = "rows"

    def __call__(self, out, microbatch):
        rows = self.terms(out, microbatch).sum(1)
        return (rows * rows.roll(-1).detach().sign()).sum(), {}


@dataclass(frozen=True)
class PullsUp(Ratio):
    """A term that no advantage multiplies."""

    def terms(self, out, batch):
        return super().terms(out, batch) - 0.1 * torch.where(batch.action_mask, out, 0)


class Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, error):
        ctx.save_for_backward(x)
        ctx.error = error
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 + ctx.error) * ctx.saved_tensors[0].exp(), None


@dataclass(frozen=True)
class OwnDerivative(Ratio):
    error: float = 0.1

    def terms(self, out, batch):
        mask = batch.action_mask
        ratio = Exponential.apply(torch.where(mask, out - batch.old_logprobs, 0), self.error)
        return torch.where(mask, -ratio * torch.where(mask, batch.advantages, 0), 0)


@dataclass
class Changeable:
    output = Ratio.output
    unit = Ratio.unit
    columns = Ratio.columns
    seen: list = field(default_factory=list)

    def __call__(self, out, microbatch):
        return Ratio()(out, microbatch)


@dataclass(frozen=True)
class UnknownUnit(Ratio):
    unit = "sequences"


BROKEN_OBJECTIVES = {
    Mean: ("losses and metrics of two halves add up", "divide by nothing"),
    CentresInMicrobatch: ("the gradient is the same for any microbatches", "return sums over items"),
    MaskTimesNan: ("nothing outside the mask reaches the loss", r"torch.where\(mask, x, 0\) before"),
    SumsBeforeItSelects: ("nothing outside the mask reaches the loss", "not finite"),
    ForgetsOld: ("nothing is clipped on policy", "the ratio of a token"),
    OffByOne: ("nothing is clipped on policy", "of the same column"),
    OffByOneWithMetric: ("nothing is clipped on policy", "approx_kl is"),
    ReadsUndeclared: ("it reads the columns that it declares and no others", "reads rewards"),
    PairsOfTokens: ("it needs memory for a few columns alone", r"make no \(T, T\)"),
    OneHot: ("it needs memory for a few columns alone", "vocabulary"),
    Detached: ("it returns a loss with a gradient and metrics without", "detach"),
    MetricWithGraph: ("it returns a loss with a gradient and metrics without", "'surrogate' carries a gradient"),
    AMeanAsMetric: ("losses and metrics of two halves add up", "'advantage'"),
    OneValueAToken: ("it returns a loss with a gradient and metrics without", "not one number"),
    DividesByTrained: ("a row without trained tokens is harmless", "clamp"),
    MeanOverWidth: ("padding on the right changes nothing", "never over the width"),
    NextRow: ("the gradient is the same in any order of rows", "group_ids"),
    PullsUp: ("without advantage there is no gradient", "multiply"),
    OwnDerivative: ("its gradient agrees with finite differences", "backward"),
    Changeable: ("it is frozen and travels by value", "frozen=True"),
    UnknownUnit: ("it declares a known output unit and columns", "'sequences'; take one of tokens, rows, pairs"),
}


def test_the_objective_that_is_spoiled_below_conforms():
    check(Ratio())


@pytest.mark.parametrize("broken", BROKEN_OBJECTIVES, ids=lambda kind: kind.__name__)
def test_the_rule_that_an_objective_breaks_is_named(broken):
    rule, advice = BROKEN_OBJECTIVES[broken]
    expect_broken(broken(), rule, advice)


@dataclass(frozen=True)
class StoppedWeight(Ratio):
    """CISPO: the gradient flows through the log-prob alone, which plain finite differences would deny."""

    def terms(self, out, batch):
        mask = batch.action_mask
        with torch.no_grad():
            weight = torch.where(mask, out - batch.old_logprobs, 0).exp().clamp(max=1.2)
        return -weight * torch.where(mask, out, 0) * torch.where(mask, batch.advantages, 0)


@pytest.mark.parametrize("objective", [StoppedWeight(), OwnDerivative(error=0.0)])
def test_a_stopped_gradient_and_a_derivative_of_ones_own_are_no_mistakes(objective):
    assert "ok       objective  its gradient agrees with finite differences" in str(check(objective))


def test_what_the_users_code_raises_is_told_with_its_cause():
    @dataclass(frozen=True)
    class Raises(Ratio):
        def __call__(self, out, microbatch):
            raise ZeroDivisionError("mine")

    with pytest.raises(ConformanceError, match="raises ZeroDivisionError: mine") as caught:
        check(Raises())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
