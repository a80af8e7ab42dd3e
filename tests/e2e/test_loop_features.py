"""Every feature of the loops that the demo does not use, two steps each, on real Ray, vLLM and DeepSpeed."""

from __future__ import annotations

import json
import re

import pytest
import torch
from runs import call, figures, lines
from safetensors.torch import load_file

from rlhf.algorithms import resolve
from rlhf.replay import replay
from rlhf.stored_steps import load_step


def test_refills_take_the_place_of_prompts_that_teach_nothing_and_unscored_samples_are_counted(loops):
    """The reward scores two samples of each prompt, and of every other prompt in the data set both the same."""
    directory, _ = loops
    steps = lines(directory, "dapo")
    assert max(step["draws"] for step in steps) > 1
    for step in steps:
        assert step["draws"] <= 3
        assert step["dropped"] == step["draws"] * 8 * 2
        assert step["samples"] == 8 * 2 or (step["draws"] == 3 and 0 < step["samples"] < 8 * 2)


def test_a_correction_changes_the_tokens_whose_ratio_is_outside_of_its_bounds(loops):
    """The ratio trainer / engine is 1 up to rounding: inside the bounds of "dapo", often outside of those of "remax"."""
    directory, _ = loops
    for step in lines(directory, "dapo"):
        assert step["correction/changed"] == 0
    for step in lines(directory, "remax"):
        assert 0.05 < step["correction/changed"] < 0.95
        assert step["correction/ratio_max"] == pytest.approx(1, abs=1e-3)


def test_equal_rewards_are_told_and_move_nothing(loops):
    directory, done = loops
    assert [step["samples"] for step in lines(directory, "nothing")] == [0, 0]
    for phase in ("equal", "nothing"):
        told = rf"^{phase} +step 1: no gradient: 100 % of the groups have equal rewards$"
        assert len(re.findall(told, done.stderr, re.MULTILINE)) == 1
        assert all("policy/loss" not in step for step in lines(directory, phase))
        before, after = (weights(directory, name) for name in ("sft", phase))
        assert all(before[name].equal(after[name]) for name in before)


def test_pairs_of_fresh_samples_are_learned_from(loops):
    directory, _ = loops
    first, second, _ = lines(directory, "online")
    assert first["policy/loss"] == pytest.approx(0.6931, abs=1e-3)  # the policy is still the reference
    assert second["policy/margin"] != 0


def test_the_whole_panel_is_in_the_metrics(loops):
    directory, _ = loops
    first, second = lines(directory, "panel")
    assert "policy/loss" not in first and first["critic/updates"] == 6  # the critic warms up
    assert second["policy/updates"] == 2 < second["critic/updates"]  # the first step has no KL yet, the second stops
    assert second["policy/ptx/loss"] > 0 and second["policy/entropy"] > 0 and second["policy/ref_kl"] >= 0
    assert abs(second["reward"]) < 2.5 + 1
    assert second["state/kl_coef"] != first["state/kl_coef"]


def test_the_average_of_the_weights_is_what_the_phase_leaves(loops):
    """Stored are the weights before each of three steps, the last of which moves nothing."""
    directory, _ = loops
    assert lines(directory, "online")[-1]["policy/lr"] == 0
    stored = [load_file(directory / f"steps/online/step-{step}/policy/model.safetensors") for step in (1, 2, 3)]
    left = weights(directory, "online")
    for name, average in left.items():
        first, second, last = (each[name] for each in stored)
        assert torch.allclose(average, 0.125 * first + 0.125 * second + 0.75 * last, rtol=0, atol=1e-6), name
    assert max((left[name] - stored[-1][name]).abs().max() for name in left) > 1e-4


def test_a_stored_step_is_replayed_under_another_algorithm(loops):
    directory, _ = loops
    done = call("replay", str(directory), "--step", "2", "--phase", "panel", "--algorithm", "grpo")
    assert done.returncode == 0, done.stderr
    assert re.search(r"PPO \(the run's\) +GRPO", done.stdout)
    found = replay(directory, 2, resolve("grpo", {}), "panel")
    for name, figure in found.other.figures.items():
        if name in found.run.figures:
            row = f"{name} {found.run.figures[name]:.4g} {figure:.4g}"
            assert row in [" ".join(line.split()) for line in done.stdout.splitlines()]

    batch = load_step(directory / "steps/panel/step-2").batch
    assert found.run.figures["rows trained on"] == len(batch) == lines(directory, "panel")[1]["samples"]
    for rows in batch.groups():
        rewards = batch.rewards[rows]
        gains = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        wanted = gains[:, None] * batch.action_mask[rows]
        assert torch.allclose(found.other.advantages[rows], wanted, atol=1e-4)
    assert not torch.allclose(found.run.advantages, found.other.advantages, atol=0.1)


def test_an_environment_scores_its_episodes(loops):
    directory, _ = loops
    for step in lines(directory, "guess"):
        assert step["reward/environment"] == pytest.approx(step["reward"])


def test_the_reference_may_speak_first_for_all_epochs(loops):
    directory, done = loops
    usual, ahead = lines(directory, "ipo"), lines(directory, "ipo_ahead")
    assert [step["loss"] for step in usual] == pytest.approx([step["loss"] for step in ahead], rel=1e-4)
    assert "reference 32/32" in done.stderr


def test_kto_learns_from_single_answers(loops):
    directory, _ = loops
    summary = figures(directory, "kto")
    assert summary["loss_before"] == pytest.approx(0.5, abs=1e-3)  # 1 - sigmoid(0)
    assert summary["desirable_share"] == pytest.approx(0.5, abs=0.3)


def test_the_best_answers_are_a_data_set_to_learn_from(loops):
    directory, _ = loops
    rows = [json.loads(line) for line in (directory / "artifacts/best_of_n/rows.jsonl").read_text().splitlines()]
    found = figures(directory, "best_of_n")
    assert len(rows) == found["kept"] <= 64
    assert found["samples"] == 256
    assert found["reward_kept"] > found["reward"]
    assert set(rows[0]) == {"prompt", "response", "reward"}
    assert len(lines(directory, "again")) == 2


def weights(directory, phase):
    return load_file(directory / "artifacts" / phase / "model.safetensors")
