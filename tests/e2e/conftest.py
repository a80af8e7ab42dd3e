"""Runs that several files look at."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from alone import run_alone
from loop_phases import loops_and_feedback, serve_judge
from runs import ENVIRONMENT, ROOT, command, demo, run_phases


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its directory, what it printed, and the command lines of processes that it left behind."""

    output: Path
    result: subprocess.CompletedProcess[str]
    left: list[str]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The demo at reduced size, uninterrupted, as a user runs it: in processes of its own, with a cluster of its own."""
    output = tmp_path_factory.mktemp("demo") / "run"
    result, left = run_alone(command(*demo(output)), cwd=ROOT, timeout=590, env=ENVIRONMENT)
    assert result.returncode in (0, 1), result.stderr[-4000:]
    return Finished(output, result, left)


@pytest.fixture(scope="session")
def loops(ray_cluster, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of every feature that the demo does not use, two steps each: its directory and what it printed."""
    directory = tmp_path_factory.mktemp("loops")
    with serve_judge() as url:
        engine = {"engines": 1, "memory_gib": 0.5}  # the demo has two
        return directory / "run", run_phases(directory, loops_and_feedback(url), rollout=engine)
