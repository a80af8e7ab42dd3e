"""The RL loop: PPO, GRPO and every other algorithm that learns from its own samples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.batch import Batch
from rlhf.interfaces import Algorithm, ModelGroup, Objective, RolloutPool
from rlhf.metrics import Timer
from rlhf.phases.answers import AnswerCheck, generator, read_prompts, start_rollouts
from rlhf.phases.base import Metrics, PhaseContext, export, following, optim_settings
from rlhf.phases.experience import Collector
from rlhf.phases.lesson import Lesson, Pretraining, corrected, same_rows
from rlhf.phases.scoring import Scorer
from rlhf.phases.watching import Watcher
from rlhf.stored_steps import POLICY, store_step

SHOWN = ("reward", "kl", "length", "policy/clip_fraction", "tokens/s")
REPORTED = ("reward", "kl", "length")  # figures of the last step that go into the artifact


def run(context: PhaseContext) -> Metrics:
    """Trains the policy to raise the reward; returns figures of the last step and of answers to held-out prompts."""
    phase, parts = context.phase, prepare(context)
    algorithm, policy, metrics = parts.algorithm, parts.groups["policy"], parts.figures
    with parts.scorer, parts.watcher, context.tracking(phase.steps, parts.done, SHOWN) as track:
        for step in range(parts.done, phase.steps):
            timer = Timer()

            # 1. sample answers; 2. score them and 3. compute log-probs and values, on all models at the same time
            experience = parts.collector.collect(algorithm, timer)
            for text in experience.notes:
                track.note(step + 1, text)
            if phase.store_every and (step + 1) % phase.store_every == 0:
                store(context, step + 1, experience.batch, policy, algorithm)
            with timer("watch"):
                stop = parts.watcher.look(step + 1, experience, track)
            if stop:
                break  # gold has turned down: the policy exploits the reward

            batch = experience.batch  # 4. compute advantages
            batch, corrections = corrected(phase, algorithm.advantages(batch) if len(batch) else batch)

            with timer("train"):  # 5. train policy and critic, at the same time
                staged = experience.staged if same_rows(batch, experience.batch) else None
                losses = parts.lesson.learn(step, algorithm.objectives(), batch, staged)
            if not losses:
                track.note(step + 1, "no optimizer step: no sample or no advantage is left to learn from")

            with timer("sync"):  # 6. send the new weights to the rollout engines
                synced = parts.rollouts.sync(policy)

            # 7. report
            metrics = describe(experience.batch, losses) | experience.figures | corrections | timer.seconds
            metrics |= {"tokens/s": metrics["tokens"] / timer.total, "canary_gap": synced["canary_gap"]}
            algorithm = algorithm.after_step(metrics) if len(experience.batch) else algorithm
            state = {name: value for name, value in algorithm.state().items() if isinstance(value, int | float)}
            track.step(step + 1, metrics | {f"state/{name}": value for name, value in state.items()})

            # 8. save a checkpoint
            if step + 1 == following(step, phase.checkpoint_every) and step + 1 < phase.steps:
                parts.save(context, step + 1, algorithm, metrics)
    return conclude(context, parts, metrics)


@dataclass(frozen=True)
class Parts:
    """The objects that the loop works with, in their state after `done` steps."""

    algorithm: Algorithm
    groups: Mapping[str, ModelGroup]  # policy, critic and reference, by role
    rollouts: RolloutPool
    scorer: Scorer
    watcher: Watcher
    collector: Collector
    lesson: Lesson
    check: AnswerCheck | None
    done: int
    figures: Metrics  # the REPORTED figures of step `done`

    def save(self, context: PhaseContext, step: int, algorithm: Algorithm, metrics: Metrics) -> None:
        state = {"algorithm": algorithm.state(), "collector": self.collector.state(), "watch": self.watcher.state()}
        state |= {"answers": self.check and self.check.first, "figures": reported(metrics)}
        context.checkpoints.save(step, self.groups["policy"], self.lesson.groups, state, context.tokenizer)
        self.watcher.saved()


def prepare(context: PhaseContext) -> Parts:
    """Reads the prompts, builds models and rollout engines, and loads the last checkpoint of an interrupted run."""
    phase = context.phase
    algorithm = context.resolved.algorithm
    objectives = algorithm.objectives()
    prompts = read_prompts(context)
    groups = build_groups(context, algorithm.needs, objectives)
    scorer, watcher = Scorer.of(context, phase.reward, phase.combine, context.reward), Watcher.of(context, groups)
    policy, trained = groups["policy"], {role: groups[role] for role in objectives}
    rollouts = start_rollouts(context, policy)
    staged_for = groups | scorer.groups | watcher.reward_groups
    collector = Collector(context, prompts, staged_for, scorer, generator(context, rollouts))
    lesson = Lesson(context, trained, Pretraining.of(context))
    check = AnswerCheck.prepare(context, policy, groups.get("reference"))

    progress = context.checkpoints.load(trained)
    if progress["step"] == 0:
        shutil.rmtree(stored_steps(context), ignore_errors=True)  # left by a run with other inputs
    algorithm = algorithm.with_state(progress.get("algorithm", {}))
    collector.resume(progress.get("collector", {}))
    watcher.resume(progress.get("watch", {}), progress["step"])
    if check:
        check.before(progress.get("answers"))
    rollouts.sync(policy)
    done, figures = progress["step"], progress.get("figures", {})
    return Parts(algorithm, groups, rollouts, scorer, watcher, collector, lesson, check, done, figures)


def conclude(context: PhaseContext, parts: Parts, metrics: Metrics) -> Metrics:
    """Exports the policy and returns the phase's figures. The policy is the last one or its average, or the policy with
    the best gold score if the watch stopped the run. metrics: of the last step."""
    policy, watcher = parts.groups["policy"], parts.watcher
    figures = reported(metrics) | watcher.figures()
    if watcher.stopped:
        policy = watcher.best_policy()
    elif context.phase.ema:
        policy.use_average().result()
    figures |= parts.check.after(policy) if parts.check else {}
    export(context, policy)
    return figures


def reported(metrics: Metrics) -> Metrics:
    return {name: metrics[name] for name in REPORTED if name in metrics}


def build_groups(
    context: PhaseContext, needs: frozenset[str], trained: Mapping[str, Objective]
) -> dict[str, ModelGroup]:
    """Builds the models that the algorithm and the watch need."""
    phase = context.phase
    updates = phase.minibatches * phase.epochs
    groups = {
        "policy": context.build(
            "policy",
            optim=optim_settings(phase.optim, updates * (phase.steps - phase.critic_warmup)),
            ema_decay=phase.ema,
            rows_together=2 if trained["policy"].unit == "pairs" else 1,
        )
    }
    if "critic" in trained:
        settings = optim_settings(phase.critic_optim, updates * phase.steps)
        groups["critic"] = context.build("critic", head="scalar", optim=settings)
    if "ref_logprobs" in needs or (phase.watch and phase.watch.gold):
        groups["reference"] = context.build("reference")
    return groups


def store(context: PhaseContext, step: int, batch: Batch, policy: ModelGroup, algorithm: Algorithm) -> None:
    """Stores the step's batch, and the policy that sampled it, for `launch.py replay`."""
    directory = stored_steps(context) / f"step-{step}"
    policy.export(directory / POLICY).result()
    store_step(directory, batch, algorithm)


def stored_steps(context: PhaseContext) -> Path:
    return context.run.root / "steps" / context.phase.name


def describe(batch: Batch, losses: Mapping[str, list[Metrics]]) -> Metrics:
    """The step's figures, for the log. `kl`: mean over answers of the sum over tokens of log(policy / reference), in
    nats. `rollout_gap`: mean over sampled tokens of |log p by the trainer - log p by the rollout engine|, in nats."""
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
