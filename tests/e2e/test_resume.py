"""A run killed in the middle and started again goes on as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from conftest import ROOT, command, environment, launch, lines


def kill_after(output: Path, phase: str, steps: int, *more: str) -> None:
    """Starts the run and kills its driver with SIGKILL as soon as so many steps of the phase are logged."""
    process = subprocess.Popen(
        command(output, *more), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 300
    while len(lines(output, phase)) < steps:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"{phase} did not reach step {steps} in 300 s"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def numbers(rows: list[dict]) -> list[dict]:
    """A phase's lines without what a clock says."""
    return [
        {k: v for k, v in row.items() if k != "time" and not k.startswith("seconds/") and k != "tokens/s"}
        for row in rows
    ]


def test_killed_runs_resume_bit_for_bit(finished, tmp_path):
    uninterrupted, _ = finished
    output = tmp_path / "run"
    kill_after(output, "pretrain", 6)
    kill_after(output, "ppo", 3)
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
