"""THE RL loop: PPO, GRPO and every other algorithm that learns from its own samples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from data.batch import BASE, Batch
from data.examples import Examples, build_examples
from data.loader import Order
from data.prompts import build_prompts
from data.sample import Prompt
from rlhf.algorithms import resolve
from rlhf.config.schema import Rl
from rlhf.interfaces import Algorithm, Beside, ModelGroup, Objective, Passes, Staged
from rlhf.metrics import Timer
from rlhf.objectives import LanguageModel
from rlhf.ops.correction import importance_weights
from rlhf.phases.answers import AnswerCheck, generator, start_rollouts
from rlhf.phases.base import Metrics, PhaseContext, export, following, optim_settings, rows_together
from rlhf.phases.experience import Collector
from rlhf.phases.scoring import Scorer
from rlhf.phases.watching import Watcher
from rlhf.stored_steps import POLICY, store_step

SHOWN = ("reward", "kl", "length", "policy/clip_fraction", "tokens/s")


def run(context: PhaseContext) -> Metrics:
    """Aligns the policy with the reward; returns the held-out figures of its answers."""
    phase = context.phase
    algorithm = context.algorithm or resolve(phase.algorithm.name, phase.algorithm.parameters)
    objectives = algorithm.objectives()
    prompts = read_prompts(context)

    groups = build_groups(context, algorithm.needs, objectives)
    scorer, watcher = Scorer.of(context, phase.reward, phase.combine, context.reward), Watcher.of(context, groups)
    policy, trained = groups["policy"], {role: groups[role] for role in objectives}
    rollouts = start_rollouts(context, policy)
    scored_by = scorer.groups | watcher.reward_groups
    collector = Collector(context, prompts, groups | scored_by, scorer, generator(context, rollouts))
    lesson = Lesson(context, trained, Pretraining.of(context))
    check = AnswerCheck.prepare(context, policy, groups.get("reference"))
    progress = context.checkpoints.load(trained)
    if progress["step"] == 0:
        shutil.rmtree(stored_steps(context), ignore_errors=True)  # of a run with other inputs
    algorithm = algorithm.with_state(progress.get("algorithm", {}))
    collector.resume(progress.get("collector", {}))
    watcher.resume(progress.get("watch", {}), progress["step"])
    if check:
        check.before(progress.get("answers"))
    rollouts.sync(policy)

    metrics: Metrics = {}
    with scorer, watcher, context.tracking(phase.steps, progress["step"], SHOWN) as track:
        for step in range(progress["step"], phase.steps):
            timer = Timer()

            # 1. answers to the step's prompts; 2. their rewards, and 3. log-probs and values, all groups in flight
            experience = collector.collect(algorithm, timer)
            if phase.store_every and (step + 1) % phase.store_every == 0:
                store(context, step + 1, experience.batch, policy, algorithm)
            for text in experience.notes:
                track.note(step + 1, text)
            if watcher.look(step + 1, experience, track):
                break  # the reward is no longer worth what it says

            batch = experience.batch  # 4. on the driver
            batch, corrections = corrected(phase, algorithm.advantages(batch) if len(batch) else batch)

            with timer("train"):  # 5. policy and critic at once
                staged = experience.staged if same_rows(batch, experience.batch) else None
                losses = lesson.learn(step, algorithm.objectives(), batch, staged)
            if not losses:
                track.note(step + 1, "no optimizer step: no sample or no advantage is left to learn from")

            with timer("sync"):  # 6. the new weights to the engines
                synced = rollouts.sync(policy)

            # 7. log
            metrics = describe(experience.batch, losses) | experience.figures | corrections | timer.seconds
            metrics |= {"tokens/s": metrics["tokens"] / timer.total, "canary_gap": synced["canary_gap"]}
            algorithm = algorithm.after_step(metrics) if len(experience.batch) else algorithm
            state = {name: value for name, value in algorithm.state().items() if isinstance(value, int | float)}
            track.step(step + 1, metrics | {f"state/{name}": value for name, value in state.items()})

            # 8. save
            if step + 1 == following(step, phase.checkpoint_every) and step + 1 < phase.steps:
                state = {"algorithm": algorithm.state(), "collector": collector.state(), "watch": watcher.state()}
                state["answers"] = check and check.first
                context.checkpoints.save(step + 1, policy, trained, state, context.tokenizer)

    figures = {name: metrics[name] for name in ("reward", "kl", "length") if name in metrics}  # of the last step
    figures |= watcher.figures()
    if watcher.stopped:
        policy = watcher.best_policy()
    elif phase.ema:
        policy.use_average().result()
    figures |= check.after(policy) if check else {}
    export(context, policy)
    return figures


def read_prompts(context: PhaseContext) -> list[Prompt]:
    phase = context.phase
    room = phase.max_length - phase.sampling.max_new_tokens
    prompts, report = build_prompts(context.open(phase.data), context.tokenizer, room)
    context.read(report)
    return prompts


def build_groups(
    context: PhaseContext, needs: frozenset[str], trained: Mapping[str, Objective]
) -> dict[str, ModelGroup]:
    """The models that this algorithm and the watch need, and no others."""
    phase = context.phase
    updates = phase.minibatches * phase.epochs
    groups = {
        "policy": context.build(
            "policy",
            optim=optim_settings(phase.optim, updates * (phase.steps - phase.critic_warmup)),
            ema_decay=phase.ema,
            rows_together=rows_together(trained["policy"]),
        )
    }
    if "critic" in trained:
        settings = optim_settings(phase.critic_optim, updates * phase.steps)
        groups["critic"] = context.build("critic", head="scalar", optim=settings)
    if "ref_logprobs" in needs or (phase.watch and phase.watch.gold):
        groups["reference"] = context.build("reference")
    return groups


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
        return {role: pending.result() for role, pending in work.items()}


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

    @classmethod
    def of(cls, context: PhaseContext) -> Pretraining | None:
        settings = context.phase.ptx
        if settings is None:
            return None
        examples = build_examples("text", context.open(settings.data), context.tokenizer, context.phase.max_length)
        context.read(examples.report)
        return cls(
            context, examples, Order(len(examples), settings.batch_size * context.phase.minibatches, context.seed)
        )

    def beside(self, step: int, staged: Staged, policy: ModelGroup) -> Beside:
        rows = self.examples.batch(self.order.indices(step))
        own = self.context.runtime.stage(rows, [policy], staged.minibatches, self.context.seed + step)
        return Beside("ptx", own, LanguageModel(), self.context.phase.ptx.coef)


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


def store(context: PhaseContext, step: int, batch: Batch, policy: ModelGroup, algorithm: Algorithm) -> None:
    """Keeps the step for `launch.py replay`: the batch, and the weights that sampled it."""
    directory = stored_steps(context) / f"step-{step}"
    policy.export(directory / POLICY).result()
    store_step(directory, batch, algorithm)


def stored_steps(context: PhaseContext) -> Path:
    return context.run.root / "steps" / context.phase.name


def describe(batch: Batch, losses: Mapping[str, list[Metrics]]) -> Metrics:
    """The step's figures. `kl` is per answer: the sum over tokens of log(policy / reference), in nats; `rollout_gap` is
    |log p by the trainer - log p by the rollout engine| over sampled tokens."""
    if not len(batch):
        return {"tokens": 0}
    mask = batch.action_mask
    metrics = {
        "reward": float(batch.rewards.mean()),
        "reward_std": float(batch.rewards.std(unbiased=False)),
        "tokens": int(batch.lengths.sum()),
        "length": float(mask.sum(1).float().mean()),
        "truncated": float(batch.truncated.float().mean()),
    }
    if "ref_logprobs" in batch and "old_logprobs" in batch:
        metrics["kl"] = float(((batch.old_logprobs - batch.ref_logprobs) * mask).sum(1).mean())
    if "old_logprobs" in batch:
        gap = (batch.old_logprobs - batch.rollout_logprobs)[mask].abs()
        metrics |= {"rollout_gap": float(gap.mean()), "rollout_gap_max": float(gap.max())}
    for role, steps in losses.items():
        metrics |= {
            f"{role}/{name}": sum(step[name] for step in steps) / len(steps) for name in steps[0] if name != "tokens"
        }
        metrics[f"{role}/updates"] = len(steps)
    return metrics
