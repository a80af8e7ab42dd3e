"""Objectives of learning from preferences: DPO and its relatives against a reference, KTO, and mixtures.

Those without a reference are in reference_free.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from data.errors import UserError
from rlhf.interfaces import Objective, Output, Result, Unit
from rlhf.ops import masked, preference

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


class PairLoss:
    """Base of the losses that compare two answers to one prompt: a pair's rows are adjacent, the chosen one first.

    Each answer's log-probs make one number, its ratio: less the reference's where `columns` names them, summed over the
    answer's tokens, or averaged where it is `length_normalised`. A subclass is a frozen dataclass that says in `losses`
    what a pair's two ratios cost; its fields are beta and those of the parameters below that it has.

    beta: the scale of rewards (beta * ratio). label_smoothing: share of pairs whose label is thought wrong. nll: weight
    of the chosen answer's mean negative log-prob a token, which keeps it likely (Pang et al. 2024, equation 1).
    Raises UserError where a parameter is out of its range.
    """

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "pairs"
    columns: ClassVar[frozenset[str]] = frozenset({"ref_logprobs"})
    beta: float
    label_smoothing: float = 0.0
    length_normalised: bool = False
    nll: float = 0.0

    def __post_init__(self):
        name = type(self).__name__
        if not self.beta > 0:
            raise UserError(f"{name}: beta must be above 0, got {self.beta}; usual is {type(self).beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"{name}: label_smoothing must lie in [0, 0.5), got {self.label_smoothing}: the share of wrong labels"
            )
        if not self.nll >= 0:
            raise UserError(f"{name}: nll must not be negative, got {self.nll}; 1 is usual, 0 turns it off")

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """(P,) losses of pairs whose answers have these ratios, each (P,)."""
        raise TypeError(f"{type(self).__name__} must define losses(chosen, rejected)")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs."""
        ratios = self._ratios(out, microbatch)  # (b,)
        loss = self.losses(ratios[0::2], ratios[1::2]).sum()
        rewards = (self.beta * ratios).detach()
        margin = rewards[0::2] - rewards[1::2]
        metrics = {
            "accuracy": (margin > 0).sum(),
            "chosen_reward": rewards[0::2].sum(),
            "rejected_reward": rewards[1::2].sum(),
            "margin": margin.sum(),
        }
        if self.nll > 0:
            surprise = chosen_nll(out, microbatch).sum()
            loss = loss + self.nll * surprise
            metrics["nll"] = surprise.detach()
        return loss, metrics

    def _ratios(self, out: Tensor, microbatch: Batch) -> Tensor:
        against = microbatch.ref_logprobs if "ref_logprobs" in self.columns else 0
        reduce = masked.mean if self.length_normalised else masked.sum
        return reduce(out - against, microbatch.action_mask, dim=1)


def chosen_nll(out: Tensor, microbatch: Batch) -> Tensor:
    """(P,) mean negative log-prob a token of each pair's chosen answer. out: (b, T) log-probs."""
    return -masked.mean(out[0::2], microbatch.action_mask[0::2], dim=1)


@dataclass(frozen=True)
class DPO(PairLoss):
    """Direct preference optimisation; with label smoothing, its conservative form."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalised: bool = False
    nll: float = 0.0

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.dpo(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class IPO(PairLoss):
    """Identity preference optimisation: DPO with a squared error, whose optimum is a margin of 1 / (2 beta).

    That margin is one number for all pairs, so it has to be one of tokens: summed over answers, a pair of long answers
    would reach it with a hardly visible change of each token, one of short answers only with a large one. TRL averages as
    is done here; OpenRLHF sums, which length_normalised=False does, too (beta then is some hundred times smaller).
    """

    beta: float = 0.1
    length_normalised: bool = True
    nll: float = 0.0

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.ipo(chosen, rejected, self.beta)


@dataclass(frozen=True)
class Hinge(PairLoss):
    """Sequence likelihood calibration (SLiC) against the reference: no loss beyond a reward margin of 1."""

    beta: float = 0.1

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.hinge(chosen, rejected, self.beta)


@dataclass(frozen=True)
class Robust(PairLoss):
    """Robust DPO: unbiased where the share label_smoothing of the labels is wrong; with 0 it is DPO."""

    beta: float = 0.1
    label_smoothing: float = 0.1

    def losses(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        return preference.robust_dpo(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class KTO:
    """Kahneman-Tversky optimisation: learns from answers that were found good or bad one by one.

    The weights make up for unequal counts: desirable_weight * (number of good answers) should be about the same as, or up
    to one and a half times, undesirable_weight * (number of bad ones) (Ethayarajh et al. 2024, section 4.2). Raises
    UserError where a parameter is out of its range.
    """

    output: ClassVar[Output] = "logprobs"
    unit: ClassVar[Unit] = "rows"
    rows: ClassVar[str] = "thumbs"
    columns: ClassVar[frozenset[str]] = frozenset({"ref_logprobs", "desirable", "kl_baseline"})
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self):
        if not self.beta > 0:
            raise UserError(f"KTO: beta must be above 0, got {self.beta}; usual is 0.1")
        for name in ("desirable_weight", "undesirable_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"KTO: {name} must not be negative, got {getattr(self, name)}; 1 is usual")

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T) log-probs. The columns desirable (b,) 1.0 or 0.0, and kl_baseline (b,), z0 on each row.

        accuracy: of rows whose reward lies on their label's side of beta * z0; margin: by how much. The rewards of the
        two kinds add up to the mean row's; a kind's own mean is its part divided by its share of the rows.
        """
        # z0 comes with the batch: were it the mean over the micro-batch's own rows, the gradient would depend on how the
        # batch is split
        baseline, desirable = microbatch.kl_baseline, microbatch.desirable > 0
        log_ratios = masked.sum(out - microbatch.ref_logprobs, microbatch.action_mask, dim=1)
        losses = preference.kto(
            log_ratios, desirable, baseline, self.beta, self.desirable_weight, self.undesirable_weight
        )
        rewards = (self.beta * log_ratios).detach()
        gain = rewards - self.beta * baseline
        margin = gain.where(desirable, -gain)
        metrics = {
            "accuracy": (margin > 0).sum(),
            "margin": margin.sum(),
            "kl_baseline": baseline.sum(),
            "desirable_share": desirable.sum(),
            "reward_of_desirable": masked.sum(rewards, desirable),
            "reward_of_undesirable": masked.sum(rewards, ~desirable),
        }
        return losses.sum(), metrics


@dataclass(frozen=True)
class Mix:
    """A weighted sum of losses that read the same output and divide by the same unit.

    parts: the losses, each as {"name": …, "weight": 1.0, and the loss's own parameters}. A metric that several parts
    have is the first's; loss_<class> is a part's share of the loss. Raises UserError where the parts do not go together.
    """

    parts: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self):
        if not self.parts:
            raise UserError(
                "loss 'mix' has no parts; wanted, for instance, parts: [{name: dpo, weight: 0.8}, {name: nll}]"
            )
        for what in ("output", "unit"):
            kinds = [(type(loss).__name__, getattr(loss, what)) for _, loss in self._losses]
            if len({kind for _, kind in kinds}) > 1:
                listed = ", ".join(f"{name}: {kind}" for name, kind in kinds)
                raise UserError(
                    f"loss 'mix': all parts must have the same {what}, got {listed}; train them in two phases"
                )

    @property
    def output(self) -> Output:
        return self._losses[0][1].output

    @property
    def unit(self) -> Unit:
        return self._losses[0][1].unit

    @property
    def rows(self) -> str:
        return getattr(self._losses[0][1], "rows", "preference")

    @property
    def columns(self) -> frozenset[str]:
        return frozenset().union(*(loss.columns for _, loss in self._losses))

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: as the parts take it."""
        total, metrics = 0, {}
        for weight, loss in self._losses:
            value, found = loss(out, microbatch)
            share, name = weight * value, f"loss_{type(loss).__name__.lower()}"
            total = total + share
            metrics = found | metrics
            metrics[name] = metrics.get(name, 0) + share.detach()
        return total, metrics

    @cached_property
    def _losses(self) -> list[tuple[float, Objective]]:
        return [_part(part, place) for place, part in enumerate(self.parts)]


def _part(part: Mapping[str, Any], place: int) -> tuple[float, Objective]:
    from rlhf.objectives import resolve_loss  # which imports this file

    parameters = dict(part)
    name, weight = parameters.pop("name", None), parameters.pop("weight", 1.0)
    if name is None:
        raise UserError(f"loss 'mix': parts.{place} has no name; give the name of a loss: {{name: dpo, weight: 1.0}}")
    if not isinstance(weight, int | float) or not weight >= 0:
        raise UserError(f"loss 'mix': parts.{place}.weight must be a number not below 0, got {weight!r}")
    return weight, resolve_loss(name, parameters)
