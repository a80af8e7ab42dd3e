"""The pure parts of the phases."""

from __future__ import annotations

import json
import math

import pytest
import torch

from data.batch import Batch
from data.messages import strings_in
from data.sample import Prompt, Sample
from rlhf.config.schema import Rl
from rlhf.metrics import MetricLog
from rlhf.objectives import DPO, ClippedPolicy
from rlhf.phases.answers import batch_of
from rlhf.phases.base import following
from rlhf.phases.best_of_n import best
from rlhf.phases.experience import Draw, drop_unscored, join, scores_of
from rlhf.phases.lesson import corrected, has_gradient, same_rows
from rlhf.phases.rl import describe


def sample(prompt: Prompt, index: int, tokens: tuple[int, ...], logprob: float = -1.0) -> Sample:
    return Sample(prompt, index, tokens, (logprob,) * len(tokens), "", truncated=False, version=3)


def two_prompts() -> Batch:
    first, second = Prompt((5, 6), "a", 0), Prompt((7,), "b", 1)
    return batch_of([sample(first, 0, (8, 9)), sample(first, 1, (8,), -2.0), sample(second, 0, (9, 9, 9))])


def test_samples_become_rows_of_prompt_and_response():
    batch = two_prompts().validate()
    assert batch.tokens.tolist() == [[5, 6, 8, 9], [5, 6, 8, 0], [7, 9, 9, 9]]
    assert batch.action_mask.tolist() == [
        [False, False, True, True],
        [False, False, True, False],
        [False, True, True, True],
    ]
    assert batch.group_ids.tolist() == [0, 0, 1]
    assert batch.rollout_logprobs.tolist() == [[0, 0, -1, -1], [0, 0, -2, 0], [0, -1, -1, -1]]
    assert batch.policy_version.tolist() == [3, 3, 3]


def test_observations_are_not_trained_on():
    asked = Prompt((5, 6), "a", 0)
    told = Sample(asked, 1, (8, 9, 7), (-1.0, 0.0, -2.0), "", False, 3, sampled=(True, False, True))
    batch = batch_of([sample(asked, 0, (8,)), told]).validate()
    assert batch.action_mask.tolist() == [[False, False, True, False, False], [False, False, True, False, True]]
    assert batch.tokens.tolist() == [[5, 6, 8, 0, 0], [5, 6, 8, 9, 7]]
    assert batch.rollout_logprobs.tolist() == [[0, 0, -1, 0, 0], [0, 0, -1, 0, -2]]
    assert batch.group_ids.tolist() == [0, 0]


def test_rows_without_a_score_are_dropped():
    batch = drop_unscored(two_prompts().with_columns(rewards=[1.0, math.nan, 0.5]))
    assert batch.rewards.tolist() == [1.0, 0.5]
    assert batch.lengths.tolist() == [4, 4]


def test_no_score_at_all_leaves_no_row():
    assert len(drop_unscored(two_prompts().with_columns(rewards=[math.nan] * 3))) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_the_rest_of_a_prompt_group_stays_when_one_sample_has_no_finite_reward(broken):
    batch = drop_unscored(two_prompts().with_columns(rewards=[broken, 1.0, 0.5]))
    assert batch.group_ids.tolist() == [0, 1]
    assert batch.tokens.tolist() == [[5, 6, 8, 0], [7, 9, 9, 9]]


def test_prompt_groups_of_several_draws_have_different_ids_and_surplus_groups_are_left_out():
    first, second = (two_prompts().with_columns(rewards=[at, at + 1, at + 2]) for at in (0.0, 10.0))
    batch = join([first, second], 3)
    assert batch.group_ids.tolist() == [0, 0, 1, 2, 2]
    assert batch.rewards.tolist() == [0, 1, 2, 10, 11]
    assert same_rows(join([first], 3), first)
    assert not same_rows(batch, first)


def test_equal_and_missing_scores_are_counted():
    def draw(rewards: list[float]) -> Draw:
        return Draw(two_prompts().with_columns(rewards=rewards), None, {"rule": torch.tensor(rewards)})

    figures = scores_of([draw([1.0, 1.0, 3.0]), draw([1.0, math.nan, math.inf])])
    assert figures["dropped"] == 2
    assert figures["equal_groups"] == 0.5  # groups of one sample have nothing to compare
    assert scores_of([draw([1.0, 1.0, 0.0])])["reward/rule"] == pytest.approx(2 / 3)


def test_the_best_samples_are_kept_in_the_prompts_order():
    first, second = Prompt((5,), "a", 0), Prompt((7,), "b", 1)

    def answer(prompt: Prompt, text: str, truncated: bool = False) -> Sample:
        return Sample(prompt, 0, (1,), (-1.0,), text, truncated, 1)

    samples = [
        answer(first, "poor"),
        answer(first, "good"),
        answer(first, "good"),
        answer(first, "cut", truncated=True),
        answer(first, " "),
        answer(first, "fair"),
        answer(second, "none"),
        answer(second, "low"),
    ]
    rewards = torch.tensor([0.0, 2.0, 2.0, 9.0, 8.0, 1.0, math.nan, -1.0])
    kept = [(sample.text, score) for sample, score in best(samples, rewards, 2, None)]
    assert kept == [("good", 2.0), ("fair", 1.0), ("low", -1.0)]
    assert [sample.text for sample, _ in best(samples, rewards, 1, 0.5)] == ["good"]


def test_kl_is_summed_over_an_answer_and_averaged_over_answers():
    batch = two_prompts()
    columns = {"old_logprobs": batch.rollout_logprobs + 0.5 * batch.action_mask, "ref_logprobs": batch.rollout_logprobs}
    metrics = describe(batch.with_columns(rewards=[0.0, 1.0, 2.0], **columns), {})
    assert metrics["kl"] == pytest.approx((2 + 1 + 3) * 0.5 / 3)
    assert metrics["rollout_gap"] == pytest.approx(0.5)
    assert metrics["length"] == 2


def rl_phase(**settings) -> Rl:
    return Rl.model_validate({"kind": "rl", "data": "prompts.jsonl", **settings})


def test_importance_weights_correct_the_gap_between_trainer_and_rollout_engine_up_to_a_cap():
    batch = two_prompts()
    trainer = torch.where(batch.action_mask, batch.rollout_logprobs + math.log(1.5), math.nan)
    trainer[0, 3] = batch.rollout_logprobs[0, 3] + math.log(5)
    batch = batch.with_columns(old_logprobs=trainer, advantages=2.0 * batch.action_mask)
    weighed, figures = corrected(rl_phase(), batch)
    assert weighed.advantages.tolist() == [[0, 0, 3, 4], [0, 0, 3, 0], [0, 3, 3, 3]]
    assert figures["correction/changed"] == pytest.approx(1 / 6)
    assert figures["correction/ratio_max"] == pytest.approx(5)
    untouched, figures = corrected(rl_phase(correction={"kind": "off"}), batch)
    assert untouched is batch and figures == {}


def test_truncated_answers_count_for_the_baseline_but_are_not_trained_on():
    batch = two_prompts().with_columns(truncated=[True, False, False], advantages=torch.ones(3, 4))
    kept, _ = corrected(rl_phase(shaping={"drop_truncated": True}), batch)
    assert kept.group_ids.tolist() == [0, 1]
    assert corrected(rl_phase(), batch)[0] is batch


def test_a_truncated_answer_drops_all_rows_of_its_comparison():
    batch = two_prompts().with_columns(truncated=[True, False, False])
    kept, _ = corrected(rl_phase(shaping={"drop_truncated": True}), batch)
    assert kept.group_ids.tolist() == [1]


def test_a_batch_without_a_gradient_is_detected():
    batch = two_prompts().with_columns(advantages=torch.zeros(3, 4))
    assert not has_gradient(ClippedPolicy(), batch)
    assert has_gradient(ClippedPolicy(), batch.with_columns(advantages=torch.ones(3, 4)))
    assert has_gradient(ClippedPolicy(kl_coef=0.1), batch) and has_gradient(ClippedPolicy(entropy_coef=0.1), batch)
    assert not has_gradient(DPO(), batch.select([]))
    assert describe(batch.select([]), {}) == {"tokens": 0}


def test_a_due_step_lies_after_the_current_one():
    assert [following(step, 4) for step in (0, 3, 4, 7)] == [4, 4, 8, 8]
    assert following(5, 0) == math.inf


def test_every_text_of_a_nested_row_trains_the_tokenizer():
    row = {"messages": [{"role": "user", "content": "hi"}], "score": 2, "tags": ["a", None]}
    assert list(strings_in(row)) == ["user", "hi", "a"]


def test_a_resumed_log_drops_lines_after_the_checkpoint(tmp_path):
    for phase, start, steps in (("sft", 0, 3), ("ppo", 0, 5)):
        log = MetricLog(tmp_path, phase, start)
        for step in range(start + 1, steps + 1):
            log.write(step, {"loss": float(step)})
        log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "ppo", "st')  # the kill tore this line
    log = MetricLog(tmp_path, "ppo", 2)
    log.write(3, {"loss": math.nan})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["phase"], row["step"]) for row in rows] == [
        ("sft", 1),
        ("sft", 2),
        ("sft", 3),
        ("ppo", 1),
        ("ppo", 2),
        ("ppo", 3),
    ]
    assert rows[-1]["loss"] is None
