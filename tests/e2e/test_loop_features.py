"""Every feature of the loops that the demo does not use, two steps each, on real Ray, vLLM and DeepSpeed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, environment, launch_phases, lines
from safetensors.torch import load_file

SFT = {"policy": "phase:sft", "reference": "phase:sft"}
PROMPTS = {"path": "data.demo.tasks:prompts", "args": {"rows": 64}}
PAIRS = {"path": "data.demo.tasks:pairs", "args": {"rows": 48}, "holdout": 16}
TEXTS = {"path": "data.demo.tasks:corpus", "args": {"rows": 64}}
LEARN = {"models": SFT, "max_length": 128, "optim": {"lr": 1.0e-4, "schedule": "constant", "warmup": 0.0}}


def rl(name: str, algorithm: object, reward: str = "tests.e2e.rewards:short", **settings: object) -> dict:
    sampling = {"max_new_tokens": 24, "samples": 4} | settings.pop("sampling", {})
    phase = {"kind": "rl", "name": name, "data": PROMPTS, "algorithm": algorithm, "reward": [reward], "steps": 2}
    return phase | LEARN | {"sampling": sampling, "prompts_per_step": 8} | settings


PHASES = [
    {
        "kind": "pretrain",
        "tokenizer": {"vocab_size": 512},
        "data": {"path": "data.demo.tasks:corpus", "args": {"rows": 400}},
        "max_length": 128,
        "steps": 10,
        "optim": {"lr": 3.0e-3},
    },
    {
        "kind": "sft",
        "models": {"policy": "phase:pretrain"},
        "data": {"path": "data.demo.tasks:instructions", "args": {"rows": 400}},
        "max_length": 128,
        "steps": 10,
        "optim": {"lr": 2.0e-3},
    },
    rl("dapo", {"name": "dapo", "refills": 2}, "tests.e2e.rewards:patchy", correction={"kind": "masked", "low": 0.5}),
    rl("remax", "remax", sampling={"samples": 1}),
    rl("equal", "grpo", "tests.e2e.rewards:equal"),
    rl("nothing", {"name": "dapo", "refills": 1}, "tests.e2e.rewards:equal"),
    rl("online", "online_dpo"),
    rl(
        "panel",
        {"name": "ppo", "kl": {"place": "loss", "estimator": "k3", "target": 1.0}, "entropy": 0.01, "dual_clip": 3.0},
        models=SFT | {"critic": "phase:sft"},
        shaping={"normalise": True, "clip": 2.0, "missing_end": 0.5, "overlong": {"limit": 24, "buffer": 8}},
        ptx={"data": TEXTS, "coef": 0.5, "batch_size": 8},
        minibatches=2,
        epochs=3,
        max_kl=1.0e-9,
        critic_warmup=1,
        ema=0.5,
        store_every=2,
    ),
    rl(
        "guess",
        "grpo",
        "environment",
        data={"path": "examples.guess:secrets"},
        rollout="examples.guess:Guess",
        sampling={"max_new_tokens": 4},
    ),
    {"kind": "dpo", "name": "kto", "data": PAIRS, "loss": "kto", "batch_size": 16, "steps": 2} | LEARN,
    {"kind": "dpo", "name": "ipo", "data": PAIRS, "loss": "ipo", "batch_size": 8, "steps": 2} | LEARN,
    {"kind": "dpo", "name": "ipo_ahead", "data": PAIRS, "loss": "ipo", "batch_size": 8, "steps": 2}
    | LEARN
    | {"precompute_reference": True},
    {"kind": "dpo", "name": "orpo", "data": PAIRS, "loss": "orpo", "batch_size": 8, "steps": 2} | LEARN,
    {
        "kind": "best_of_n",
        "data": PROMPTS,
        "models": {"policy": "phase:sft"},
        "max_length": 128,
        "sampling": {"max_new_tokens": 64, "samples": 4},
        "reward": ["tests.e2e.rewards:short"],
    },
    {"kind": "sft", "name": "again", "data": "phase:best_of_n", "steps": 2, "batch_size": 4} | LEARN,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run's directory and what it printed."""
    directory = tmp_path_factory.mktemp("algorithms")
    return directory / "run", launch_phases(directory, PHASES)


def test_refills_take_the_place_of_prompts_that_teach_nothing_and_unscored_samples_are_counted(run):
    directory, _ = run
    for step in lines(directory, "dapo"):
        assert 1 <= step["draws"] <= 3
        assert step["dropped"] > 0
        assert step["samples"] <= 8 * 4
        assert step["correction/changed"] < 0.01


def test_equal_rewards_are_told_and_move_nothing(run):
    directory, done = run
    assert [step["samples"] for step in lines(directory, "nothing")] == [0, 0]
    for phase in ("equal", "nothing"):
        told = rf"^{phase} +step 1: no gradient: 100 % of the groups have equal rewards$"
        assert len(re.findall(told, done.stderr, re.MULTILINE)) == 1
        assert all("policy/loss" not in step for step in lines(directory, phase))
        before, after = (weights(directory, name) for name in ("sft", phase))
        assert all(before[name].equal(after[name]) for name in before)


def test_pairs_of_fresh_samples_are_learned_from(run):
    directory, _ = run
    first, second = lines(directory, "online")
    assert first["policy/loss"] == pytest.approx(0.6931, abs=1e-3)  # the policy is still the reference
    assert second["policy/margin"] != 0


def test_the_whole_panel_is_in_the_metrics(run):
    directory, _ = run
    first, second = lines(directory, "panel")
    assert "policy/loss" not in first and first["critic/updates"] == 6  # the critic warms up
    assert second["policy/updates"] == 2 < second["critic/updates"]  # the first step has no KL yet, the second stops
    assert second["policy/ptx/loss"] > 0 and second["policy/entropy"] > 0 and second["policy/ref_kl"] >= 0
    assert abs(second["reward"]) < 2.5 + 1
    assert second["state/kl_coef"] != first["state/kl_coef"]


def test_the_average_of_the_weights_is_what_the_phase_leaves(run):
    directory, _ = run
    before, after = weights(directory, "sft"), weights(directory, "panel")
    assert any(not before[name].equal(after[name]) for name in before)


def test_a_stored_step_is_replayed_under_another_algorithm(run):
    directory, _ = run
    command = [sys.executable, "launch.py", "replay", str(directory), "--step", "2", "--phase", "panel"]
    done = subprocess.run(
        [*command, "--algorithm", "grpo"], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "PPO" in done.stdout and "GRPO" in done.stdout


def test_an_environment_scores_its_episodes(run):
    directory, _ = run
    for step in lines(directory, "guess"):
        assert step["reward/environment"] == pytest.approx(step["reward"])


def test_the_reference_may_speak_first_for_all_epochs(run):
    directory, done = run
    usual, ahead = lines(directory, "ipo"), lines(directory, "ipo_ahead")
    assert [step["loss"] for step in usual] == pytest.approx([step["loss"] for step in ahead], rel=1e-4)
    assert "reference 32/32" in done.stderr


def test_kto_learns_from_single_answers(run):
    directory, _ = run
    summary = json.loads((directory / "summary.json").read_text())["phases"]["kto"]
    assert summary["loss_before"] == pytest.approx(0.5, abs=1e-3)  # 1 - sigmoid(0)
    assert summary["desirable_share"] == pytest.approx(0.5, abs=0.3)


def test_the_best_answers_are_a_data_set_to_learn_from(run):
    directory, _ = run
    rows = [json.loads(line) for line in (directory / "artifacts/best_of_n/rows.jsonl").read_text().splitlines()]
    figures = json.loads((directory / "summary.json").read_text())["phases"]["best_of_n"]
    assert len(rows) == figures["kept"] <= 64
    assert figures["samples"] == 256
    assert figures["reward_kept"] > figures["reward"]
    assert set(rows[0]) == {"prompt", "response", "reward"}
    assert len(lines(directory, "again")) == 2


def weights(directory, phase):
    return load_file(directory / "artifacts" / phase / "model.safetensors")
