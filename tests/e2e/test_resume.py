"""A run killed in the middle and started again goes on as if nothing had happened."""

from __future__ import annotations

import json

from conftest import command, kill_after, launch, lines, numbers


def test_killed_runs_resume_bit_for_bit(finished, tmp_path):
    uninterrupted, _ = finished
    output = tmp_path / "run"
    kill_after(command(output), output, "pretrain", 6)
    kill_after(command(output), output, "ppo", 3)
    result = launch(output)
    assert result.returncode == 1, result.stderr[-4000:]

    for phase in ("pretrain", "sft", "reward", "ppo", "dpo"):
        assert numbers(lines(output, phase)) == numbers(lines(uninterrupted, phase)), phase
    ours, theirs = (json.loads((run / "summary.json").read_text())["phases"] for run in (output, uninterrupted))
    assert ours == theirs


def test_changed_inputs_run_again_and_nothing_else_does(finished):
    output, _ = finished
    result = launch(output, "phases.ppo.steps=1", "phases.ppo.optim.lr=1e-6")
    assert result.returncode == 1, result.stderr[-4000:]
    assert result.stderr.count("inputs unchanged") == 4
    assert len(lines(output, "ppo")) == 1
