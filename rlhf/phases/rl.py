"""THE RL loop: PPO, GRPO and every other policy-gradient algorithm."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from data.batch import Batch
from data.loader import Order
from data.prompts import build_prompts
from data.sample import Prompt, Sample
from rlhf.algorithms import resolve
from rlhf.interfaces import ModelGroup, Staged
from rlhf.phases.answers import AnswerCheck, batch_of, sampling, start_rollouts
from rlhf.phases.base import Metrics, PhaseContext, export, following, open_data, optim_settings
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
    prompts = read_prompts(context)
    order = Order(len(prompts), phase.prompts_per_step, context.seed)

    groups = build_groups(context, algorithm.needs, objectives, reward)
    policy, trained = groups["policy"], {role: groups[role] for role in objectives}
    rollouts = start_rollouts(context, policy)
    check = AnswerCheck.prepare(context, policy, groups.get("reference"))
    progress = context.checkpoints.load(trained)
    algorithm = algorithm.with_state(progress.get("algorithm", {}))
    if check:
        check.before(progress.get("answers"))
    rollouts.sync(policy)

    with context.tracking(phase.steps, progress["step"], SHOWN) as track:
        for step in range(progress["step"], phase.steps):
            timer = Timer()

            with timer("generate"):  # 1. answers to the step's prompts
                asked = [prompts[i] for i in order.indices(step)]
                samples = rollouts.generate(asked, sampling(context, phase.sampling, step))

            with timer("forwards"):  # 2. rewards and 3. log-probs and values: all groups in flight, one wait
                batch, staged, parts = observe(context, samples, groups, algorithm.needs, reward, step)

            batch = algorithm.advantages(batch)  # 4. on the driver

            with timer("train"):  # 5. policy and critic at once
                columns = frozenset().union(*(objective.columns for objective in objectives.values()))
                staged = staged.with_columns(**{name: batch.columns[name] for name in sorted(columns)})
                work = {
                    role: group.train(staged, objectives[role], phase.epochs, phase.sampling.temperature)
                    for role, group in trained.items()
                }
                losses = {role: pending.result() for role, pending in work.items()}

            with timer("sync"):  # 6. the new weights to the engines
                synced = rollouts.sync(policy)

            # 7. log
            metrics = describe(batch, parts, losses) | timer.seconds
            metrics["tokens/s"] = metrics["tokens"] / sum(timer.seconds.values())
            metrics |= {"dropped": len(samples) - len(batch), "canary_gap": synced["canary_gap"]}
            algorithm = algorithm.after_step(metrics)
            track.step(step + 1, metrics | {f"state/{name}": value for name, value in algorithm.state().items()})

            # 8. save
            if step + 1 == following(step, phase.checkpoint_every) and step + 1 < phase.steps:
                state = {"algorithm": algorithm.state(), "answers": check and check.first}
                context.checkpoints.save(step + 1, policy, trained, state, context.tokenizer)

    figures = {name: metrics[name] for name in ("reward", "kl", "length") if name in metrics}  # of the last step
    figures |= check.after() if check else {}
    export(context, policy)
    return figures


def read_prompts(context: PhaseContext) -> list[Prompt]:
    phase = context.phase
    room = phase.max_length - phase.sampling.max_new_tokens
    prompts, report = build_prompts(open_data(phase.data), context.tokenizer, room)
    context.read(report)
    return prompts


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


def observe(
    context: PhaseContext,
    samples: Sequence[Sample],
    groups: Mapping[str, ModelGroup],
    needs: frozenset[str],
    reward: Composite,
    step: int,
) -> tuple[Batch, Staged, dict[str, torch.Tensor]]:
    """(the samples as a batch with rewards and the columns that the algorithm needs, the same in the object store, each
    reward part's scores). Rows without a score are left out, never scored 0.

    Raises ValueError where no row has a score.
    """

    def stage(batch: Batch) -> Staged:
        return context.runtime.stage(batch, list(groups.values()), context.phase.minibatches, context.seed + step)

    batch, temperature = batch_of(samples), context.phase.sampling.temperature
    staged = stage(batch)
    pending = {
        name: groups[role].forward(staged, output, temperature)
        for name, (role, output) in FORWARDS.items()
        if name in needs
    }
    scores = groups["reward"].forward(staged, "scores") if "reward" in groups else None
    rewards, parts = reward.score(samples, scores and scores.result())
    batch = batch.with_columns(rewards=rewards, **{name: work.result() for name, work in pending.items()})
    scored = drop_unscored(batch)
    return scored, staged if len(scored) == len(batch) else stage(scored), parts


def drop_unscored(batch: Batch) -> Batch:
    unscored = batch.rewards.isnan()
    if unscored.all():
        raise ValueError(f"none of the step's {len(batch)} samples has a score: every reward is NaN")
    return batch.select((~unscored).nonzero()[:, 0]) if unscored.any() else batch


def describe(batch: Batch, parts: dict[str, torch.Tensor], losses: dict[str, list[Metrics]]) -> Metrics:
    """The step's figures. `kl` is per answer: the sum over tokens of log(policy / reference), in nats; `rollout_gap` is
    |log p by the trainer - log p by the rollout engine| over sampled tokens."""
    mask = batch.action_mask
    metrics = {
        "reward": float(batch.rewards.mean()),
        "reward_std": float(batch.rewards.std(unbiased=False)),
        "samples": len(batch),
        "tokens": int(batch.lengths.sum()),
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
    """Seconds of each part of a step, as metrics."""

    def __init__(self) -> None:
        self.seconds: Metrics = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[f"seconds/{part}"] = time.monotonic() - start
