"""A run killed in the middle and started again goes on as if nothing had happened."""

from __future__ import annotations

import json
import shutil

import pytest
from runs import call, demo, kill_when, lines, numbers, start


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to change."""
    return shutil.copytree(finished.output, tmp_path / "run")


def kill_after(output, phase, steps):
    """Kills the run as soon as so many steps of the phase are logged."""
    kill_when(lambda: len(lines(output, phase)) >= steps, *demo(output))


def assert_equal_runs(output, uninterrupted):
    for phase in ("pretrain", "sft", "reward", "ppo", "dpo"):
        assert numbers(lines(output, phase)) == numbers(lines(uninterrupted, phase)), phase
    ours, theirs = (json.loads((run / "summary.json").read_text())["phases"] for run in (output, uninterrupted))
    assert ours == theirs


def test_a_run_killed_in_ppo_resumes_bit_for_bit(finished, copied, ray_cluster):
    for kind in ("artifacts", "checkpoints"):
        shutil.rmtree(copied / kind / "ppo")
    metrics = copied / "metrics.jsonl"
    others = [line for line in metrics.read_text().splitlines(keepends=True) if json.loads(line)["phase"] != "ppo"]
    metrics.write_text("".join(others))
    kill_after(copied, "ppo", 3)
    assert (copied / "checkpoints/ppo/CURRENT").read_text() == "step-2"
    result = call(*demo(copied))
    assert result.returncode == 1, result.stderr[-4000:]
    assert result.stderr.count("inputs unchanged") == 4
    assert_equal_runs(copied, finished.output)


@pytest.mark.long
def test_a_run_killed_in_pretraining_and_in_ppo_resumes_bit_for_bit(finished, tmp_path):
    output = tmp_path / "run"
    kill_after(output, "pretrain", 6)
    kill_after(output, "ppo", 3)
    result = start(*demo(output))
    assert result.returncode == 1, result.stderr[-4000:]
    assert_equal_runs(output, finished.output)


def test_changed_inputs_run_again_and_nothing_else_does(copied, ray_cluster):
    result = call(*demo(copied, "phases.dpo.steps=1", "phases.dpo.answers=null", "phases.dpo.goals={}"))
    assert result.returncode == 1, result.stderr[-4000:]
    assert result.stderr.count("inputs unchanged") == 4
    assert len([line for line in lines(copied, "dpo") if "lr" in line]) == 1
