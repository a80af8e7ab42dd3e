"""The command line: exit codes, one line for a mistake, what the commands show."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import launch
from actors.doctor import Process, find_stray
from rlhf.config.load import dump_config, load_config

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")


def call(*words: str):
    return CliRunner().invoke(launch.app, list(words))


def command(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    line = [sys.executable, str(ROOT / "launch.py"), *words]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["run", "plan"])
def test_a_mistake_is_one_line_and_exit_code_2_without_a_traceback(name):
    done = command(name, "configs/demo.yaml", "phases.ppo.promts_per_step=4")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: override phases.ppo.promts_per_step=4: phases[3].promts_per_step is not a setting; "
        "did you mean prompts_per_step?"
    ]
    assert done.stdout == ""


def test_a_broken_rule_is_told_before_anything_is_spawned(tmp_path):
    done = command("run", DEMO, "phases.ppo.sampling.top_p=0.5", f"run.output={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: phases.ppo.sampling.top_p is 0.5")
    assert not (tmp_path / "run").exists()


def test_each_mistake_has_its_line():
    done = command("run", DEMO, "phases.ppo.sampling.top_p=0.5", "phases.dpo.batch_size=33")
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: "] * 2


def test_a_word_that_is_no_command_exits_with_2():
    assert call("rnu").exit_code == 2


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(launch, "load_config", broken)
    assert isinstance(call("plan", DEMO).exception, RuntimeError)


def test_plan_shows_pools_roles_and_phases():
    shown = call("plan", DEMO, "--cpus", "16", "--gpus", "8").stdout
    for word in (
        "train",
        "helper",
        "rollout",
        "policy",
        "critic",
        "GPU of each rank",
        "pretrain",
        "phase:sft",
        "scratch",
    ):
        assert word in shown


def test_plan_of_a_pool_that_is_too_small_exits_with_2():
    done = call("plan", DEMO, "rollout.engines=3")
    assert done.exit_code == 2
    assert "pools.rollout.devices is 2, but rollout needs 3" in done.stderr


def test_preview_shows_three_samples_and_the_report():
    shown = call("data", "preview", DEMO, "sft", "phases.pretrain.data.args.rows=200", "phases.sft.data.args.rows=20")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("data.demo.tasks:instructions: 20 rows")
    assert [f"sample {number}" in shown.stdout for number in (1, 2, 3, 4)] == [True, True, True, False]


def test_preview_of_an_rl_phase_shows_prompts():
    shown = call("data", "preview", DEMO, "ppo", "phases.pretrain.data.args.rows=200", "phases.ppo.data.args.rows=20")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("<|im_start|>assistant") == 3


def test_preview_of_a_phase_that_is_not_there_names_the_nearest():
    done = call("data", "preview", DEMO, "dp")
    assert done.exit_code == 2
    assert done.stderr.strip().endswith("there is no phase 'dp'; did you mean dpo?")


@pytest.fixture
def run_directory(tmp_path) -> Path:
    """A run whose first phase is done and whose second is under way."""
    root = tmp_path / "run"
    (root / "artifacts" / "pretrain").mkdir(parents=True)
    (root / "config.yaml").write_text(dump_config(load_config(DEMO)))
    record = {"id": "x", "metrics": {"perplexity": 2.5}, "lineage": {}, "seconds": 61.0}
    (root / "artifacts" / "pretrain" / "phase.json").write_text(json.dumps(record))
    rows = [
        {"phase": "pretrain", "step": 250, "time": time.time(), "loss": 0.9},
        {"phase": "sft", "step": 7, "time": time.time(), "loss": 1.25, "lr": 0.001},
        {"phase": "sft", "step": 7, "time": time.time(), "held_out/loss": 1.5},
    ]
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"phase": "sft", "st')
    return root


def test_status_shows_what_is_done_under_way_and_to_come(run_directory):
    shown = call("status", str(run_directory)).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    assert "done in 61 s" in lines["pretrain"] and "perplexity 2.5" in lines["pretrain"]
    assert f"step 7 of {load_config(DEMO).phases[1].steps}" in lines["sft"] and "loss 1.25" in lines["sft"]
    assert "to come" in lines["dpo"]


def test_status_takes_the_latest_run(run_directory, monkeypatch):
    (run_directory.parent / "runs").mkdir()
    run_directory.rename(run_directory.parent / "runs" / "mine")
    monkeypatch.chdir(run_directory.parent)
    assert "runs/mine" in call("status").stdout


def test_status_without_a_run_is_told(tmp_path):
    done = call("status", str(tmp_path))
    assert done.exit_code == 2
    assert "is not a run's directory" in done.stderr.replace("\n", " ")


def test_fresh_removes_nothing_but_a_run(tmp_path):
    (tmp_path / "precious").write_text("")
    done = call("run", DEMO, "--fresh", f"run.output={tmp_path}")
    assert done.exit_code == 2
    assert (tmp_path / "precious").exists()


def test_only_orphans_of_dead_ray_sessions_are_stray():
    alive, dead = "session_2026-01-31_10-00-00_1_1", "session_2026-01-30_10-00-00_1_1"
    processes = [
        Process(1, "raylet", None, alive),  # left running by `ray start`
        Process(2, "ray::policy/0", 1, alive),
        Process(3, "ray::policy/1", None, alive),  # about to end with its cluster
        Process(4, "ray::policy/0", None, dead),
        Process(5, "agent.py", None, dead),
        Process(6, "VLLM::EngineCore", None, None),
        Process(7, "VLLM::EngineCore", 2, None),
        Process(8, "bash", None, None),
    ]
    assert [process.pid for process in find_stray(processes)] == [4, 5, 6]
