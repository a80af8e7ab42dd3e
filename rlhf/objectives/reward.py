"""Objectives of reward models: comparisons, rankings, ratings, good or bad, and the steps of an answer.

`rows` names the kind of data rows that each learns from. Where the batch has a column `weights`, a comparison or a row counts
as much as it says. Figures of comparisons are means over those that are `untied`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from data.errors import UserError
from rlhf.interfaces import Output, Result, Unit
from rlhf.ops import masked, preference, ranking

if TYPE_CHECKING:
    from torch import Tensor

    from data.batch import Batch


@dataclass(frozen=True)
class Pairwise:
    """Bradley-Terry likelihood of comparisons of two; a tie has a soft label of one half. A pair's rows are adjacent, the
    chosen one first.

    margin: the chosen score must be higher by the column `margins`, in which annotators said how much better it is (Llama 2,
    Touvron et al. 2023, equation 2). centre: weight of the squared sum of a pair's scores, which keeps their mean at 0
    (Eisenstein et al. 2023, equation 2). Raises UserError where centre is negative.
    """

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "pairs"
    rows: ClassVar[str] = "preference"
    margin: bool = False
    centre: float = 0.0

    def __post_init__(self):
        if not self.centre >= 0:
            raise UserError(f"pairwise: centre must not be negative, got {self.centre}; 0.01 is usual, 0 turns it off")

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"ranks", "weights", "margins"} if self.margin else {"ranks", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores."""
        chosen, rejected = out[0::2], out[1::2]
        tied = microbatch.ranks[0::2] == microbatch.ranks[1::2]
        wanted = microbatch.margins[0::2].where(~tied, 0) if self.margin else 0.0
        losses = preference.pairwise_logistic(chosen, rejected, wanted, label_smoothing=0.5 * tied.to(out.dtype))
        losses = losses + self.centre * preference.off_centre(chosen, rejected)
        margin = (chosen - rejected).detach()
        metrics = {
            "accuracy": ((margin > 0) & ~tied).sum(),
            "margin": masked.sum(margin, ~tied),
            "untied": (~tied).sum(),
        }
        return (weights_of(microbatch)[0::2] * losses).sum(), metrics


@dataclass(frozen=True)
class KWise:
    """All pairs of a ranking of K answers, whose mean loss makes one item (InstructGPT, Ouyang et al. 2022, equation 1)."""

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "pairs"
    rows: ClassVar[str] = "ranking"
    columns: ClassVar[frozenset[str]] = frozenset({"ranks", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores; the rows of one group_id are a ranking."""
        losses = ranking.all_pairs(out, microbatch.ranks, microbatch.group_ids)
        return weighed(losses, microbatch), ranking_metrics(out, microbatch)


@dataclass(frozen=True)
class PlackettLuce:
    """Likelihood of the whole ranking: the best answer against all others, the next one against those left, and so on
    (Plackett 1975)."""

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "pairs"
    rows: ClassVar[str] = "ranking"
    columns: ClassVar[frozenset[str]] = frozenset({"ranks", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores; the rows of one group_id are a ranking."""
        losses = ranking.plackett_luce(out, microbatch.ranks, microbatch.group_ids)
        return weighed(losses, microbatch), ranking_metrics(out, microbatch)


@dataclass(frozen=True)
class Pointwise:
    """Regression: the squared error of the score against a rating."""

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "rows"
    rows: ClassVar[str] = "rating"
    columns: ClassVar[frozenset[str]] = frozenset({"ratings", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores."""
        error = out - microbatch.ratings
        metrics = {"mae": error.detach().abs().sum()}
        return (weights_of(microbatch) * error.square()).sum(), metrics


@dataclass(frozen=True)
class Binary:
    """Good or bad: the score is the logit of `desirable`, which may be the share of annotators who found the row good."""

    output: ClassVar[Output] = "scores"
    unit: ClassVar[Unit] = "rows"
    rows: ClassVar[str] = "binary"
    columns: ClassVar[frozenset[str]] = frozenset({"desirable", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b,) scores. accuracy: the share of the annotators who agree with the score's sign."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        label = microbatch.desirable
        losses = binary_cross_entropy_with_logits(out, label.to(out.dtype), reduction="none")
        return (weights_of(microbatch) * losses).sum(), {"accuracy": label.where(out > 0, 1 - label).sum()}


@dataclass(frozen=True)
class Process:
    """Right or wrong, of each step of an answer: the value after the step is the logit of its label (Lightman et al. 2023,
    section 2.6)."""

    output: ClassVar[Output] = "values"
    unit: ClassVar[Unit] = "tokens"
    rows: ClassVar[str] = "steps"
    columns: ClassVar[frozenset[str]] = frozenset({"step_labels", "weights"})

    def __call__(self, out: Tensor, microbatch: Batch) -> Result:
        """out: (b, T); action_mask is set on the token after each step, so that its value has seen the step and no more."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        mask, label = microbatch.action_mask, microbatch.step_labels
        losses = binary_cross_entropy_with_logits(
            out.where(mask, 0), label.to(out.dtype).where(mask, 0), reduction="none"
        )
        right = label.where(out > 0, 1 - label)
        loss = masked.sum(weights_of(microbatch)[:, None] * losses, mask)
        return loss, {"accuracy": masked.sum(right, mask)}


def weights_of(microbatch: Batch) -> Tensor:
    """(b,): what each row counts, 1 where the data say nothing."""
    return microbatch.weights if "weights" in microbatch else microbatch.lengths.new_ones(len(microbatch))


def weighed(losses: Tensor, microbatch: Batch) -> Tensor:
    """(): the sum of one loss a ranking, each as often as its rows' weights say."""
    groups = microbatch.group_ids
    weights = ranking.mean_of_groups(weights_of(microbatch).to(losses.dtype), groups, groups)
    return (weights * losses).sum()


def ranking_metrics(scores: Tensor, microbatch: Batch) -> dict[str, Tensor]:
    """Sums over the rankings that are not one big tie: accuracy, the share of a ranking's unequal pairs that are scored in its
    order; margin, the mean difference of their scores; untied, how many rankings these are."""
    ranks, groups = microbatch.ranks, microbatch.group_ids
    first, second = ranking.pairs(groups)
    unequal = ranks[first] != ranks[second]
    first, second = first[unequal], second[unequal]
    swapped = ranks[first] > ranks[second]
    difference = (scores[first] - scores[second]).detach()
    margin = (-difference).where(swapped, difference)
    figures = {"accuracy": (margin > 0).to(scores.dtype), "margin": margin, "untied": margin.new_ones(margin.shape)}
    return {name: ranking.mean_of_groups(value, groups, groups[first]).sum() for name, value in figures.items()}
