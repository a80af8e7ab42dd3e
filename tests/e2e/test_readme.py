"""The README's Python example, run as it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from conftest import ROOT, environment


def test_the_readmes_algorithm_runs_verbatim(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "my_run.py"
    script.write_text(code)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=540, env=environment()
    )
    assert result.returncode == 0, result.stderr[-4000:]

    run = tmp_path / "runs" / "grpo"
    steps = [
        row for line in (run / "metrics.jsonl").read_text().splitlines() if (row := json.loads(line))["phase"] == "rl"
    ]
    assert len(steps) == 12
    assert all("reward/loving" in step for step in steps)
    assert "critic/loss" not in steps[0]
    assert max(step["rollout_gap_max"] for step in steps) < 1e-4
    first, last = (sum(step["reward"] for step in part) for part in (steps[:4], steps[-4:]))
    assert last > first
    assert re.search(r"rl .* reward +0\.\d+", result.stdout)
