"""Scoring of samples in a phase: which reward models are built and asked, and how failures are reported."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import bad_rewards
import pytest
import torch
from data_cases import tokenizer as bpe_tokenizer
from rich.console import Console

from data.errors import UserError
from data.feedback.single_answers import question_batch
from data.feedback.step_labels import step_batch, steps_of
from data.sample import Prompt, Sample
from rlhf.algorithms.grpo import GRPO
from rlhf.algorithms.reinforce import ReMax
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.metrics import Timer
from rlhf.phases.answers import batch_of
from rlhf.phases.base import PhaseContext, Tracker
from rlhf.phases.experience import Collector
from rlhf.phases.scoring import Drought, Scorer, failure_counts
from rlhf.rewards.model_scores import MOST_QUESTIONS, RewardSpec
from rlhf.rewards.workers import Failure
from rlhf.rundir import RunDirectory


class Done:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


class Group:
    """A model whose score is the sum of a row's tokens plus a constant of its own, and whose values are the tokens."""

    ranks = 1

    def __init__(self, plus: float) -> None:
        self.plus, self.asked = plus, []

    def forward(self, staged, output, temperature=1.0) -> Done:
        self.asked.append((staged, output))
        tokens = staged.tokens.float()
        if output == "scores":
            return Done(tokens.sum(1) + self.plus)
        return Done(tokens * staged.action_mask if output == "values" else -torch.ones_like(tokens))


class Runtime:
    """Groups by role, each the second time a mistake; batches are staged as they are."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.builds = {}

    def group(self, build, pool) -> Group:
        assert build.role not in self.groups, "built twice"
        self.builds[build.role] = build
        return self.groups.setdefault(build.role, Group(len(self.groups)))

    def stage(self, batch, groups: Sequence[Group], minibatches=1, seed=0):
        assert groups
        return batch


def context_of(tmp_path: Path, reward: list, **phase) -> PhaseContext:
    limits = {"timeout_s": 30, "retries": 0}
    reward = [{**part, "limits": limits} if ":" in part.get("source", "") else part for part in reward]
    settings = {"kind": "rl", "data": "unused", "reward": reward, "prompts_per_step": 2, "max_length": 64, **phase}
    models = {"policy": "a", "reward": str(tmp_path / "reward")}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": [settings]})
    run, console = RunDirectory(tmp_path), Console(file=StringIO(), width=200)
    context = PhaseContext(resolve(config).phases[0], Runtime(), run, {}, "id", tmp_path / "s", console)
    context.tokenizer = bpe_tokenizer()
    return context


def scorer_of(context: PhaseContext) -> Scorer:
    return Scorer.of(context, context.phase.reward, context.phase.combine)


PROMPTS = [Prompt((5, 6), "say [/b] this", 0, {}, ({"role": "user", "content": "say"},)), Prompt((7,), "and", 1)]


def answers(*texts: str, prompt: Prompt = PROMPTS[0]) -> list[Sample]:
    return [Sample(prompt, i, (len(text), 9), (-1.0, -1.0), text, False, 1) for i, text in enumerate(texts)]


def values(tensor):
    return [None if math.isnan(value) else round(value, 5) for value in tensor.tolist()]


def test_functions_rules_and_models_score_together(tmp_path):
    reward = [
        {"source": "model"},
        {"source": "bad_rewards:raises", "weight": 0.0},
        {"source": "length", "weight": 10, "args": {"high": 1}},
    ]
    context = context_of(tmp_path, reward)
    samples = [*answers("yes", "no yes"), *answers("maybe", prompt=PROMPTS[1])]
    with scorer_of(context) as scorer:
        scores = scorer.score(samples, batch_of(samples))
    model = [5 + 6 + 3 + 9, 5 + 6 + 6 + 9, 7 + 5 + 9]
    assert values(scores.parts["model"]) == model
    assert values(scores.parts["raises"]) == [3, 6, None]
    assert values(scores.rewards) == [model[0] + 10, model[1], model[2] + 10]
    assert failure_counts(scores.failures) == {"reward/raises/failed": 1}
    assert context.runtime.builds["reward"].head == "scalar"


def test_members_of_an_ensemble_are_centred_and_asked_with_the_same_rows(tmp_path):
    for name, mean in (("one", 3.0), ("two", -1.0)):
        (tmp_path / name).mkdir()
        RewardSpec(mean=mean).write(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("one", "two")]
    context = context_of(tmp_path, [{"name": "safe", "models": paths, "std_penalty": 0.5}])
    samples = answers("yes", "no yes")
    scorer = scorer_of(context)
    assert scorer.groups == context.runtime.groups
    assert set(scorer.groups) == {"reward_1", "reward_2"}
    staged = batch_of(samples)
    scores = scorer.score(samples, staged)
    # sums 23 and 26; members + 0 and + 1, less 3 and plus 1: 20 and 25, 23 and 28
    assert values(scores.parts["safe"]) == [22.5 - 0.5 * 2.5, 25.5 - 0.5 * 2.5]
    assert values(scores.parts["safe/std"]) == [2.5, 2.5]
    assert all(group.asked == [(staged, "scores")] for group in scorer.groups.values())


def test_a_model_that_two_scorers_read_is_built_once(tmp_path):
    context = context_of(tmp_path, [{"source": "model"}], watch={"gold": [{"models": ["gold"]}, {"name": "x"}]})
    proxy, gold = scorer_of(context), Scorer.of(context, context.phase.watch.gold)
    assert set(proxy.groups) == {"reward"}
    assert gold.groups == {"reward_1": context.runtime.groups["reward_1"], "reward": proxy.groups["reward"]}


def test_a_process_reward_model_reads_the_steps(tmp_path):
    (tmp_path / "reward").mkdir()
    RewardSpec(reads="steps").write(tmp_path / "reward")
    context = context_of(tmp_path, [{"source": "model"}])
    samples = answers("one two\nthree\n", "", "four")
    scores = scorer_of(context).score(samples, batch_of(samples))
    own = step_batch(samples, context.tokenizer)
    asked, output = context.runtime.groups["reward"].asked[0]
    assert output == "values"
    assert asked.tokens.equal(own.tokens)
    assert [len(steps_of(sample.text)) for sample in samples] == own.action_mask.sum(1).tolist()
    lowest = [
        row[mask].sigmoid().min().item() if mask.any() else math.nan for row, mask in zip(own.tokens, own.action_mask)
    ]
    assert values(scores.rewards) == values(torch.tensor(lowest))
    assert context.runtime.builds["reward"].microbatch_tokens >= 2 * context.phase.max_length


def test_a_model_of_questions_is_asked_each_of_every_answer(tmp_path):
    (tmp_path / "reward").mkdir()
    RewardSpec(reads="questions", questions=("Is it kind?", "Is it true?")).write(tmp_path / "reward")
    context = context_of(tmp_path, [{"source": "model"}])
    context.reward_groups["reward"] = group = Group(0.0)
    group.forward = lambda staged, output: Done(torch.arange(len(staged)).float())
    samples = answers("one", "two")
    scores = scorer_of(context).score(samples, None)
    assert len(question_batch(samples, ("a", "b"), context.tokenizer)) == 4
    logs = [-math.log1p(math.exp(-score)) for score in range(4)]
    assert values(scores.rewards) == pytest.approx([(logs[0] + logs[1]) / 2, (logs[2] + logs[3]) / 2], abs=1e-5)


def test_a_model_of_more_questions_than_a_reward_may_ask_is_refused(tmp_path):
    (tmp_path / "reward").mkdir()
    for count, refused in ((MOST_QUESTIONS, False), (MOST_QUESTIONS + 1, True)):
        RewardSpec(reads="questions", questions=tuple(f"{n}?" for n in range(count))).write(tmp_path / "reward")
        context = context_of(tmp_path, [{"source": "model"}])
        with pytest.raises(UserError, match=r"all 65 questions .* 64 at most") if refused else nullcontext():
            scorer_of(context)


def test_the_judge_scores_in_the_drivers_process(tmp_path):
    context = context_of(tmp_path, [{"source": "judge"}], judge={"url": "http://127.0.0.1:1/v1", "kind": "pointwise"})
    context.judge = SimpleNamespace(score=lambda samples: [0.5, math.nan])
    assert values(scorer_of(context).score(answers("a", "b"), None).rewards) == [0.5, None]


def test_each_kind_of_failure_is_told_once(tmp_path):
    context = context_of(tmp_path, [{"source": "bad_rewards:raises"}])
    samples = answers("a", "b", "c", prompt=PROMPTS[1])
    with scorer_of(context) as scorer:
        first, second = scorer.score(samples, None), scorer.score(samples, None)
    assert len(first.failures) == len(second.failures) == 3
    assert len(first.news) == 1
    assert first.news[0].startswith("reward 'raises': prompt row 1 (\"and\"), sample ")
    assert second.news == []


def test_three_steps_without_a_score_end_the_run():
    failure = Failure("slow", tuple(answers("a")), "no answer within 5 s (limits.timeout_s)", "", 2)
    drought = Drought()
    told = ["nothing to learn from: no sample of the step has a score"]
    assert drought.see(0, 4, [failure], {}) == drought.see(0, 4, [], {}) == told
    assert drought.see(1, 4, [], {}) == []
    assert drought.see(0, 4, [], {}) and drought.see(0, 4, [], {})
    with pytest.raises(
        UserError, match=r"the last 3 steps has a score; the last failure: reward 'slow': prompt row 0 \(.say"
    ):
        drought.see(0, 4, [failure], {})


def test_a_drought_reports_the_judges_figures():
    drought, judged = Drought(), {"judge/asked": 12, "judge/malformed": 12}
    drought.see(0, 4, [], judged)
    drought.see(0, 4, [], judged)
    with pytest.raises(UserError, match=r"is NaN; questions so far: judge/asked 12, judge/malformed 12"):
        drought.see(0, 4, [], judged)


def collector_of(context: PhaseContext, scorer: Scorer) -> Collector:
    def generate(asked, sampling):
        return [sample for prompt in asked for sample in answers("a", "bb", prompt=prompt)]

    groups = {"policy": Group(0.0), **scorer.groups}
    return Collector(context, PROMPTS, groups, scorer, generate)


def test_a_step_reports_the_judges_figures(tmp_path):
    context = context_of(tmp_path, [{"source": "judge"}], judge={"url": "http://127.0.0.1:1/v1", "kind": "pointwise"})
    assert context.judge_figures() == {}
    counted = {"asked": 4, "failed": 1}
    context.judge = SimpleNamespace(score=lambda samples: [0.5] * len(samples), metrics=lambda: counted)
    with scorer_of(context) as scorer:
        collector = collector_of(context, scorer)
        collector.groups["reference"] = Group(1.0)
        figures = collector.collect(GRPO(), Timer()).figures
    assert {"judge/asked": 4, "judge/failed": 1}.items() <= figures.items()


@pytest.mark.parametrize("algorithm", [GRPO(), ReMax()])
def test_a_step_keeps_its_first_draw_and_learns_from_the_scored_rows(tmp_path, algorithm):
    context = context_of(tmp_path, [{"source": "bad_rewards:raises"}], sampling={"samples": 2})
    with scorer_of(context) as scorer:
        collector = collector_of(context, scorer)
        collector.groups["reference"] = Group(1.0)
        experience = collector.collect(algorithm, Timer())
    assert sorted(experience.batch.rewards.tolist()) == [1, 2]
    first = experience.first
    assert len(first.samples) == len(first.batch) == len(first.parts["raises"]) == 4
    scores = {(s.prompt.row, s.index): reward for s, reward in zip(first.samples, values(first.batch.rewards))}
    assert scores == {(0, 0): 1, (0, 1): 2, (1, 0): None, (1, 1): None}
    assert experience.figures["dropped"] == 2
    assert experience.figures["reward/raises/failed"] == (2 if isinstance(algorithm, GRPO) else 4)
    assert len(experience.notes) == 1


def test_a_step_without_any_score_is_empty_and_the_third_ends_the_run(tmp_path):
    context = context_of(tmp_path, [{"source": "bad_rewards:always_raises"}], sampling={"samples": 2})
    with scorer_of(context) as scorer:
        collector = collector_of(context, scorer)
        empty = [collector.collect(GRPO(), Timer()) for _ in range(2)]
        assert [len(step.batch) for step in empty] == [0, 0]
        assert empty[1].notes == ["nothing to learn from: no sample of the step has a score"]
        assert "reward/always_raises" not in empty[0].figures
        with pytest.raises(UserError, match=r"the last failure: reward 'always_raises': prompt row .*raised KeyError"):
            collector.collect(GRPO(), Timer())


def test_steps_without_a_score_count_on_after_an_interruption(tmp_path):
    context = context_of(tmp_path, [{"source": "bad_rewards:always_raises"}], sampling={"samples": 2})
    with scorer_of(context) as scorer:
        state = {}
        for _ in range(2):
            collector = collector_of(context, scorer)
            collector.resume(state)
            collector.collect(GRPO(), Timer())
            state = json.loads(json.dumps(collector.state()))
        collector = collector_of(context, scorer)
        collector.resume(state)
        with pytest.raises(UserError, match="no sample of the last 3 steps has a score"):
            collector.collect(GRPO(), Timer())


def test_a_note_may_contain_console_markup(tmp_path):
    context = context_of(tmp_path, [])
    Tracker(context, None, None).note(1, 'prompt ("say [/b] this") [red]')
    assert 'step 1: prompt ("say [/b] this") [red]' in context.console.file.getvalue()


def test_a_reward_given_by_value_needs_no_model(tmp_path):
    context = context_of(tmp_path, [{"source": "model"}], combine={"guard": "model"})
    with Scorer.of(context, context.phase.reward, context.phase.combine, bad_rewards.right) as scorer:
        assert scorer.groups == context.runtime.groups == {}
        assert values(scorer.score(answers("a", "bb"), None).rewards) == [1, 2]
