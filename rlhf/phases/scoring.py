"""Scores answers by the sum of all reward parts: reward models, functions in worker processes, the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from data.errors import UserError
from data.feedback.single_answers import question_batch
from data.feedback.step_labels import step_batch
from data.sample import Sample
from rlhf.config.rewards import Piecewise, Reward
from rlhf.interfaces import ModelGroup, RewardFunction, RewardSource, Staged
from rlhf.phases.base import Metrics, PhaseContext
from rlhf.rewards.compose import Part, columns, compose, guarded_prompts, total
from rlhf.rewards.model_scores import MOST_QUESTIONS, RewardSpec, ensemble, mean_verdict, weakest_step
from rlhf.rewards.reward_sources import JUDGE, MODEL
from rlhf.rewards.workers import Call, Failure, Value, Workers

PATIENCE = 3  # steps without any score after which the run ends


@dataclass(frozen=True)
class Rewards:
    """The rewards of a list of samples. NaN means no score."""

    rewards: Tensor  # (B,) fp32
    parts: dict[str, Tensor]  # (B,) fp32 for each part, before clip and weight; an ensemble also has part/std
    failures: list[Failure] = field(default_factory=list)
    # messages for the user: the first failure of each kind
    news: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RewardModel:
    """One reward model on the cluster, and how its output becomes a score."""

    group: ModelGroup
    spec: RewardSpec

    @classmethod
    def build(cls, context: PhaseContext, role: str) -> RewardModel:
        """Builds the role's reward model. Raises UserError where it asks more questions than a reward may."""
        path = context.path_of(role)
        spec = RewardSpec.read(path) if path else RewardSpec()
        if len(spec.questions) > MOST_QUESTIONS:
            raise UserError(
                f"{path}: this reward model would ask each answer all {len(spec.questions):,} questions of its training rows, "
                f"but a reward asks {MOST_QUESTIONS} at most: train it on rows that ask the same few questions of every answer"
            )
        if role not in context.reward_groups:  # the watch may have built the same model
            room = 1 if spec.reads == "answer" else 2  # a question follows an answer of up to max_length
            context.reward_groups[role] = context.build(role, head="scalar", rows_together=room)
        return cls(context.reward_groups[role], spec)

    def ask(self, context: PhaseContext, samples: Sequence[Sample], staged: Staged) -> Callable[[], Tensor]:
        """Starts scoring. The returned function waits for the scores, (B,) fp32. staged: the samples' rows."""
        if self.spec.reads == "answer":
            pending = self.group.forward(staged, "scores")
            return lambda: pending.result().detach().float().cpu()
        if self.spec.reads == "steps":
            batch = step_batch(samples, context.tokenizer)
            pending = self.group.forward(context.runtime.stage(batch, [self.group]), "values")
            return lambda: weakest_step(pending.result().detach().float().cpu(), batch.action_mask)
        questions = self.spec.questions
        batch = question_batch(samples, questions, context.tokenizer)
        pending = self.group.forward(context.runtime.stage(batch, [self.group]), "scores")
        return lambda: mean_verdict(pending.result().detach().float().cpu(), len(questions))


@dataclass
class Scorer:
    """Scores samples with every part of a reward. Enter it as a context, in which the reward functions' workers live.

    groups: the reward models by role; `score` needs the samples staged for these groups.
    """

    context: PhaseContext
    parts: Sequence[Part]
    combine: Piecewise | None
    models: Mapping[str, RewardModel]  # by role
    workers: dict[str, Workers] = field(default_factory=dict)  # by part
    told: set[tuple[str, str]] = field(default_factory=set)  # (part, kind) of failures that the user knows
    stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(
        cls,
        context: PhaseContext,
        configured: Sequence[Reward],
        combine: Piecewise | None = None,
        given: RewardFunction | RewardSource | None = None,
    ) -> Scorer:
        """Builds the reward models, except those that another scorer of the phase has built.

        given: the caller's own reward, used instead of `configured` and `combine`.
        Raises UserError where a source is wrong, or the guard is not one of the parts.
        """
        combine = None if given is not None else combine
        parts = compose(configured, given, combine)
        roles = dict.fromkeys(role for part in parts if part.source == MODEL for role in roles_of(context, part))
        if any(part.source == JUDGE for part in parts):
            context.judge  # noqa: B018  starts the judge's server before the models build
        return cls(context, parts, combine, {role: RewardModel.build(context, role) for role in roles})

    @property
    def groups(self) -> dict[str, ModelGroup]:
        return {role: model.group for role, model in self.models.items()}

    def __enter__(self) -> Scorer:
        with ExitStack() as stack:
            for part in self.parts:
                if isinstance(part.source, Call):
                    self.workers[part.name] = stack.enter_context(Workers(part.name, part.source))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def score(self, samples: Sequence[Sample], staged: Staged | None) -> Rewards:
        """The samples' rewards. staged: the samples' rows in the object store; may be None if `groups` is empty.

        Raises UserError where a source finds a user's mistake, such as a column that the prompts lack.
        """
        asked = {role: model.ask(self.context, samples, staged) for role, model in self.models.items()}
        found: dict[str, Tensor] = {}
        failures: list[Failure] = []
        for part in self.parts:
            if part.source != MODEL:  # functions and judge work at the same time as the models
                values, lost = self._values(part, samples)
                found |= columns(part.name, values)
                failures += lost
        answers = {role: wait() for role, wait in asked.items()}
        for part in self.parts:
            if part.source == MODEL:
                found |= self._model_scores(part, answers)
        column = self.combine.prompts if self.combine else None
        guarded = guarded_prompts(samples, column) if column else None
        rewards = total(self.parts, found, self.combine, guarded)
        return Rewards(rewards, found, failures, list(self._news(failures)))

    def _news(self, failures: Sequence[Failure]) -> Iterator[str]:
        for failure in failures:
            if (failure.reward, failure.what) not in self.told:
                self.told.add((failure.reward, failure.what))
                yield str(failure)

    def _values(self, part: Part, samples: Sequence[Sample]) -> tuple[Sequence[Value], list[Failure]]:
        if part.name in self.workers:
            return self.workers[part.name].score(samples)
        return (self.context.judge.score(samples) if part.source == JUDGE else part.source(samples)), []

    def _model_scores(self, part: Part, answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        roles = roles_of(self.context, part)
        means = [self.models[role].spec.mean for role in roles]
        reward, std = ensemble([answers[role] for role in roles], means, part.std_penalty)
        found = columns(part.name, reward.tolist())
        return found if std is None else found | columns(f"{part.name}/std", std.tolist())


@dataclass
class Drought:
    """Counts steps without any score, and ends the run after too many."""

    steps: int = 0

    def see(self, scored: int, asked: int, failures: Sequence[Failure], judged: Metrics) -> list[str]:
        """Messages for the user about a step without any score. judged: the figures of the judge's questions.

        Raises UserError at the third such step in a row.
        """
        self.steps = 0 if scored or not asked else self.steps + 1
        if not self.steps:
            return []
        why = f"the last failure: {failures[-1]}" if failures else "every reward, or greedy baseline, is NaN"
        if judged:
            why += "; questions so far: " + ", ".join(f"{name} {value:g}" for name, value in judged.items())
        if self.steps >= PATIENCE:
            raise UserError(f"no sample of the last {PATIENCE} steps has a score; {why}")
        return ["nothing to learn from: no sample of the step has a score"]


def roles_of(context: PhaseContext, part: Part) -> list[str]:
    """The roles of the part's reward models."""
    if not part.models:
        return ["reward"]
    of_path = {path: role for role, path in context.resolved.reward_models.items()}
    return [of_path[path] for path in part.models]


def failure_counts(failures: Sequence[Failure]) -> Metrics:
    """The number of samples that each part failed to score, as reward/<part>/failed."""
    counts: Counter = Counter()
    for failure in failures:
        counts[f"reward/{failure.reward}/failed"] += failure.dropped
    return dict(counts)
