"""Rejection sampling: keeps the best samples of each prompt as a data set for a later phase.

Best-of-n: Nakano et al. 2021. With SFT on the kept samples: RAFT (Dong et al. 2023), Llama 2 (Touvron et al. 2023,
section 3.2.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data.sample import Sample
from rlhf.phases.answers import batch_of, read_prompts, sampled_steps
from rlhf.phases.base import Metrics, PhaseContext
from rlhf.phases.scoring import Drought, Scorer, failure_counts

SHOWN = ("reward", "reward_kept", "kept", "tokens/s")


def run(context: PhaseContext) -> Metrics:
    """Writes rows of `prompt`, `response` and `reward`. Returns counts, the mean rewards of all samples and of the kept
    samples, and the figures of the judge's questions."""
    phase, prompts = context.phase, read_prompts(context)  # before the models are built: a bad data set fails early
    scorer, drought = Scorer.of(context, phase.reward, phase.combine, context.reward), Drought()
    models = list(scorer.groups.values())
    totals = {"samples": 0, "scored": 0, "kept": 0, "reward": 0.0, "reward_kept": 0.0}
    with scorer:
        for asked in sampled_steps(context, prompts, SHOWN):
            samples = asked.samples
            with asked.timer("score"):
                staged = context.runtime.stage(batch_of(samples), models) if models else None
                scores = scorer.score(samples, staged)
            kept = best(samples, scores.rewards, phase.keep, phase.at_least)
            asked.rows = [
                {"prompt": list(sample.prompt.messages), "response": sample.text, "reward": score}
                for sample, score in kept
            ]
            scored = scores.rewards[scores.rewards.isfinite()]
            judged = context.judge_figures()
            asked.notes = [*scores.news, *drought.see(len(scored), len(samples), scores.failures, judged)]
            found = {"samples": len(samples), "scored": len(scored), "kept": len(kept)}
            found |= {"reward": float(scored.sum()), "reward_kept": sum(score for _, score in kept)}
            totals = {name: totals[name] + value for name, value in found.items()}
            tokens = sum(len(sample.tokens) for sample in samples)
            asked.figures = (
                means(found) | failure_counts(scores.failures) | judged | {"tokens/s": tokens / asked.timer.total}
            )
    return means(totals) | context.judge_figures()


def best(samples: Sequence[Sample], rewards: Tensor, keep: int, at_least: float | None) -> list[tuple[Sample, float]]:
    """The `keep` best samples of each prompt with their rewards, best first, in the order of the prompts. Leaves out
    samples that are empty, truncated, without a finite reward or below `at_least`, and repeated texts."""
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
    """Counts and mean rewards; a mean over no samples is left out."""
    figures = {name: totals[name] for name in ("samples", "kept")} | {"dropped": totals["samples"] - totals["scored"]}
    if totals["scored"]:
        figures["reward"] = totals["reward"] / totals["scored"]
    if totals["kept"]:
        figures["reward_kept"] = totals["reward_kept"] / totals["kept"]
    return figures
