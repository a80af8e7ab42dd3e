"""How a step's batch becomes optimizer steps: corrected for the engines' gap, policy and critic at once, pretraining beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from data.batch import BASE, Batch
from data.examples import Examples, build_examples
from data.feeds import Order
from rlhf.config.schema import Rl
from rlhf.interfaces import AuxiliaryLoss, ModelGroup, Objective, Passes, Staged
from rlhf.objectives import LanguageModel
from rlhf.ops.correction import importance_weights
from rlhf.phases.base import Metrics, PhaseContext
from rlhf.skipped import expect_trained


@dataclass(frozen=True)
class Lesson:
    """Trains the roles on a step's batch, all at once."""

    context: PhaseContext
    groups: Mapping[str, ModelGroup]  # the trained roles
    pretraining: Pretraining | None

    def learn(
        self, step: int, objectives: Mapping[str, Objective], batch: Batch, staged: Staged | None
    ) -> dict[str, list[Metrics]]:
        """Metrics of each role's optimizer steps; of none where the batch teaches nothing.

        staged: the batch's rows, where they are in the object store already.
        """
        phase = self.context.phase
        if not teaches(objectives["policy"], batch):
            return {}
        columns = frozenset().union(*(objective.columns for objective in objectives.values()))
        if staged is None:
            groups, seed = list(self.groups.values()), self.context.seed + step
            staged = self.context.runtime.stage(batch.keep(BASE | columns), groups, phase.minibatches, seed)
        else:
            staged = staged.with_columns(**{name: batch.columns[name] for name in sorted(columns)})
        passes = Passes(phase.epochs, phase.sampling.temperature)
        work = {}
        if "critic" in self.groups:
            work["critic"] = self.groups["critic"].train(staged, objectives["critic"], passes)
        if step >= phase.critic_warmup:
            policy = self.groups["policy"]
            beside = self.pretraining and self.pretraining.beside(step, staged, policy)
            passes = Passes(phase.epochs, phase.sampling.temperature, phase.max_kl)
            work["policy"] = policy.train(staged, objectives["policy"], passes, beside)
        done = {role: pending.result() for role, pending in work.items()}
        for role, steps in done.items():
            expect_trained(role, step + 1, steps[-1])  # a group stops at the first step that fails
        return done


def teaches(policy: Objective, batch: Batch) -> bool:
    """Whether there is a gradient at all: an optimizer would move the weights without one, too."""
    other_terms = "ref_logprobs" in policy.columns or policy.output == "logprobs_entropy"
    return len(batch) > 0 and ("advantages" not in batch or other_terms or bool(batch.advantages.any()))


@dataclass(frozen=True)
class Pretraining:
    """Rows of text whose loss joins the policy's in every optimizer step (PTX)."""

    context: PhaseContext
    examples: Examples
    order: Order
    batch_size: int  # rows a step

    @classmethod
    def of(cls, context: PhaseContext) -> Pretraining | None:
        settings = context.phase.ptx
        if settings is None:
            return None
        examples = build_examples("text", context.open(settings.data), context.tokenizer, context.phase.max_length)
        context.read(examples.report)
        size = settings.batch_size * context.phase.minibatches
        return cls(context, examples, Order.of_batches(len(examples), size, context.seed), size)

    def beside(self, step: int, staged: Staged, policy: ModelGroup) -> AuxiliaryLoss:
        rows = self.examples.batch(self.order.batch(step, self.batch_size))
        own = self.context.runtime.stage(rows, [policy], staged.minibatches, self.context.seed + step)
        return AuxiliaryLoss("ptx", own, LanguageModel(), self.context.phase.ptx.coef)


def corrected(phase: Rl, batch: Batch) -> tuple[Batch, Metrics]:
    """(the batch with its advantages weighed for the gap between trainer and rollout engine, the weights' statistics).
    Answers that hit the length limit are left out where the config says so."""
    figures: Metrics = {}
    if phase.correction.kind != "off" and "advantages" in batch and "old_logprobs" in batch:
        mask, settings = batch.action_mask, phase.correction
        weights, found = importance_weights(
            batch.old_logprobs, batch.rollout_logprobs, mask, settings.kind, *settings.bounds
        )
        batch = batch.with_columns(advantages=torch.where(mask, batch.advantages * weights, 0))
        figures = {f"correction/{name}": value for name, value in found.items()}
    if phase.shaping.drop_truncated and batch.truncated.any():
        dropped = batch.truncated.clone()
        if "advantages" not in batch:  # rows are compared: all of a group or none
            for rows in batch.groups():
                dropped[rows] = batch.truncated[rows].any()
        batch = batch.select((~dropped).nonzero()[:, 0])
    return batch, figures


def same_rows(batch: Batch, other: Batch) -> bool:
    """Batches share tensors: one made of the other by new columns has its very tokens."""
    return batch.columns["tokens"] is other.columns["tokens"]
