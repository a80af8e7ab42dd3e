"""The rollout engines of a run: starts them, deals prompts to them, keeps their weights the policy's, stops them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from transformers import AutoTokenizer

from actors.errors import WeightSyncError, WorkerError
from actors.vllm_engine import Completion, Request, VllmEngine, engine_environment, request_seed
from actors.weight_sync import WeightSource, canary_sequences, canary_tolerance, synchronise
from data.errors import UserError
from data.packing import balance
from data.sample import Prompt, Sample, Sampling
from rlhf.config.schema import Rollout

ROLE = "rollout"
READY_TIMEOUT_S = 900.0  # loading a large model and compiling it
GENERATE_TIMEOUT_S = 4 * 3600.0  # a step's whole generation: only there so that a stuck engine is found
STOP_TIMEOUT_S = 30.0
LOG_WAIT_EVERY_S = 15.0

logger = logging.getLogger(__name__)


class Engines:
    """The engine actors `rollout/0`, `rollout/1`, …: calls them by name and turns their failures into WorkerError."""

    def __init__(self, arguments: tuple, placements: Sequence[Mapping[str, Any]], runtime_env: Mapping[str, Any]) -> None:
        self._placements = placements
        self._nodes: dict[str, str] = {}
        self._actors = {}
        for index, placement in enumerate(placements):
            threads = max(1, int(placement.get("num_cpus", 1)))
            variables = {**engine_environment(threads), **runtime_env.get("env_vars", {})}
            name = f"{ROLE}/{index}"
            options = {**placement, "name": name, "runtime_env": {**runtime_env, "env_vars": variables}}
            self._actors[name] = ray.remote(VllmEngine).options(**options).remote(*arguments)

    def wait_until_ready(self) -> int:
        """Waits for the actors to be placed and their engines to be built; returns the model's vocabulary size."""
        described = self.wait(self.call_all("describe"), READY_TIMEOUT_S, detail=self._needs_and_has)
        self._nodes = {name: answer["node"] for name, answer in described.items()}
        return next(iter(described.values()))["vocabulary"]

    @property
    def names(self) -> list[str]:
        return list(self._actors)

    def where(self, name: str) -> str:
        return f"{name} on node {self._nodes.get(name, 'unknown')}"

    def call(self, name: str, method: str, *arguments: Any) -> ray.ObjectRef:
        """Starts a call, which the dashboard shows as rollout.<method>."""
        return getattr(self._actors[name], method).options(name=f"{ROLE}.{method}").remote(*arguments)

    def call_all(self, method: str, *arguments: Any) -> dict[str, ray.ObjectRef]:
        return {name: self.call(name, method, *arguments) for name in self._actors}
