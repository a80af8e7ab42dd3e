"""The rollout engines of a run: starts them, deals prompts to them, keeps their weights the policy's, stops them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
GENERATE_TIMEOUT_S = 4 * 3600.0  # a whole step's samples: there only so that a stuck engine is found
STOP_TIMEOUT_S = 30.0
LOG_WAIT_EVERY_S = 15.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calls:
    """One method in flight on some engines."""

    method: str
    results: Mapping[int, ray.ObjectRef]  # by engine


class Engines:
    """The engine actors `rollout/0`, `rollout/1`, …: calls them by index and turns their failures into WorkerError."""

    def __init__(
        self, arguments: tuple, placements: Sequence[Mapping[str, Any]], runtime_env: Mapping[str, Any]
    ) -> None:
        """Asks Ray for the actors and returns. `arguments` are VllmEngine's, `placements` each actor's options."""
        self._placements = placements
        self._nodes: dict[int, str] = {}
        self._actors = []
        for index, placement in enumerate(placements):
            threads = max(1, int(placement.get("num_cpus", 1)))
            variables = {**engine_environment(threads), **runtime_env.get("env_vars", {})}
            options = {**placement, "name": _name(index), "runtime_env": {**runtime_env, "env_vars": variables}}
            self._actors.append(ray.remote(VllmEngine).options(**options).remote(*arguments))

    def __len__(self) -> int:
        return len(self._actors)

    def where(self, index: int) -> str:
        return f"{_name(index)} on node {self._node(index)}"

    def wait_until_ready(self) -> int:
        """Waits until all actors are placed and their engines built; returns the model's number of token ids."""
        described = self.wait(self.start_all("describe"), READY_TIMEOUT_S, self._needs_and_has)
        self._nodes = {index: answer["node"] for index, answer in described.items()}
        return described[0]["vocabulary"]

    def start(self, method: str, arguments: Mapping[int, tuple]) -> Calls:
        """Starts the method on the engines named by the keys. The dashboard shows the call as rollout.<method>."""
        name = f"{ROLE}.{method}"
        return Calls(
            method,
            {
                index: getattr(self._actors[index], method).options(name=name).remote(*values)
                for index, values in arguments.items()
            },
        )

    def start_all(self, method: str, *arguments: Any) -> Calls:
        return self.start(method, dict.fromkeys(range(len(self)), arguments))

    def wait(self, calls: Calls, timeout_s: float, detail: Callable[[], str] = lambda: "") -> dict[int, Any]:
        """The results by engine. Logs what it waits for, with `detail`, while nothing finishes.

        Raises WorkerError as soon as one engine fails or dies, and TimeoutError after `timeout_s`.
        """
        started = time.monotonic()
        pending = {reference: index for index, reference in calls.results.items()}
        results = {}
        while pending:
            finished, _ = ray.wait(list(pending), timeout=min(LOG_WAIT_EVERY_S, timeout_s))
            for reference in finished:
                index = pending.pop(reference)
                results[index] = self._result(index, reference, calls.method)
            waited = time.monotonic() - started
            if not finished:
                names = ", ".join(_name(index) for index in pending.values())
                message = f"{ROLE}.{calls.method} of {names}: {waited:.0f} s of at most {timeout_s:.0f} s{detail()}"
                if waited >= timeout_s:
                    raise TimeoutError(f"gave up waiting for {message}")
                logger.info("waiting for %s", message)
        return results

    def stop(self) -> None:
        """Kills the actors and waits until their names are free again."""
        for actor in self._actors:
            ray.kill(actor)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for index, placement in enumerate(self._placements):
            while _is_registered(_name(index), placement.get("namespace")):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{self.where(index)} was killed but is still there after {STOP_TIMEOUT_S:.0f} s"
                    )
                time.sleep(0.05)
        self._actors = []

    def _result(self, index: int, reference: ray.ObjectRef, method: str) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:  # raised inside the call
            raise WorkerError(ROLE, index, self._node(index), method, str(error)) from error.cause
        except RayError as error:  # the process is gone, or an argument was lost
            raise WorkerError(ROLE, index, self._node(index), method, str(error)) from error

    def _node(self, index: int) -> str:
        return self._nodes.get(index, "not known yet")

    def _needs_and_has(self) -> str:
        needs = [
            {key: value for key, value in placement.items() if key.startswith("num_")} for placement in self._placements
        ]
        free = {name: ray.available_resources().get(name, 0) for name in ("CPU", "GPU")}
        return (
            f"; they need {needs}, the cluster has {free} free (their own share no longer counted once they are placed)"
        )


class EnginePool:
    """A RolloutPool of vLLM engines for one architecture."""

    def __init__(
        self,
        model_path: str,
        max_length: int,
        *,
        settings: Rollout,
        stop_token_ids: tuple[int, ...],
        dtype: str,
        seed: int,
        placements: Sequence[Mapping[str, Any]],
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts one engine for each of `placements`, the keyword options of its Ray actor, and waits for all of them.

        model_path: a directory with config, safetensors and tokenizer. max_length: tokens, prompt and answer together.
        dtype: "float32" or "bfloat16". runtime_env: laid over the engines' own environment.
        Raises WorkerError where an engine cannot be built, TimeoutError where one is not ready in time.
        """
        self._max_length = max_length
        self._settings = settings
        self._tolerance = canary_tolerance(dtype, settings.canary_tolerance)
        self._started_syncs = 0
        self._version = 0  # = syncs that succeeded
        self._tokenizer = AutoTokenizer.from_pretrained(model_path)
        arguments = (model_path, max_length, settings, stop_token_ids, dtype, seed)
        self._engines = Engines(arguments, placements, runtime_env or {})
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._canary = canary_sequences(self._engines.wait_until_ready(), max_length)
            on_failure.pop_all()

    @property
    def stats(self) -> dict[str, int]:
        """Weight syncs so far, and those of them that failed."""
        return {"syncs": self._started_syncs, "failed": self._started_syncs - self._version}

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
        """All samples, ordered by (prompt, index). A sample depends on the weights, the prompt and its row,
        sampling.seed and the sample's index, not on which engine made it or beside what.

        Raises UserError where a prompt leaves no room for an answer, WorkerError where an engine fails.
        """
        self._require_synchronised()
        for prompt in prompts:
            if not 0 < len(prompt.tokens) < self._max_length:
                raise UserError(
                    f"the prompt of row {prompt.row} has {len(prompt.tokens)} tokens; wanted at least 1 and fewer than "
                    f"max_length={self._max_length}, which holds the answer too: raise max_length or drop the row"
                )
        # all samples of a prompt on one engine, which then computes the prompt once
        costs = [len(prompt.tokens) + sampling.samples * sampling.max_new_tokens for prompt in prompts]
        shares = balance(costs, len(self._engines))
        arguments = {
            engine: ([_request(prompts[row], sampling) for row in rows], sampling)
            for engine, rows in enumerate(shares)
            if rows
        }
        answers = self._engines.wait(self._engines.start("generate", arguments), GENERATE_TIMEOUT_S)
        by_prompt = {
            row: answer for engine in answers for row, answer in zip(shares[engine], answers[engine], strict=True)
        }
        return [
            self._sample(prompt, index, completion)
            for row, prompt in enumerate(prompts)
            for index, completion in enumerate(by_prompt[row])
        ]

    def sync(self, policy: WeightSource) -> dict[str, float]:
        """Gives every engine the policy's weights under the next version; see `weight_sync.synchronise`."""
        self._require_synchronised()
        self._started_syncs += 1
        report = synchronise(
            self._engines,
            policy,
            version=self._version + 1,
            bucket_bytes=self._settings.bucket_bytes,
            canary=self._canary,
            tolerance=self._tolerance,
        )
        self._version += 1
        return report

    def close(self) -> None:
        """Stops the engines."""
        self._engines.stop()

    def _require_synchronised(self) -> None:
        if self.stats["failed"]:
            raise WeightSyncError(
                "an earlier weight sync failed, so the engines' weights are not known: build the pool anew"
            )

    def _sample(self, prompt: Prompt, index: int, completion: Completion) -> Sample:
        return Sample(
            prompt=prompt,
            index=index,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
            text=self._tokenizer.decode(completion.tokens, skip_special_tokens=True),
            truncated=completion.truncated,
            version=completion.version,
        )


def _request(prompt: Prompt, sampling: Sampling) -> Request:
    seeds = tuple(request_seed(*sampling.seed, prompt.row, index) for index in range(sampling.samples))
    return Request(prompt.tokens, seeds)


def _name(index: int) -> str:
    return f"{ROLE}/{index}"


def _is_registered(name: str, namespace: str | None) -> bool:
    try:
        ray.get_actor(name, namespace)
    except ValueError:  # how Ray says that there is no such actor
        return False
    return True
