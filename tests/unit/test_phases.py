"""The pure parts of the phases."""

from __future__ import annotations

import json
import math

import pytest
import torch

from data.batch import Batch
from data.sample import Prompt, Sample
from rlhf.metrics import MetricLog
from rlhf.phases.answers import batch_of
from rlhf.phases.base import following
from rlhf.phases.rl import describe, drop_unscored
from rlhf.phases.supervised import texts


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


def test_rows_without_a_score_are_dropped():
    batch = drop_unscored(two_prompts().with_columns(rewards=[1.0, math.nan, 0.5]))
    assert batch.rewards.tolist() == [1.0, 0.5]
    assert batch.lengths.tolist() == [4, 4]


def test_no_score_at_all_is_an_error():
    with pytest.raises(ValueError, match="none of the step's 3 samples has a score"):
        drop_unscored(two_prompts().with_columns(rewards=[math.nan] * 3))


def test_kl_is_summed_over_an_answer_and_averaged_over_answers():
    batch = two_prompts()
    columns = {"old_logprobs": batch.rollout_logprobs + 0.5 * batch.action_mask, "ref_logprobs": batch.rollout_logprobs}
    metrics = describe(
        batch.with_columns(rewards=[0.0, 1.0, 2.0], **columns), {"rule": torch.tensor([0.0, 1.0, 2.0])}, {}
    )
    assert metrics["kl"] == pytest.approx((2 + 1 + 3) * 0.5 / 3)
    assert metrics["rollout_gap"] == pytest.approx(0.5)
    assert metrics["length"] == 2
    assert metrics["reward/rule"] == 1.0


def test_a_due_step_lies_after_the_current_one():
    assert [following(step, 4) for step in (0, 3, 4, 7)] == [4, 4, 8, 8]
    assert following(5, 0) == math.inf


def test_every_text_of_a_nested_row_trains_the_tokenizer():
    row = {"messages": [{"role": "user", "content": "hi"}], "score": 2, "tags": ["a", None]}
    assert texts(row) == ["user", "hi", "a"]


def test_a_resumed_log_drops_what_the_interrupted_attempt_wrote_too_far(tmp_path):
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
