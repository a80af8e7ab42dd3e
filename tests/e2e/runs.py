"""Runs of the command line: in this process on the tests' Ray cluster, or in processes of their own as a user starts them."""

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

import yaml
from typer.testing import CliRunner

import launch

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "COLUMNS": "140"}

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


def demo(output: Path, *more: str) -> list[str]:
    """Arguments of launch.py: the demo at reduced size."""
    return ["run", "configs/demo.yaml", f"run.output={output}", *REDUCED, *more]


def demo_with(directory: Path, phases: list[dict[str, Any]], **settings: Any) -> list[str]:
    """Arguments of launch.py: these phases on the demo's pools, into `directory`/run. settings: other sections of the config."""
    config = {"extends": str(ROOT / "configs/demo.yaml"), "run": {"output": str(directory / "run")}, "phases": phases}
    (directory / "config.yaml").write_text(yaml.safe_dump(config | settings))
    return ["run", str(directory / "config.yaml")]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Calls launch.py in this process. What needs a Ray cluster uses the connected one (fixture `ray_cluster`)."""
    result = CliRunner().invoke(launch.app, list(arguments), env={"COLUMNS": "140"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def run_phases(directory: Path, phases: list[dict[str, Any]], **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs the phases in this process; fails where the command does."""
    done = call(*demo_with(directory, phases, **settings))
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def command(*arguments: str) -> list[str]:
    return [sys.executable, "launch.py", *arguments]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs launch.py in a process of its own, which starts its own cluster where it needs one."""
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=590, env=ENVIRONMENT)


def kill_when(reached: Callable[[], bool], *arguments: str) -> None:
    """Starts launch.py and kills it with SIGKILL as soon as `reached` says so."""
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not come so far in 300 s"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def lines(output: Path, phase: str) -> list[dict]:
    """The phase's lines of metrics.jsonl."""
    path = output / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["phase"] == phase]


def numbers(rows: list[dict]) -> list[dict]:
    """A phase's lines without the figures that a clock makes."""
    return [
        {k: v for k, v in row.items() if k != "time" and not k.startswith("seconds/") and k != "tokens/s"}
        for row in rows
    ]


def figures(output: Path, phase: str) -> dict[str, Any]:
    """The phase's figures in summary.json."""
    return json.loads((output / "summary.json").read_text())["phases"][phase]
