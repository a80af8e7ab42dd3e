"""The README's Python example, run as it stands."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys

import pytest
import yaml
from runs import ENVIRONMENT, ROOT


@pytest.fixture
def script(tmp_path):
    """The example in a directory of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "my_run.py"
    path.write_text(code)
    return path


def assert_trained(run, printed, steps):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [row for row in rows if row["phase"] == "rl"]
    assert len(found) == steps
    assert all("reward/loving" in step for step in found)
    assert "critic/loss" not in found[0]
    assert max(step["rollout_gap_max"] for step in found) < 1e-4
    assert re.search(r"rl .* reward +[01]\.\d+", printed)
    return found


def test_the_readmes_algorithm_runs_verbatim(script, finished, ray_cluster, monkeypatch, capsys):
    """Its config cut down to two steps of RL, from an SFT model that is there already."""
    (rl,) = [
        phase for phase in yaml.safe_load((ROOT / "configs/grpo.yaml").read_text())["phases"] if phase["kind"] == "rl"
    ]
    rl |= {"models": {"policy": str(finished.output / "artifacts/sft")}, "steps": 2}
    config = {"extends": str(ROOT / "configs/grpo.yaml"), "phases": [rl], "rollout": {"engines": 1}}
    (script.parent / "configs").mkdir()
    (script.parent / "configs/grpo.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(script.parent)
    runpy.run_path(str(script), run_name="__main__")
    assert_trained(script.parent / "runs/grpo", capsys.readouterr().out, steps=2)


@pytest.mark.long
def test_the_readmes_algorithm_learns_with_its_own_config(script):
    (script.parent / "configs").symlink_to(ROOT / "configs")
    command = [sys.executable, str(script)]
    result = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=540, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr[-4000:]
    steps = assert_trained(script.parent / "runs/grpo", result.stdout, steps=12)
    first, last = (sum(step["reward"] for step in part) for part in (steps[:4], steps[-4:]))
    assert last > first
