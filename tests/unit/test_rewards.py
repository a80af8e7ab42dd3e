import math
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.errors import UserError
from data.sample import Prompt, Sample
from rlhf.config.schema import Reward
from rlhf.rewards.compose import Composite, Part, compose
from rlhf.rewards.rules import numeric_answer

NAN = math.nan


def sample(text, row=0, **meta):
    return Sample(Prompt((1, 2), "question", row, meta), 0, (3, 4), (-0.5, -0.5), text, False, 1)


SAMPLES = [sample("a", row=7), sample("bbb", row=8)]


def length(sample):
    return len(sample.text)


def values(tensor):
    return [None if math.isnan(value) else value for value in tensor.tolist()]


def test_rewards_are_the_weighted_sum_of_clipped_parts():
    parts = [Part("model", "model", 0.5, clip=(-1.0, 1.0)), Part("length", length, -2.0)]
    rewards, scores = Composite(parts).score(SAMPLES, torch.tensor([0.4, 9.0]))
    assert rewards.dtype == torch.float32
    assert values(rewards) == pytest.approx([0.2 - 2, 0.5 - 6])
    assert values(scores["model"]) == pytest.approx([0.4, 9.0])
    assert values(scores["length"]) == [1, 3]


def test_named_parts_are_summed_and_reported():
    def judge(sample):
        return {"format": 1.0, "long": 2} if sample.text == "bbb" else {"format": 0.5}

    rewards, scores = compose([], judge).score(SAMPLES)
    assert values(rewards) == [0.5, 3]
    assert values(scores["judge/format"]) == [0.5, 1]
    assert values(scores["judge/long"]) == [None, 2]


def test_an_object_scores_all_samples_at_once():
    class Ranks:
        def score(self, samples):
            return range(len(samples))

    assert values(compose([], Ranks()).score(SAMPLES)[0]) == [0, 1]


def test_a_row_without_a_score_is_nan_and_never_0():
    parts = [Part("length", length), Part("picky", lambda sample: NAN if sample.text == "a" else 1.0, clip=(0.0, 5.0))]
    rewards, scores = Composite(parts).score(SAMPLES)
    assert values(rewards) == [None, 4]
    assert values(scores["picky"]) == [None, 1]


def test_a_part_of_weight_0_is_reported_and_not_needed():
    rewards, scores = Composite([Part("length", length), Part("seen", lambda sample: NAN, weight=0.0)]).score(SAMPLES)
    assert values(rewards) == [1, 3]
    assert values(scores["seen"]) == [None, None]


@pytest.mark.parametrize("number", [1, True, np.float32(1), np.int64(1), torch.tensor(1.0), Decimal(1)])
def test_every_kind_of_number_is_a_score(number):
    assert values(compose([], lambda sample: number).score(SAMPLES)[0]) == [1, 1]


@pytest.mark.parametrize("value", [None, "1.0", [1.0, 2.0], 10**400, {"format": None}])
def test_what_is_no_number_is_refused_by_name_and_value(value):
    def odd(sample):
        return value

    with pytest.raises(UserError, match=r"reward 'odd' returned .* for prompt row 7; return a number"):
        compose([], odd).score(SAMPLES)


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39, {"format": math.inf, "long": -math.inf}])
def test_what_is_not_finite_in_fp32_is_no_score(value):
    def odd(sample):
        return value if sample.text == "a" else 1.0

    rewards, scores = Composite([Part("odd", odd, clip=(-5.0, 5.0))]).score(SAMPLES)
    assert values(rewards) == values(scores["odd"]) == [None, 1]
    rewards, scores = compose([Reward(source="model")]).score(SAMPLES, torch.tensor([math.inf, 2.0]))
    assert values(rewards) == values(scores["model"]) == [None, 2]


def test_the_environment_is_a_source_that_reads_the_samples_own_score():
    samples = [replace(SAMPLES[0], score=0.5), SAMPLES[1], replace(SAMPLES[1], score=-math.inf)]
    composite = compose([Reward(source="environment", weight=2.0)])
    assert not composite.needs_model
    rewards, scores = composite.score(samples)
    assert values(rewards) == [1, None, None]
    assert values(scores["environment"]) == [0.5, None, None]


def test_an_environment_that_gave_no_score_at_all_is_a_mistake():
    with pytest.raises(UserError, match=r"no rollout environment gave a score: set phases\.<name>\.rollout"):
        compose([Reward(source="environment")]).score(SAMPLES)


def test_an_error_in_a_function_names_it_and_the_row_and_keeps_its_traceback():
    def faulty(sample):
        return 1 / (len(sample.text) - 3)

    with pytest.raises(RuntimeError, match="reward 'faulty' failed on prompt row 8: ZeroDivisionError") as caught:
        compose([], faulty).score(SAMPLES)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.__cause__.__traceback__.tb_next is not None


def test_an_object_must_score_every_sample():
    short = SimpleNamespace(score=lambda samples: [1.0])
    with pytest.raises(UserError, match="gave 1 scores for 2 samples"):
        compose([], short).score(SAMPLES)


def test_sources_of_a_config_are_imported_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_a.py").write_text("def brevity(sample):\n    return -len(sample.text)\n")
    monkeypatch.chdir(tmp_path)
    composite = compose([Reward(source="my_rewards_a:brevity", weight=0.5), Reward(source="model", clip=(0, 1))])
    assert composite.needs_model
    assert [part.name for part in composite.parts] == ["brevity", "model"]
    rewards, scores = composite.score(SAMPLES, torch.tensor([2.0, 0.0]))
    assert values(rewards) == [0.5, -1.5]
    assert scores.keys() == {"brevity", "model"}


def test_functions_of_one_name_keep_their_modules(tmp_path, monkeypatch):
    for name in ("rewards_b", "rewards_c"):
        (tmp_path / f"{name}.py").write_text("def score_it(sample):\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    composite = compose([Reward(source="rewards_b:score_it"), Reward(source="rewards_c:score_it")])
    assert [part.name for part in composite.parts] == ["rewards_b:score_it", "rewards_c:score_it"]
    assert not composite.needs_model


def test_a_given_reward_stands_in_place_of_the_configured_ones():
    composite = compose([Reward(source="model")], length)
    assert [part.name for part in composite.parts] == ["length"]
    assert not composite.needs_model


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing_here:reward", "there is no module 'nothing_here'"),
        ("rlhf.rewards.rules:numeric_anser", "did you mean 'numeric_answer'"),
        ("math:pi", "wanted a function of one sample"),
        ("data.sample:Sample", "wanted a function of one sample"),
    ],
)
def test_a_source_that_cannot_score_is_refused(source, message):
    with pytest.raises(UserError, match=message):
        compose([Reward(source=source)])


def test_a_source_is_listed_once():
    with pytest.raises(UserError, match="'model' is listed 2 times"):
        compose([Reward(source="model"), Reward(source="model")])


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("so 40 + 32 = 72", "48+24 = <<48+24=72>>72 clips.\n#### 72", 1.0),
        ("#### 72\n\nQuestion 5", "#### 72", 1.0),
        ("It costs $1,234.50.", 1234.5, 1.0),
        ("the answer is -3", "-3", 1.0),
        ("16-3", 3, 1.0),
        ("72.0", 72, 1.0),
        ("720", 72, 0.0),
        ("1, 2, 3", 123, 0.0),
        (".5", 0.5, 1.0),
        ("no idea", 72, 0.0),
        ("72 ####", 72, 0.0),
    ],
)
def test_numeric_answer(text, answer, score):
    assert numeric_answer(sample(text, answer=answer)) == score


def test_numeric_answer_says_which_row_lacks_an_answer():
    with pytest.raises(UserError, match=r"row 4 has no column 'answer' \(further columns: solution\)"):
        numeric_answer(sample("72", row=4, solution="72"))
    with pytest.raises(UserError, match="prompt row 4: no number in its answer 'many'"):
        numeric_answer(sample("72", row=4, answer="many"))
