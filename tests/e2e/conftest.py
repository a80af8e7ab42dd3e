"""The demo at reduced size, run through the command line as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

REDUCED = [
    "phases.pretrain.data.args.rows=600",
    "phases.pretrain.steps=12",
    "phases.pretrain.checkpoint_every=4",
    "phases.sft.data.args.rows=400",
    "phases.sft.steps=8",
    "phases.reward.data.args.rows=300",
    "phases.reward.steps=6",
    "phases.ppo.steps=5",
    "phases.ppo.prompts_per_step=16",
    "phases.ppo.checkpoint_every=2",
    "phases.dpo.data.args.rows=300",
    "phases.dpo.steps=5",
    *(f"phases.{phase}.answers.data.limit=16" for phase in ("sft", "ppo", "dpo")),
]


def command(output: Path, *more: str) -> list[str]:
    return [sys.executable, "launch.py", "run", "configs/demo.yaml", f"run.output={output}", *REDUCED, *more]


def launch(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return finish(command(output, *more))


def launch_phases(directory: Path, phases: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Runs the phases on the demo's pools, into `directory`/run; fails where the command does."""
    done = finish(command_of(directory, phases))
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def command_of(directory: Path, phases: list[dict[str, Any]]) -> list[str]:
    config = {"extends": str(ROOT / "configs/demo.yaml"), "run": {"output": str(directory / "run")}, "phases": phases}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return [sys.executable, "launch.py", "run", str(directory / "config.yaml")]


def finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=590, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "140"}


def lines(output: Path, phase: str) -> list[dict]:
    """The phase's lines of metrics.jsonl."""
    path = output / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["phase"] == phase]


def kill_after(command: list[str], output: Path, phase: str, steps: int) -> None:
    """Starts the run and kills its driver with SIGKILL as soon as so many steps of the phase are logged."""
    kill_when(command, lambda: len(lines(output, phase)) >= steps)


def kill_when(command: list[str], reached: Callable[[], bool]) -> None:
    """Starts the run and kills its driver with SIGKILL as soon as it has come so far."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not come so far in 300 s"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def numbers(rows: list[dict]) -> list[dict]:
    """A phase's lines without what a clock says."""
    return [
        {k: v for k, v in row.items() if k != "time" and not k.startswith("seconds/") and k != "tokens/s"}
        for row in rows
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One uninterrupted reduced run: its directory and what it printed."""
    output = tmp_path_factory.mktemp("demo") / "run"
    result = launch(output)
    assert result.returncode in (0, 1), result.stderr[-4000:]
    return output, result
