"""The whole road at reduced size: pretraining, SFT, reward model, PPO, DPO on real Ray, vLLM and DeepSpeed."""

from __future__ import annotations

import json

import pytest
from runs import demo, lines, start
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

FIGURES = {
    "pretrain": {"perplexity", "unigram_perplexity"},
    "sft": {"format_rate"},
    "reward": {"pair_accuracy"},
    "ppo": {"gold_before", "gold_after", "gold_best", "kl"},
    "dpo": {"gold_before", "gold_after", "gold_best", "kl"},
}


def test_every_phase_leaves_its_figures(finished):
    output = finished.output
    summary = json.loads((output / "summary.json").read_text())
    for phase, figures in FIGURES.items():
        assert figures <= summary["phases"][phase].keys()
        assert summary["seconds"][phase] > 0
    assert summary["seconds"]["total"] >= sum(summary["seconds"][phase] for phase in FIGURES)
    # sft after; dpo before and after; ppo before, after, and before and in every one of its 5 steps
    assert summary["weight_syncs"] == {"count": 11, "failed": 0}


def test_too_short_a_training_misses_its_goals_and_says_so(finished):
    result = finished.result
    assert result.returncode == 1
    assert "missed" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("phase", FIGURES)
def test_every_artifact_loads_in_transformers(finished, phase):
    output = finished.output
    kind = AutoModelForSequenceClassification if phase == "reward" else AutoModelForCausalLM
    model, info = kind.from_pretrained(output / "artifacts" / phase, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert len(AutoTokenizer.from_pretrained(output / "artifacts" / phase)) == model.config.vocab_size


def test_a_checkpoint_loads_in_transformers(finished):
    output = finished.output
    current = (output / "checkpoints" / "ppo" / "CURRENT").read_text()
    AutoModelForCausalLM.from_pretrained(output / "checkpoints" / "ppo" / current)


def test_the_rollout_engine_agrees_with_the_trainer_in_every_step(finished):
    output = finished.output
    steps = lines(output, "ppo")
    assert len(steps) == 5
    assert max(step["rollout_gap_max"] for step in steps) < 1e-4
    assert max(step["canary_gap"] for step in steps) < 1e-4


def test_a_finished_run_starts_no_cluster_and_shows_its_table(finished):
    result = start(*demo(finished.output))
    assert result.returncode == 1
    assert result.stderr.count("inputs unchanged") == 5
    assert "Ray" not in result.stderr
    assert result.stdout == finished.result.stdout


def test_nothing_that_the_run_started_is_left_behind(finished):
    assert finished.left == []
