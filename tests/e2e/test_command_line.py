"""The command line in processes of its own: an interrupt, the doctor's imports."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

from actors.doctor import checks

DEMO = str(ROOT / "configs" / "demo.yaml")


def test_ctrl_c_says_how_to_continue_and_exits_with_130(tmp_path):
    """The data source sends the signal to itself: the run is then past its start."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n\ndef rows():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)\n    yield {}\n"
    )
    line = [sys.executable, str(ROOT / "launch.py"), "run", DEMO, "phases.pretrain.data=slow:rows", "--fresh"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("interrupted; to continue the run: python ")
    assert last.endswith(f"run {DEMO} phases.pretrain.data=slow:rows")  # --fresh would begin anew
    assert "Traceback" not in done.stderr


def test_the_doctor_names_a_fix_for_each_failure_and_finds_the_imports_working():
    found = {check.name: check for check in checks()}
    assert all(check.fix for check in found.values() if not check.ok)
    for name in ("torch", "import torch", "import ray", "import vllm", "import deepspeed", "import transformers"):
        assert found[name].ok, found[name]
