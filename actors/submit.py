"""`launch.py run --submit`: submits the run as a Ray job, which outlives the terminal."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from data.errors import UserError
from rlhf.config.load import load_config

NOT_UPLOADED = (".git", ".venv", "runs", "__pycache__")
END_TIMEOUT_S = 60.0  # from the end of a job's log to its exit code


def submit(config_path: str, overrides: Sequence[str], address: str | None = None) -> int:
    """Uploads the working directory, runs `launch.py run` there as a job and follows its log.

    address: the dashboard (http://host:8265) or the cluster (host:port); default: RAY_ADDRESS, else this machine's.
    Returns the job's exit code; Ctrl-C only stops following. The run directory is the same absolute path as without
    --submit, on the cluster. Raises UserError where the config is wrong or the cluster takes no job.
    """
    here = Path.cwd()
    config = load_config(config_path, list(overrides))
    if not Path(config_path).resolve().is_relative_to(here):
        raise UserError(
            f"{config_path} is outside of {here}, and only this directory is uploaded: change to a directory that holds the config"
        )
    relative = Path(config_path).resolve().relative_to(here)
    output = Path(config.run.directory).resolve()
    arguments = ["run", str(relative), *(_portable(override, here) for override in overrides), f"run.output={output}"]
    client, job = _start(arguments, here, f"{config.run.name}-{uuid.uuid4().hex[:8]}", address)
    print(f"job {job} runs on the cluster; Ctrl-C stops following it, not the job", file=sys.stderr)
    try:
        asyncio.run(_follow(client, job))
    except KeyboardInterrupt:
        print(
            f"\nthe job goes on. See it: ray job logs --follow {job}   stop it: ray job stop {job}   "
            f"(both with --address {client.get_address()})",
            file=sys.stderr,
        )
        return 0
    return _exit_code(client, job)


def _start(arguments: Sequence[str], here: Path, name: str, address: str | None) -> tuple[JobSubmissionClient, str]:
    environment = {
        "working_dir": str(here),
        "excludes": list(NOT_UPLOADED),
        # puts this virtual environment first; on a node without it, the cluster's own Python runs the job
        "env_vars": {"PATH": f"{Path(sys.executable).parent}:${{PATH}}", "PYTHONUNBUFFERED": "1"},
    }
    if address:
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray lets the environment overrule the argument
    try:
        client = JobSubmissionClient(address)
        command = f"python -m launch {shlex.join(arguments)}"
        return client, client.submit_job(entrypoint=command, submission_id=name, runtime_env=environment)
    except AuthenticationError as error:
        raise UserError(
            "the cluster asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where ~/.ray has none"
        ) from error
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at {address or 'RAY_ADDRESS or on this machine'}: start one with "
            "`ray start --head`, or name the dashboard's address: --address http://host:8265"
        ) from error
    except RuntimeError as error:
        if "No available agent" not in str(error):
            raise
        raise UserError(
            "the cluster's job agent is not running: another Ray cluster on its machine holds the agent's port; "
            "stop one of them, or start this one with `ray start --head --dashboard-agent-listen-port=<free port>`"
        ) from error


def _portable(override: str, here: Path) -> str:
    """The override, with an existing path that is not uploaded made absolute: the job runs in another directory."""
    key, equals, value = override.partition("=")
    path = Path(value)
    if not value or path.is_absolute() or not path.exists():
        return override
    place = path.resolve()
    uploaded = place.is_relative_to(here) and not set(NOT_UPLOADED).intersection(place.relative_to(here).parts)
    return override if uploaded else f"{key}{equals}{place}"


async def _follow(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


def _exit_code(client: JobSubmissionClient, job: str) -> int:
    """The exit code of the job's process; 1 where the job was stopped or never started."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while not (info := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the log of job {job} ended {END_TIMEOUT_S:.0f} s ago but it is still {info.status.value}"
            )
        time.sleep(0.5)
    if info.driver_exit_code is None:
        print(f"job {job}: {info.message}", file=sys.stderr)
        return 1
    return info.driver_exit_code
