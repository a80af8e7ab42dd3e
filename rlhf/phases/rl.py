"""THE RL loop: PPO, GRPO and every other policy-gradient algorithm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from data.batch import Batch
from data.loader import Order
from data.prompts import build_prompts
from rlhf.algorithms import resolve
from rlhf.interfaces import ModelGroup
from rlhf.phases.answers import AnswerCheck, batch_of, sampling, start_rollouts
from rlhf.phases.base import Metrics, PhaseContext, open_data, optim_settings
from rlhf.rewards.compose import Composite, compose

SHOWN = ("reward", "kl", "length", "policy/clip_fraction", "tokens/s")
FORWARDS = {
    "old_logprobs": ("policy", "logprobs"),
    "ref_logprobs": ("reference", "logprobs"),
    "values": ("critic", "values"),
}


def run(context: PhaseContext) -> Metrics:
    """Aligns the policy with the reward; returns the held-out figures of its answers."""
    phase = context.phase
    algorithm = context.algorithm or resolve(phase.algorithm.name, phase.algorithm.parameters)
    objectives = algorithm.objectives()
    reward = compose(phase.reward, context.reward)
    prompts, report = build_prompts(
        open_data(phase.data), context.tokenizer, phase.max_length - phase.sampling.max_new_tokens
    )
    context.read(report)
    order = Order(len(prompts), phase.prompts_per_step, context.seed)

    groups = build_groups(context, algorithm.needs, objectives, reward)
    trained = {role: groups[role] for role in objectives}
    rollouts = start_rollouts(context, groups["policy"])
    check = AnswerCheck.prepare(context, groups["policy"], groups.get("reference"))
    progress = context.checkpoints.load(trained)
    algorithm = algorithm.with_state(progress.get("algorithm", {}))
    if check:
        check.before(progress.get("answers"))
    rollouts.sync(groups["policy"])
    temperature = phase.sampling.temperature

    with context.tracking(phase.steps, progress["step"], SHOWN) as track:
        for step in range(progress["step"], phase.steps):
            timer = Timer()

            # 1. generate
            with timer("generate"):
                samples = rollouts.generate(
                    [prompts[i] for i in order.indices(step)], sampling(context, phase.sampling, step)
                )
                batch = batch_of(samples)

            # 2. score and 3. forwards: every group at once, one wait
            with timer("forwards"):
                staged = context.runtime.stage(batch, list(groups.values()), phase.minibatches, context.seed + step)
                pending = {
                    name: groups[role].forward(staged, output, temperature)
                    for name, (role, output) in FORWARDS.items()
                    if name in algorithm.needs
                }
                scored = groups["reward"].forward(staged, "scores") if "reward" in groups else None
                rewards, parts = reward.score(samples, scored and scored.result())
                batch = batch.with_columns(rewards=rewards, **{name: work.result() for name, work in pending.items()})
                batch, dropped = drop_unscored(batch)
                if dropped:
                    staged = context.runtime.stage(batch, list(groups.values()), phase.minibatches, context.seed + step)

            # 4. advantages, on the driver
            batch = algorithm.advantages(batch)

            # 5. train policy and critic at once
            with timer("train"):
                names = set().union(*(objective.columns for objective in objectives.values()))
                staged = staged.with_columns(**{name: batch.columns[name] for name in sorted(names)})
                work = {
                    role: group.train(staged, objectives[role], phase.epochs, temperature)
                    for role, group in trained.items()
                }
                losses = {role: pending.result() for role, pending in work.items()}

            # 6. new weights to the engines
            with timer("sync"):
                synced = rollouts.sync(groups["policy"])

            # 7. log
            metrics = describe(batch, parts, losses)
            metrics |= {
                "dropped": dropped,
                "canary_gap": synced["canary_gap"],
                **timer.metrics(int(batch.lengths.sum())),
            }
            algorithm = algorithm.after_step(metrics)
            track.step(step + 1, metrics | {f"state/{name}": value for name, value in algorithm.state().items()})

            # 8. save
            if phase.checkpoint_every and (step + 1) % phase.checkpoint_every == 0 and step + 1 < phase.steps:
                state = {"algorithm": algorithm.state(), "answers": check and check.first}
                context.checkpoints.save(step + 1, groups["policy"], trained, state, context.tokenizer)

    figures = (
        {f"last_{name}": metrics[name] for name in ("reward", "kl", "length")} if progress["step"] < phase.steps else {}
    )
    figures |= check.after() if check else {}
    groups["policy"].export(context.staging).result()
    context.tokenizer.save_pretrained(context.staging)
    return figures


def build_groups(
    context: PhaseContext, needs: frozenset[str], trained: set[str] | dict, reward: Composite
) -> dict[str, ModelGroup]:
    """The models that this algorithm and reward need, and no others."""
    phase = context.phase
    updates = phase.steps * phase.minibatches * phase.epochs
    groups = {"policy": context.build("policy", optim=optim_settings(phase.optim, updates))}
    if "critic" in trained:
        groups["critic"] = context.build("critic", head="scalar", optim=optim_settings(phase.critic_optim, updates))
    if "ref_logprobs" in needs:
        groups["reference"] = context.build("reference")
    if reward.needs_model:
        groups["reward"] = context.build("reward", head="scalar")
    return groups


def drop_unscored(batch: Batch) -> tuple[Batch, int]:
    """Rows without a score are left out and counted, never scored 0.

    Raises ValueError where no row has a score.
    """
    unscored = batch.rewards.isnan()
    if not unscored.any():
        return batch, 0
    if unscored.all():
        raise ValueError(f"none of the step's {len(batch)} samples has a score: every reward is NaN")
    return batch.select((~unscored).nonzero()[:, 0]), int(unscored.sum())


def describe(batch: Batch, parts: dict[str, torch.Tensor], losses: dict[str, list[Metrics]]) -> Metrics:
    """The step's figures. `kl` is per answer: the sum over tokens of log(policy / reference), in nats; `rollout_gap` is
    |log p by the trainer - log p by the rollout engine| over sampled tokens."""
    mask = batch.action_mask
    metrics = {
        "reward": float(batch.rewards.mean()),
        "reward_std": float(batch.rewards.std(unbiased=False)),
        "samples": len(batch),
        "length": float(mask.sum(1).float().mean()),
        "truncated": float(batch.truncated.float().mean()),
    }
    metrics |= {f"reward/{name}": float(values.nanmean()) for name, values in parts.items()}
    if "ref_logprobs" in batch and "old_logprobs" in batch:
        metrics["kl"] = float(((batch.old_logprobs - batch.ref_logprobs) * mask).sum(1).mean())
    if "old_logprobs" in batch:
        gap = (batch.old_logprobs - batch.rollout_logprobs)[mask].abs()
        metrics |= {"rollout_gap": float(gap.mean()), "rollout_gap_max": float(gap.max())}
    for role, steps in losses.items():
        metrics |= {
            f"{role}/{name}": sum(step[name] for step in steps) / len(steps) for name in steps[0] if name != "tokens"
        }
    return metrics


class Timer:
    """Seconds of each part of a step."""

    def __init__(self) -> None:
        self.seconds: Metrics = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[part] = time.monotonic() - start

    def metrics(self, tokens: int) -> Metrics:
        return {
            "tokens/s": tokens / sum(self.seconds.values()),
            **{f"seconds/{part}": value for part, value in self.seconds.items()},
        }
