"""Rejection sampling: of each prompt's samples the best are kept, as a data set that a later phase learns from.

Best-of-n in Nakano et al. 2021; with SFT on what is kept, and again, RAFT (Dong et al. 2023) and Llama 2 (Touvron et al.
2023, section 3.2.3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from data.prompts import build_prompts
from data.sample import Sample
from rlhf.metrics import Timer
from rlhf.phases.answers import batch_of, sampling, start_rollouts
from rlhf.phases.base import ROWS, Metrics, PhaseContext
from rlhf.phases.scoring import Drought, Scorer, failed

SHOWN = ("reward", "reward_kept", "kept", "tokens/s")


def run(context: PhaseContext) -> Metrics:
    """Writes rows of `prompt`, `response` and `reward`; returns the mean rewards of all samples and of those kept."""
    phase = context.phase
    room = phase.max_length - phase.sampling.max_new_tokens
    prompts, report = build_prompts(context.open(phase.data), context.tokenizer, room)
    context.read(report)
    policy = context.build("policy")
    scorer = Scorer.of(context, phase.reward, phase.combine, context.reward)
    models = list(scorer.groups.values())
    rollouts = start_rollouts(context, policy)
    rollouts.sync(policy)

    totals = {"samples": 0, "scored": 0, "kept": 0, "reward": 0.0, "reward_kept": 0.0}
    steps = range(0, len(prompts), phase.prompts_per_step)
    drought = Drought()
    with scorer, context.tracking(len(steps), 0, SHOWN) as track, open(context.staging / ROWS, "w") as file:
        for step, first in enumerate(steps):
            timer = Timer()
            with timer("generate"):
                asked = prompts[first : first + phase.prompts_per_step]
                samples = rollouts.generate(asked, sampling(context, phase.sampling, step))
            with timer("score"):
                staged = context.runtime.stage(batch_of(samples), models) if models else None
                scores = scorer.score(samples, staged)
            rewards = scores.rewards
            kept = best(samples, rewards, phase.keep, phase.at_least)
            for sample, score in kept:
                row = {"prompt": list(sample.prompt.messages), "response": sample.text, "reward": score}
                file.write(json.dumps(row) + "\n")
            scored = rewards[rewards.isfinite()]
            for text in filter(None, (*scores.news, drought.see(len(scored), len(samples), scores.failures))):
                track.note(step + 1, text)
            found = {"samples": len(samples), "scored": len(scored), "kept": len(kept)}
            found |= {"reward": float(scored.sum()), "reward_kept": sum(score for _, score in kept)}
            totals = {name: totals[name] + value for name, value in found.items()}
            tokens = sum(len(sample.tokens) for sample in samples)
            figures = means(found) | failed(scores.failures)
            track.step(step + 1, figures | {"tokens/s": tokens / timer.total} | timer.seconds)
    return means(totals)


def best(samples: Sequence[Sample], rewards: Tensor, keep: int, at_least: float | None) -> list[tuple[Sample, float]]:
    """The `keep` best of each prompt's samples with their rewards, best first, in the prompts' order. Samples that
    are empty, cut off by the length limit, without a finite reward or with one below `at_least` are never kept; of equal
    texts, one."""
    by_prompt: dict[int, dict[str, tuple[Sample, float]]] = {}
    for row in torch.argsort(rewards.nan_to_num(nan=-torch.inf), descending=True, stable=True).tolist():
        sample, score = samples[row], float(rewards[row])
        usable = rewards[row].isfinite() and not sample.truncated and bool(sample.text.strip())
        usable = usable and (at_least is None or score >= at_least)
        chosen = by_prompt.setdefault(id(sample.prompt), {})
        if usable and len(chosen) < keep:
            chosen.setdefault(sample.text, (sample, score))
    order = dict.fromkeys(id(sample.prompt) for sample in samples)
    return [pair for prompt in order for pair in by_prompt[prompt].values()]


def means(totals: Metrics) -> Metrics:
    """Counts, and mean rewards; a mean over nothing is left out."""
    figures = {name: totals[name] for name in ("samples", "kept")} | {"dropped": totals["samples"] - totals["scored"]}
    if totals["scored"]:
        figures["reward"] = totals["reward"] / totals["scored"]
    if totals["kept"]:
        figures["reward_kept"] = totals["reward_kept"] / totals["kept"]
    return figures
