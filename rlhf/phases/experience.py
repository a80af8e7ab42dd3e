"""Collects the samples of an RL step, with their rewards and the columns that the algorithm needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from data.batch import Batch
from data.feeds import Order
from data.sample import Prompt, Sample, Sampling
from rlhf.interfaces import Algorithm, ModelGroup, Staged
from rlhf.metrics import Timer
from rlhf.ops.rewards import RunningMoments, shape
from rlhf.phases.answers import batch_of, sampling
from rlhf.phases.base import Metrics, PhaseContext
from rlhf.phases.scoring import Drought, Scorer, failure_counts
from rlhf.rewards.workers import Failure

FORWARDS = {
    "old_logprobs": ("policy", "logprobs"),
    "ref_logprobs": ("reference", "logprobs"),
    "values": ("critic", "values"),
}


@dataclass(frozen=True)
class Experience:
    """The samples that a step trains on."""

    batch: Batch  # with shaped rewards and the columns that the algorithm needs; meta: texts of prompt and answer
    staged: Staged | None  # the batch in the object store; None if it holds other rows than the batch
    figures: Metrics
    first: Draw  # the step's first draw, with the rows that the batch leaves out
    notes: list[str]  # messages for the user


@dataclass
class Collector:
    """Draws prompts, samples answers, scores them; draws again to replace prompt groups that the algorithm rejects.

    groups: the model groups that read a step's batch, by role.
    State: draws, the number of draws so far; moments, the mean and deviation of all rewards so far; drought, the number
    of steps in a row without any score.
    """

    context: PhaseContext
    prompts: Sequence[Prompt]
    groups: Mapping[str, ModelGroup]
    scorer: Scorer
    generate: Callable[[Sequence[Prompt], Sampling], list[Sample]]
    draws: int = 0
    moments: RunningMoments = field(default_factory=RunningMoments)
    drought: Drought = field(default_factory=Drought)

    def __post_init__(self) -> None:
        self.order = Order.of_batches(len(self.prompts), self.context.phase.prompts_per_step, self.context.seed)

    def collect(self, algorithm: Algorithm, timer: Timer) -> Experience:
        """The next step's experience; empty if no sample has a score. Raises UserError at the third such step."""
        wanted = self.context.phase.prompts_per_step
        kept: list[Batch] = []
        draws: list[Draw] = []
        while len(draws) <= algorithm.refills and sum(len(batch.groups()) for batch in kept) < wanted:
            draw = self.draw(algorithm, timer)
            draws.append(draw)
            scored = drop_unscored(draw.batch)
            worth = algorithm.keep(scored) if len(scored) else has_score(scored)
            kept.append(scored if worth.all() else scored.select(worth.nonzero()[:, 0]))
        batch = join(kept, wanted)
        figures = {"samples": len(batch), **scores_of(draws), **self.context.judge_figures()}
        if algorithm.refills:
            figures["draws"] = len(draws)
        same = batch.columns["tokens"] is draws[0].batch.columns["tokens"]
        notes = self.notes(draws, figures)
        return Experience(self.shaped(batch), draws[0].staged if same else None, figures, draws[0], notes)

    def notes(self, draws: Sequence[Draw], figures: Metrics) -> list[str]:
        """Messages about new kinds of failures, and about a step without anything to learn from."""
        notes = [text for draw in draws for text in draw.news]
        asked = sum(len(draw.batch) for draw in draws)
        failures = [failure for draw in draws for failure in draw.failures]
        if dry := self.drought.see(asked - figures["dropped"], asked, failures, self.context.judge_figures()):
            notes += dry
        elif figures.get("equal_groups") == 1:
            notes.append("no gradient: 100 % of the groups have equal rewards")
        return notes

    def draw(self, algorithm: Algorithm, timer: Timer) -> Draw:
        """Samples answers to the next prompts; computes rewards and needed columns on all models at the same time."""
        settings = sampling(self.context, self.context.phase.sampling, self.draws)
        with timer("generate"):
            rows = self.order.batch(self.draws, self.context.phase.prompts_per_step)
            asked = [self.prompts[row] for row in rows]
            samples = self.generate(asked, settings)
            greedy = []
            if "greedy_rewards" in algorithm.needs:
                greedy = self.generate(asked, replace(settings, temperature=0.0, samples=1))
        with timer("forwards"):
            batch = replace(batch_of(samples), meta=tuple(map(described, samples)))
            staged = self.stage(batch)
            pending = {
                name: self.groups[role].forward(staged, output, settings.temperature)
                for name, (role, output) in FORWARDS.items()
                if name in algorithm.needs
            }
            scores = self.scorer.score(samples, staged)
            columns = {name: work.result() for name, work in pending.items()}
            if greedy:
                baselines = self.scorer.score(greedy, self.stage(batch_of(greedy)))
                news, failures = scores.news + baselines.news, scores.failures + baselines.failures
                scores = replace(scores, news=news, failures=failures)
                of_row = dict(zip((sample.prompt.row for sample in greedy), baselines.rewards.tolist()))
                columns["greedy_rewards"] = [of_row[sample.prompt.row] for sample in samples]
        self.draws += 1
        scored = batch.with_columns(rewards=scores.rewards, **columns)
        return Draw(scored, staged, scores.parts, samples, scores.failures, scores.news)

    def stage(self, batch: Batch) -> Staged:
        """Puts the batch into the object store. A prompt's rows share a mini-batch, dealt anew for each draw."""
        seed = self.context.seed + self.draws
        return self.context.runtime.stage(batch, list(self.groups.values()), self.context.phase.minibatches, seed)

    def shaped(self, batch: Batch) -> Batch:
        """Shapes the rewards by the config's `shaping`; keeps the original rewards as `raw_rewards`. A greedy baseline
        gets no penalties, because a baseline needs none to be unbiased."""
        settings = self.context.phase.shaping
        if settings.normalise:
            self.moments = self.moments.update(batch.rewards)
        moments = self.moments if settings.normalise else None
        overlong = settings.overlong and (settings.overlong.limit, settings.overlong.buffer)
        lengths = batch.action_mask.sum(1)
        columns = {
            "raw_rewards": batch.rewards,
            "rewards": shape(
                batch.rewards, batch.truncated, lengths, moments, settings.clip, settings.missing_end, overlong
            ),
        }
        if "greedy_rewards" in batch:
            columns["greedy_rewards"] = shape(
                batch.greedy_rewards, torch.zeros_like(batch.truncated), lengths, moments, settings.clip, 0.0, None
            )
        return batch.with_columns(**columns)

    def state(self) -> dict:
        return {"draws": self.draws, "moments": self.moments.state(), "drought": self.drought.steps}

    def resume(self, state: Mapping) -> None:
        if state:
            self.draws, self.moments = state["draws"], RunningMoments.from_state(state["moments"])
            self.drought.steps = state["drought"]


@dataclass(frozen=True)
class Draw:
    """One draw of prompts with their samples. Rewards may be NaN."""

    batch: Batch
    staged: Staged
    parts: dict[str, Tensor]  # (B,) scores by reward part
    samples: Sequence[Sample] = ()  # in the order of the batch's rows
    failures: Sequence[Failure] = ()
    news: Sequence[str] = ()  # messages about kinds of failures that are new in this run


def drop_unscored(batch: Batch) -> Batch:
    """The batch without the rows whose reward or baseline is not finite: they never count as 0."""
    scored = has_score(batch)
    return batch if scored.all() else batch.select(scored.nonzero()[:, 0])


def has_score(batch: Batch) -> Tensor:
    """(B,) bool: the reward is finite, and so is the greedy baseline, if there is one."""
    scored = batch.rewards.isfinite()
    return scored & batch.greedy_rewards.isfinite() if "greedy_rewards" in batch else scored


def join(batches: Sequence[Batch], groups: int) -> Batch:
    """One batch with the first `groups` prompt groups of all batches; group_ids of different batches stay different."""
    if len(batches) == 1:
        return batches[0]
    count, apart = 0, []
    for batch in batches:
        apart.append(batch.with_columns(group_ids=batch.group_ids + count))
        count = max([count, *(apart[-1].group_ids + 1).tolist()])
    joined = Batch.cat(apart)
    chosen = joined.groups()[:groups]
    return joined.select(torch.cat(chosen)) if chosen else joined


def scores_of(draws: Sequence[Draw]) -> Metrics:
    """Figures over all drawn samples: the number without a score, each reward part's failures and mean score, and the
    share of prompts whose samples all have the same reward."""
    figures: Metrics = {"dropped": sum(int((~has_score(draw.batch)).sum()) for draw in draws)}
    figures |= failure_counts([failure for draw in draws for failure in draw.failures])
    for name in dict.fromkeys(name for draw in draws for name in draw.parts):
        values = torch.cat([draw.parts[name] for draw in draws if name in draw.parts])
        if not values.isnan().all():
            figures[f"reward/{name}"] = float(values.nanmean())
    spreads = [
        bool((draw.batch.rewards[rows] != draw.batch.rewards[rows[0]]).any())
        for draw in draws
        for rows in draw.batch.groups()
        if len(rows) > 1
    ]
    if spreads:
        figures["equal_groups"] = 1 - sum(spreads) / len(spreads)
    return figures


def described(sample: Sample) -> dict[str, str | int]:
    return {"prompt": sample.prompt.text, "answer": sample.text, "row": sample.prompt.row}
