"""The rollout engines' actors `rollout/0`, `rollout/1`, …: starts them, calls them by index, reports failures as WorkerError."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.calls import WorkerError, finished, needs_and_has
from actors.vllm_engine import VllmEngine

ROLE = "rollout"
READY_TIMEOUT_S = 900.0  # loading a large model and compiling it
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Calls:
    """One method in flight on some of the engines."""

    method: str
    results: Mapping[int, ray.ObjectRef]  # by engine


class Engines:
    """All rollout engines of a pool."""

    def __init__(self, placements: Sequence[Mapping[str, Any]]) -> None:
        """Asks Ray for the actors, which import vLLM, and returns at once. placements: each actor's Ray options."""
        self._placements = placements
        self._nodes: dict[int, str] = {}
        self._actors = [
            ray.remote(VllmEngine)
            .options(**placement, name=_name(index))
            .remote(max(1, int(placement.get("num_cpus", 1))), not placement.get("num_gpus"))
            for index, placement in enumerate(placements)
        ]

    def __len__(self) -> int:
        return len(self._actors)

    def where(self, index: int) -> str:
        return f"{_name(index)} on node {self._node(index)}"

    def build(self, *arguments: Any) -> None:
        """Starts to build all engines, with the arguments of `VllmEngine.build`."""
        self._building = self.start_all("build", *arguments)

    def wait_until_ready(self) -> int:
        """Waits until all engines are placed and built; returns the model's number of token ids."""
        described = self.wait(self._building, READY_TIMEOUT_S, lambda: f"; {needs_and_has(self._placements)}")
        self._nodes = {index: answer["node"] for index, answer in described.items()}
        return described[0]["vocabulary"]

    def start(self, method: str, arguments: Mapping[int, tuple]) -> Calls:
        """Starts the method on some engines. arguments: by engine. The dashboard shows the call as rollout.<method>."""
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
        """The results by engine. While nothing finishes, logs what it waits for, with `detail`.

        Raises WorkerError as soon as an engine fails or dies, TimeoutError after `timeout_s` seconds.
        """
        engine_of = {reference: index for index, reference in calls.results.items()}

        def awaited(pending: Sequence[ray.ObjectRef]) -> str:
            return f"{ROLE}.{calls.method} of {', '.join(_name(engine_of[each]) for each in pending)}{detail()}"

        return {
            engine_of[reference]: self._result(engine_of[reference], reference, calls.method)
            for done in finished(list(engine_of), timeout_s, awaited)
            for reference in done
        }

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


def _name(index: int) -> str:
    return f"{ROLE}/{index}"


def _is_registered(name: str, namespace: str | None) -> bool:
    try:
        ray.get_actor(name, namespace)
    except ValueError:  # how Ray says that there is no such actor
        return False
    return True
