"""Sampled answers: prompts and sampling seeds, samples as batches, and the evaluation of a policy by its answers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.batch import Batch
from data.imports import load_object
from data.plain_rows import build_prompts
from data.sample import Prompt, Sample, Sampling
from rlhf.config.schema import AnswerEvaluation, SamplingConfig
from rlhf.interfaces import ModelGroup, RolloutPool
from rlhf.metrics import Timer
from rlhf.phases.base import ROWS, Metrics, PhaseContext, export
from rlhf.rollout import play, resolve_rollout

Generate = Callable[[Sequence[Prompt], Sampling], list[Sample]]
EVALUATION = -1  # used as the step in the sampling seed of evaluations


def batch_of(samples: Sequence[Sample]) -> Batch:
    """A batch whose rows are prompt and response; action_mask marks the tokens that the policy sampled. Samples of one
    prompt share a group_id. Columns: group_ids, truncated (B,), policy_version (B,), rollout_logprobs (B, T)."""
    groups: dict[int, int] = {}
    batch = Batch.from_rows(
        [sample.prompt.tokens + sample.tokens for sample in samples],
        [(False,) * len(sample.prompt.tokens) + (sample.sampled or (True,) * len(sample.tokens)) for sample in samples],
        group_ids=[groups.setdefault(id(sample.prompt), len(groups)) for sample in samples],
        truncated=[sample.truncated for sample in samples],
        policy_version=[sample.version for sample in samples],
    )
    logprobs = batch.tokens.new_zeros(batch.tokens.shape, dtype=float)
    for row, sample in enumerate(samples):
        start = len(sample.prompt.tokens)
        logprobs[row, start : start + len(sample.tokens)] = logprobs.new_tensor(sample.logprobs)
    return batch.with_columns(rollout_logprobs=logprobs)


def sampling(context: PhaseContext, settings: SamplingConfig, step: int) -> Sampling:
    """The config's sampling settings, with a seed for each run, phase and step. Evaluations of all phases share one
    seed, so that they compare models under the same draws."""
    phase = 0 if step == EVALUATION else zlib.crc32(context.phase.name.encode())
    seed = (context.seed, phase, step)
    return Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.samples, seed)


def start_rollouts(context: PhaseContext, policy: ModelGroup) -> RolloutPool:
    """The rollout engines for the policy's architecture."""
    path = context.path_of("policy")
    if path is None:  # a new policy: the engines load it from disk
        export(context, policy)
        path = str(context.staging)
    return context.runtime.rollouts(path, context.phase.max_length)


def generator(context: PhaseContext, rollouts: RolloutPool) -> Generate:
    """The function that answers prompts: one answer a sample, or the episodes of the phase's `rollout`."""
    rollout = context.rollout or getattr(context.phase, "rollout", None)
    if rollout is None:
        return rollouts.generate
    played = resolve_rollout(rollout)

    def generate(prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
        return play(played, prompts, sampling, rollouts, context.tokenizer, context.phase.max_length)

    return generate


@dataclass
class SampledStep:
    """The samples of one step, and the step's results, which the phase fills in before it asks for the next step."""

    samples: list[Sample]
    timer: Timer
    rows: Sequence[dict[str, Any]] = ()  # of the data set that the phase writes
    figures: Metrics = field(default_factory=dict)
    notes: Sequence[str] = ()  # messages for the user


def sampled_steps(context: PhaseContext, prompts: Sequence[Prompt], shown: tuple[str, ...]) -> Iterator[SampledStep]:
    """Samples answers to `prompts_per_step` prompts at a time. After each step, writes its rows to the phase's data
    set, its metrics and the progress bar."""
    phase = context.phase
    policy = context.build("policy")
    rollouts = start_rollouts(context, policy)
    rollouts.sync(policy)
    steps = range(0, len(prompts), phase.prompts_per_step)
    with context.tracking(len(steps), 0, shown) as track, open(context.staging / ROWS, "w") as file:
        for step, first in enumerate(steps):
            timer = Timer()
            with timer("generate"):
                asked = prompts[first : first + phase.prompts_per_step]
                samples = rollouts.generate(asked, sampling(context, phase.sampling, step))
            sampled = SampledStep(samples, timer)
            yield sampled
            for row in sampled.rows:
                file.write(json.dumps(row) + "\n")
            for text in sampled.notes:
                track.note(step + 1, text)
            track.step(step + 1, sampled.figures | timer.seconds)


def read_prompts(context: PhaseContext, settings: Any = None) -> list[Prompt]:
    """The prompts of `settings`, by default of the phase, without those that leave too little of max_length for an answer."""
    settings = settings or context.phase
    room = context.phase.max_length - settings.sampling.max_new_tokens
    prompts, report = build_prompts(context.open(settings.data), context.tokenizer, room)
    context.read(report)
    return prompts


@dataclass
class AnswerCheck:
    """Evaluates a policy by its sampled answers to held-out prompts, before and after training: mean scores and the KL
    to the reference."""

    context: PhaseContext
    settings: AnswerEvaluation
    rollouts: RolloutPool
    prompts: list[Prompt]
    policy: ModelGroup
    reference: ModelGroup | None
    first: dict[str, Any] = field(default_factory=dict)  # scores and shown texts before training, as JSON values

    @classmethod
    def prepare(cls, context: PhaseContext, policy: ModelGroup, reference: ModelGroup | None) -> AnswerCheck | None:
        """None if the config has no `answers` section."""
        settings = context.phase.answers
        if settings is None:
            return None
        prompts = read_prompts(context, settings)
        return cls(context, settings, start_rollouts(context, policy), prompts, policy, reference)

    def before(self, resumed: dict[str, Any] | None = None) -> None:
        """Samples answers before training, or takes those of the interrupted run. Only in rl and dpo: before other
        phases a model cannot answer yet."""
        if resumed:
            self.first = resumed
        elif self.context.phase.kind in ("rl", "dpo"):
            samples, scores = self._sample()
            self.first = {"scores": scores, "texts": [sample.text for sample in self._shown(samples)]}

    def after(self, policy: ModelGroup | None = None) -> Metrics:
        """<score> if there are no answers before training; else <score>_before, _after, _best and _gap_closed, the
        closed share of the gap from before to best. With a reference, `kl`: mean over answers of the sum over tokens of
        log(policy / reference), in nats. policy: the phase's result, if it is not the policy of `prepare`."""
        self.policy = policy or self.policy
        samples, scores = self._sample()
        figures: Metrics = {}
        for name, value in scores.items():
            if not self.first:
                figures[name] = value
                continue
            start, best = self.first["scores"][name], self.settings.scores[name].best
            figures |= {f"{name}_before": start, f"{name}_after": value}
            if best is not None:
                figures |= {f"{name}_best": best, f"{name}_gap_closed": (value - start) / max(best - start, 1e-9)}
        if self.reference:
            figures["kl"] = self._kl(batch_of(samples))
        texts = self.first.get("texts", [None] * self.settings.show)
        self.context.answers = [
            {"prompt": sample.prompt.text, "before": text, "after": sample.text}
            for sample, text in zip(self._shown(samples), texts)
        ]
        return figures

    def _sample(self) -> tuple[list[Sample], Metrics]:
        self.rollouts.sync(self.policy)
        generate = generator(self.context, self.rollouts)
        samples = generate(self.prompts, sampling(self.context, self.settings.sampling, EVALUATION))
        scores = {name: load_object(score.source) for name, score in self.settings.scores.items()}
        return samples, {name: sum(map(score, samples)) / len(samples) for name, score in scores.items()}

    def _shown(self, samples: list[Sample]) -> list[Sample]:
        return [sample for sample in samples if sample.index == 0][: self.settings.show]

    def _kl(self, batch: Batch) -> float:
        staged = self.context.runtime.stage(batch, [self.policy, self.reference])
        temperature = self.settings.sampling.temperature
        pending = [group.forward(staged, "logprobs", temperature) for group in (self.policy, self.reference)]
        policy, reference = (work.result() for work in pending)
        return float(((policy - reference) * batch.action_mask).sum(1).mean())
