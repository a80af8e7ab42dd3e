"""Clusters as Ray's users know them: started here or joined, speaking names, metrics on the agent's port, jobs."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from alone import run_alone

ROOT = Path(__file__).resolve().parents[2]

OWN_CLUSTER = """
import json, sys, time, urllib.request
sys.path.insert(0, "tests/cluster")
from test_group import BUILD, CONFIG, random_batch
import ray
from ray.util.state import list_actors, list_tasks
from actors.connect import connect

seen = {}
with connect(CONFIG) as runtime:
    group = runtime.group(BUILD, "one")
    seen["logprobs"] = group.forward(runtime.stage(random_batch(4), [group]), "logprobs").result().shape[0]
    runtime.report({"reward": 0.25, "tokens": 40.0, "tokens/s": 9.0, "kl": float("nan")}, "ppo")
    node = ray.nodes()[0]
    seen["address"] = node["NodeManagerAddress"]
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 60
    text = ""
    while time.monotonic() < deadline and "ray_rlhf_reward{" not in text:
        time.sleep(1)
        text = urllib.request.urlopen(url).read().decode()
    seen["metrics"] = [line for line in text.splitlines() if line.startswith("ray_rlhf")]
    gcs = ray.get_runtime_context().gcs_address
    seen["actors"] = [actor.name for actor in list_actors(gcs)]
    seen["tasks"] = [task.name for task in list_tasks(gcs)]
seen["connected"] = ray.is_initialized()
print(json.dumps(seen))
"""

JOINED = """
import sys
from actors.cluster import cluster
import ray

with cluster("auto") as available:
    @ray.remote
    def path():
        import actors.worker
        return actors.worker.__file__

    print(available.cpus, ray.get(path.remote()))
"""

JOB = """
import os, sys
import ray
from actors.cluster import cluster

with cluster() as available:
    print("arguments", sys.argv[1:], os.path.exists("runs"), available.cpus)
sys.exit(3)
"""


JOINED_NOTHING = """
import sys
from actors.cluster import cluster

with cluster(sys.argv[1]):
    pass
"""


def python(script: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return python_alone(script, *arguments, cwd=cwd)[0]


def python_alone(script: str, *arguments: str, cwd: Path = ROOT) -> tuple[subprocess.CompletedProcess, list[str]]:
    """The finished script, and the command lines of processes that it left behind."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return run_alone([sys.executable, "-c", script, *arguments], cwd=cwd, env=environment, timeout=300)


@pytest.fixture(scope="module")
def own():
    """What a script saw in a cluster that it started, and the processes that it left behind."""
    done, left = python_alone(OWN_CLUSTER)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr, "left": left}


def test_a_cluster_of_our_own_listens_on_the_loopback_and_names_its_dashboard(own):
    assert own["address"] == "127.0.0.1"
    assert "Ray dashboard: http://127.0.0.1:" in own["stderr"]


def test_nothing_is_left_of_a_cluster_of_our_own(own):
    assert own["connected"] is False
    assert own["left"] == []


def test_actors_and_tasks_have_speaking_names(own):
    assert "policy/0" in own["actors"]
    assert "policy.forward" in own["tasks"]


def test_metrics_reach_the_agents_port_with_run_and_phase(own):
    values = {line.split("{")[0]: line for line in own["metrics"]}
    assert values["ray_rlhf_reward"].endswith(" 0.25")
    assert 'run="run"' in values["ray_rlhf_reward"].lower() and 'phase="ppo"' in values["ray_rlhf_reward"].lower()
    assert values["ray_rlhf_steps_total"].endswith(" 1.0") and values["ray_rlhf_tokens_total"].endswith(" 40.0")
    assert "ray_rlhf_tokens_s" in values and "ray_rlhf_kl" not in values


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """A cluster that somebody else has started: its address and its dashboard's."""
    with tempfile.TemporaryDirectory(prefix="ray-") as directory, pytest.MonkeyPatch.context() as patch:
        port, dashboard, agent = free_port(), free_port(), free_port()
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_TMPDIR", directory)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = str(Path(sys.executable).parent / "ray")
        command = [
            ray,
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            f"--port={port}",
            "--object-store-memory=134217728",
        ]
        command += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        log = Path(directory) / "head.log"
        process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{dashboard}"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def test_a_joined_cluster_gets_our_packages_and_stays(head, tmp_path):
    done = python(JOINED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2.0 ") and done.stdout.strip().endswith("actors/worker.py")
    assert f"Ray dashboard: {head}" in done.stderr
    with urlopen(head) as answer:
        assert answer.status == 200


SUBMIT = "import sys; from actors.submit import submit; sys.exit(submit(sys.argv[1], sys.argv[3:], sys.argv[2]))"


def test_a_job_runs_in_the_uploaded_directory_and_returns_its_exit_code(head, tmp_path):
    (tmp_path / "run.yaml").write_text("phases: [{kind: sft, data: rows.jsonl}]\nrun: {name: tiny}\n")
    (tmp_path / "launch.py").write_text(JOB)
    (tmp_path / "runs").mkdir()
    outside = ROOT / "pyproject.toml"
    done = python(SUBMIT, "run.yaml", head, f"phases.0.data.path={os.path.relpath(outside, tmp_path)}", cwd=tmp_path)
    expected = ["run", "run.yaml", f"phases.0.data.path={outside}", f"run.output={tmp_path / 'runs/tiny'}"]
    assert f"arguments {expected} False 2.0" in done.stdout, done.stderr
    assert done.returncode == 3


def test_a_job_needs_a_cluster_that_answers(tmp_path):
    (tmp_path / "run.yaml").write_text("phases: [{kind: sft, data: rows.jsonl}]")
    done = python(SUBMIT, "run.yaml", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert "UserError: no Ray cluster answers at http://127" in done.stderr


def test_joining_nothing_is_a_users_error_and_quick():
    started = time.monotonic()
    done = python(JOINED_NOTHING, f"127.0.0.1:{free_port()}")
    assert "UserError: no Ray cluster answers at '127" in done.stderr
    assert time.monotonic() - started < 60  # Ray itself would try for minutes
