from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.errors import UserError
from data.sample import Prompt, Sample
from rlhf.config.rewards import Piecewise, Reward
from rlhf.rewards.compose import Part, columns, compose, guarded_prompts, total
from rlhf.rewards.model_scores import ensemble, mean_verdict, weakest_step
from rlhf.rewards.reward_sources import MODEL, environment_scores, find
from rlhf.rewards.rules import Length, Regex
from rlhf.rewards.worker_script import evaluate
from rlhf.rewards.workers import Call

NAN = math.nan


def sample(text, row=0, **meta):
    return Sample(Prompt((1, 2), "question", row, meta), 0, (3, 4), (-0.5, -0.5), text, False, 1)


SAMPLES = [sample("a", row=7), sample("bbb", row=8)]


def length(sample, times=1):
    return times * len(sample.text)


@dataclass(frozen=True)
class Brevity:
    limit: int = 10

    def __call__(self, sample):
        return float(len(sample.text) <= self.limit)


class Judge:
    def __init__(self, address, timeout_s=1.0):
        raise AssertionError("made in the worker, never here")

    def score(self, samples):
        return [0.0] * len(samples)


class Plain:
    """Scores nothing."""


def values(tensor):
    return [None if math.isnan(value) else value for value in tensor.tolist()]


def column(*numbers):
    return torch.tensor(numbers)


def test_rewards_are_the_weighted_sum_of_clipped_parts():
    parts = [Part("model", MODEL, 0.5, clip=(-1.0, 1.0)), Part("length", length, -2.0)]
    rewards = total(parts, {"model": column(0.4, 9.0), "length": column(1.0, 3.0)})
    assert rewards.dtype == torch.float32
    assert values(rewards) == pytest.approx([0.2 - 2, 0.5 - 6])


def test_a_row_without_a_score_is_nan_unless_the_part_weighs_nothing():
    scores = {"length": column(1.0, 3.0), "picky": column(NAN, 1.0)}
    assert values(total([Part("length", length), Part("picky", length, clip=(0.0, 5.0))], scores)) == [None, 4]
    assert values(total([Part("length", length), Part("picky", length, weight=0.0)], scores)) == [1, 3]


def test_the_guard_scores_alone_where_it_is_low_or_the_prompt_calls_for_it():
    # Llama 2, section 3.2.3: R_s where the prompt is a safety prompt or R_s < 0.15, else R_h
    parts = [Part("helpful", MODEL), Part("safe", MODEL, 2.0), Part("short", length, 0.5)]
    scores = {
        "helpful": column(9.0, 9.0, 9.0, 9.0, NAN, NAN),
        "safe": column(0.1, 0.2, 0.9, NAN, 0.1, 0.9),
        "short": column(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    }
    guarded = torch.tensor([False, False, True, False, False, False])
    rewards = total(parts, scores, Piecewise(guard="safe", below=0.15), guarded)
    assert values(rewards) == pytest.approx([0.2, 9.5, 1.8, None, 0.2, None])
    assert values(total(parts, scores, Piecewise(guard="safe", below=0.15)))[2] == pytest.approx(9.5)


def test_a_guard_must_be_a_part():
    with pytest.raises(UserError, match="no reward is named 'safe'; there are model, length"):
        compose([Reward(), Reward(source="length")], combine=Piecewise(guard="safe"))


def test_the_prompts_say_where_the_guard_scores_alone():
    assert guarded_prompts([sample("a", risky=True), sample("a", risky=0)], "risky").tolist() == [True, False]
    for meta in ({}, {"risky": "false"}):
        with pytest.raises(
            UserError, match=r"combine\.prompts: prompt row 3 has .* in column 'risky'; wanted true or false"
        ):
            guarded_prompts([sample("a", row=3, **meta)], "risky")


def test_named_values_are_summed_and_reported():
    found = columns("judge", [{"format": 0.5}, {"format": 1.0, "long": 2}])
    assert {name: values(column) for name, column in found.items()} == {
        "judge": [0.5, 3],
        "judge/format": [0.5, 1],
        "judge/long": [None, 2],
    }


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, {"format": math.inf, "long": -math.inf}])
def test_what_is_not_finite_in_fp32_is_no_score(value):
    assert values(columns("odd", [value, 1.0])["odd"]) == [None, 1]


def test_an_ensemble_is_the_mean_of_centred_members_less_their_deviation():
    members, means = np.array([[1.0, 2.0, 5.0], [13.0, 11.0, NAN], [-4.0, 0.5, 1.0]]), [1.0, 10.0, -2.0]
    reward, std = ensemble([torch.tensor(member) for member in members], means, 0.5)
    centred = members - np.array(means)[:, None]
    np.testing.assert_allclose(reward, centred.mean(0) - 0.5 * centred.std(0))
    np.testing.assert_allclose(std, centred.std(0))
    alone, nothing = ensemble([column(1.0, 2.0)], [7.0], 0.5)
    assert (values(alone), nothing) == ([1, 2], None)


def test_a_process_reward_is_the_probability_of_the_weakest_step():
    logits = torch.tensor([[-9.0, 2.0, -1.0, 5.0], [3.0, 0.0, 9.0, 9.0], [1.0, 1.0, 1.0, 1.0]])
    ends = torch.tensor([[False, True, True, True], [True, True, False, False], [False] * 4])
    assert values(weakest_step(logits, ends)) == pytest.approx([1 / (1 + math.e), 0.5, None])


def test_answers_to_questions_count_by_the_mean_of_their_log_probabilities():
    verdicts = mean_verdict(torch.tensor([0.0, math.log(3), 2.0, 2.0]), 2)
    assert values(verdicts) == pytest.approx([(math.log(0.5) + math.log(0.75)) / 2, math.log(1 / (1 + math.exp(-2)))])


def test_the_environment_is_a_source_that_reads_the_samples_own_score():
    samples = [replace(SAMPLES[0], score=0.5), SAMPLES[1]]
    assert values(torch.tensor(find(Reward(source="environment"))(samples))) == [0.5, None]
    with pytest.raises(UserError, match=r"no rollout environment gave a score: set phases\.<name>\.rollout"):
        environment_scores(SAMPLES)


@pytest.mark.parametrize("number", [1, True, np.float32(1), np.int64(1), torch.tensor(1.0), NAN])
def test_every_kind_of_number_is_a_score(number):
    kind, (score,) = evaluate(lambda sample: number, SAMPLES[:1], UserError)
    assert kind == "scores"
    assert type(score) is float


@pytest.mark.parametrize("value", [None, "1.0", [1.0, 2.0], 10**400, {"format": None}])
def test_what_is_no_number_is_a_failure(value):
    kind, (what, detail) = evaluate(lambda sample: value, SAMPLES[:1], UserError)
    assert (kind, what) == ("failed", f"returned a {type(value).__name__}")
    assert "is no number; nan is no score" in detail


def test_an_object_must_score_every_sample():
    short = SimpleNamespace(score=lambda samples: [1.0])
    reply = evaluate(short, SAMPLES, UserError)
    assert reply == ("failed", ("gave 1 scores for 2 samples", "one each is wanted"))


def test_sources_of_a_config_are_imported_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_a.py").write_text("def brevity(sample):\n    return -len(sample.text)\n")
    monkeypatch.chdir(tmp_path)
    brevity, model = compose([Reward(source="my_rewards_a:brevity", weight=0.5), Reward(source="model", clip=(0, 1))])
    assert (brevity.name, brevity.weight, brevity.source.target(SAMPLES[1])) == ("brevity", 0.5, -3)
    assert (model.name, model.source, model.clip) == ("model", "model", (0, 1))


def test_args_are_a_functions_keywords_a_dataclass_fields_and_what_a_class_is_made_with():
    function, fields, made = (
        find(Reward(source=f"{__name__}:{name}", args=args))
        for name, args in (("length", {"times": 2}), ("Brevity", {"limit": 3}), ("Judge", {"address": "here"}))
    )
    assert function == Call(length, {"times": 2})
    assert fields == Call(Brevity(3))
    assert made == Call(Judge, {"address": "here"})
    assert (function.together, fields.together, made.together) == (False, False, True)


def test_rules_need_no_process_unless_the_user_writes_their_pattern():
    assert find(Reward(source="length", args={"high": 2, "unit": "characters"}))(SAMPLES) == [1, 0]
    assert find(Reward(source="regex", args={"pattern": "b+"})).target == Regex("b+")
    assert compose([Reward(source="rlhf.rewards.rules:Length")])[0].source(SAMPLES) == [
        Length()(one) for one in SAMPLES
    ]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            Reward(source="lenght"),
            "there is no reward 'lenght'; built in are model, judge, environment, numeric_answer, reg",
        ),
        (Reward(source="nothing_here:reward"), "there is no module 'nothing_here'"),
        (Reward(source="rlhf.rewards.rules:numeric_anser"), "did you mean 'numeric_answer'"),
        (Reward(source="math:pi"), "wanted a function of one sample"),
        (Reward(source=f"{__name__}:Plain"), "wanted a function of one sample"),
        (Reward(source=f"{__name__}:length", args={"tims": 2}), "got an unexpected keyword argument 'tims'; it takes"),
        (Reward(source=f"{__name__}:Judge"), "missing a required argument: 'address'"),
        (Reward(source=f"{__name__}:Brevity", args={"limt": 2}), "has no parameter 'limt'; did you mean 'limit'"),
        (Reward(source="numeric_answer", args={"x": 1}), "got an unexpected keyword argument 'x'"),
        (Reward(source="model", args={"x": 1}), "source 'model' takes no args, got x"),
    ],
)
def test_a_source_that_cannot_score_is_refused(reward, message):
    with pytest.raises(UserError) as caught:
        compose([reward])
    assert message in str(caught.value)


def test_functions_of_one_name_keep_their_modules(tmp_path, monkeypatch):
    for name in ("rewards_b", "rewards_c"):
        (tmp_path / f"{name}.py").write_text("def score_it(sample):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    parts = compose([Reward(source="rewards_b:score_it"), Reward(source="rewards_c:score_it")])
    assert [part.name for part in parts] == ["rewards_b:score_it", "rewards_c:score_it"]


def test_parts_of_one_name_are_refused():
    for rewards in ([Reward(), Reward()], [Reward(name="length"), Reward(source="length")]):
        with pytest.raises(UserError, match=r"2 parts are named '(model|length)'; give each a `name` of its own"):
            compose(rewards)
    assert len(compose([Reward(name="helpful", models=["a"]), Reward(name="safe", models=["b"])])) == 2


def test_a_given_reward_stands_in_place_of_the_configured_ones():
    (part,) = compose([Reward(source="model")], length)
    assert (part.name, part.source.target) == ("length", length)
    with pytest.raises(UserError, match="reward 'Brevity' is a class; give an object of it"):
        compose([], Brevity)
