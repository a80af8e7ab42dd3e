"""Trains policy and critic on the batch of an RL step; optionally with an auxiliary loss on pretraining text."""

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
    """Trains all roles on a step's batch at the same time."""

    context: PhaseContext
    groups: Mapping[str, ModelGroup]  # the trained roles
    pretraining: Pretraining | None

    def learn(
        self, step: int, objectives: Mapping[str, Objective], batch: Batch, staged: Staged | None
    ) -> dict[str, list[Metrics]]:
        """The metrics of each role's optimizer steps, by role; empty if the batch has no gradient.

        staged: the batch's rows, if they are in the object store already.
        Raises UserError where a loss or gradient is not finite.
        """
        phase = self.context.phase
        if not has_gradient(objectives["policy"], batch):
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
            auxiliary = self.pretraining and self.pretraining.loss(step, staged, policy)
            passes = Passes(phase.epochs, phase.sampling.temperature, phase.max_kl)
            work["policy"] = policy.train(staged, objectives["policy"], passes, auxiliary)
        done = {role: pending.result() for role, pending in work.items()}
        for role, steps in done.items():
            expect_trained(role, step + 1, steps[-1])  # a group stops after a failed step
        return done


def has_gradient(policy: Objective, batch: Batch) -> bool:
    """Whether the batch has a gradient. Without one, an optimizer step would still move the weights by momentum."""
    other_terms = "ref_logprobs" in policy.columns or policy.output == "logprobs_entropy"
    return len(batch) > 0 and ("advantages" not in batch or other_terms or bool(batch.advantages.any()))


@dataclass(frozen=True)
class Pretraining:
    """Pretraining text whose loss is added to the policy's loss in every optimizer step (PTX)."""

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

    def loss(self, step: int, staged: Staged, policy: ModelGroup) -> AuxiliaryLoss:
        rows = self.examples.batch(self.order.batch(step, self.batch_size))
        own = self.context.runtime.stage(rows, [policy], staged.minibatches, self.context.seed + step)
        return AuxiliaryLoss("ptx", own, LanguageModel(), self.context.phase.ptx.coef)


def corrected(phase: Rl, batch: Batch) -> tuple[Batch, Metrics]:
    """(batch, statistics of the importance weights): multiplies the advantages by the weights that correct the gap
    between the log-probs of trainer and rollout engine. Drops truncated answers if the config says so."""
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
        if "advantages" not in batch:  # the loss compares the rows of a group: drop all of them or none
            for rows in batch.groups():
                dropped[rows] = batch.truncated[rows].any()
        batch = batch.select((~dropped).nonzero()[:, 0])
    return batch, figures


def same_rows(batch: Batch, other: Batch) -> bool:
    """Whether the batches hold the same rows: `with_columns` keeps the other columns, so the tokens are one object."""
    return batch.columns["tokens"] is other.columns["tokens"]
