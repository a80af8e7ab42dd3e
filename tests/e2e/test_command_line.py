"""The command line in processes of its own: an interrupt, the doctor's imports."""

from __future__ import annotations

import subprocess
import sys

from runs import ROOT

from actors import doctor

DEMO = str(ROOT / "configs" / "demo.yaml")
LIBRARIES = ("torch", "ray", "vllm", "deepspeed", "transformers")


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


def test_the_doctor_finds_the_pins_and_the_imports_working():
    found = {check.name: check for check in doctor.checks()}
    for name in ("torch", *(f"import {name}" for name in LIBRARIES)):
        assert found[name].ok, found[name]


def test_the_doctor_names_a_fix_for_each_failure(monkeypatch):
    """Every check that this machine can be made to fail."""
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GIB", 10**9)
    monkeypatch.setattr(doctor, "NEEDED_SHM_GIB", 10**9)
    monkeypatch.setattr(doctor, "NEEDED_DISK_GIB", 10**9)
    monkeypatch.setattr(doctor, "FULL_DISK", 0)
    monkeypatch.setattr(doctor, "IMPORTED", ("no_such_module",))
    monkeypatch.setattr(doctor, "version", lambda name: "0.0.0" if name == "torch" else None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    stray = doctor.Process(4711, "ray::IDLE", None, "session_2020-01-01_00-00-00_000000_1")
    monkeypatch.setattr(doctor, "_own_processes", lambda: [stray])
    failed = {check.name: check for check in doctor.checks() if not check.ok}
    expected = {"torch", "pydantic", "memory", "disk for runs", "C compiler", "earlier runs", "import no_such_module"}
    assert expected <= failed.keys() and any(name.startswith("Ray's files") for name in failed)
    assert all(check.fix and check.found for check in failed.values())
    assert failed["earlier runs"].fix == "kill 4711"
    assert "No module named 'no_such_module'" in failed["import no_such_module"].found
