"""The ranks of one role: starts them, calls them as one, and reports the first failure as one error."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from torch import Tensor

from actors.calls import WorkerError, finished, needs_and_has
from actors.cluster import by_value
from actors.staging import StagedBatch
from actors.worker import ModelWorker
from data.errors import UserError
from rlhf.engine.grid import Grid
from rlhf.interfaces import ONE_PASS, AuxiliaryLoss, ModelBuild, Objective, Output, Passes

START_TIMEOUT_S = 1800.0  # placement and imports
CALL_TIMEOUT_S = 6 * 3600.0  # any other call; a dead rank is noticed at once, a hung one by its peers' collectives
COLLECTIVE_TIMEOUT_S = 1800.0
ROOT_CAUSE_WAIT_S = 3.0  # the peers of a dead rank fail too, and their errors may arrive first
PORT_ATTEMPTS = 3
COLOUR = re.compile(r"\x1b\[\d+m")


@dataclass(frozen=True)
class Call:
    """One method in flight on all ranks; implements `Pending`."""

    group: WorkerGroup
    method: str
    references: Sequence[ray.ObjectRef]  # by rank
    combine: Callable[[list[Any]], Any]  # results by rank -> result

    def result(self) -> Any:
        """Waits for all ranks and combines their results. If a rank fails, stops the whole group.

        Raises a rank's UserError unchanged, WorkerError for any other failure, TimeoutError where ranks do not finish.
        """
        try:
            for done in finished(
                self.references, START_TIMEOUT_S if self.method == "connect" else CALL_TIMEOUT_S, self._awaited
            ):
                if failures := self._failures(done):
                    self._fail(failures)
        except TimeoutError:
            self.group.kill()
            raise
        return self.combine(ray.get(list(self.references)))

    def _failures(self, done: Sequence[ray.ObjectRef]) -> dict[int, RayError]:
        failures = {}
        for reference in done:
            try:
                ray.get(reference)
            except RayError as error:
                failures[self.references.index(reference)] = error
        return failures

    def _fail(self, failures: dict[int, RayError]) -> None:
        """Stops the group and raises the root failure: a dead rank, else a UserError, else the first error."""
        if not any(isinstance(error, RayActorError) for error in failures.values()):
            done, _ = ray.wait(list(self.references), num_returns=len(self.references), timeout=ROOT_CAUSE_WAIT_S)
            failures |= self._failures(done)
        rank, error = min(failures.items(), key=lambda item: _blame(item[1]))
        self.group.kill()
        if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
            raise error.cause from None
        raise WorkerError(
            self.group.role, rank, self.group.node(rank), self.method, COLOUR.sub("", str(error))
        ) from None

    def _awaited(self, pending: Sequence[ray.ObjectRef]) -> str:
        ranks = ", ".join(str(self.references.index(reference)) for reference in pending)
        done, total = len(self.references) - len(pending), len(self.references)
        line = f"{self.group.role}.{self.method}, {done} of {total} ranks done, not rank {ranks}"
        return f"{line}; {needs_and_has(self.group.options)}" if self.method == "connect" else line


def _blame(error: RayError) -> int:
    if isinstance(error, RayActorError):
        return 0
    return 1 if isinstance(error, RayTaskError) and isinstance(error.cause, UserError) else 2


class WorkerGroup:
    """The ranks of one role on one pool; implements `ModelGroup`. The processes outlive the models that they load."""

    def __init__(self, role: str, options: Sequence[Mapping[str, Any]], device_setting: str, counters: Counter) -> None:
        """options: Ray's actor options of each rank. `start` or `build` asks for the actors."""
        self.role, self.ranks = role, len(options)
        self._grid = Grid(self.ranks)
        self._alive = False
        self._zero3: bool | None = None  # whether these processes have loaded models with ZeRO 3
        self.options, self._device_setting, self._counters = options, device_setting, counters
        self._workers: list[Any] = []
        self._starting: list[Call] = []  # connect and build calls that nobody has waited for yet
        self._nodes: list[str] = []

    @property
    def replicas(self) -> int:
        """Copies of the model: groups of ranks that see different rows."""
        return self._grid.replicas

    def build(self, build: ModelBuild) -> None:
        """Loads the model in the background; the group's next call waits for it and raises its errors.

        Restarts the processes when ZeRO 3 comes or goes: DeepSpeed's sharded loading is process-wide state.
        """
        self._build, zero3 = build, build.zero_stage == 3
        self._grid = Grid(self.ranks, build.tensor_parallel, build.pipeline_parallel)
        if self._alive and self._zero3 is not None and self._zero3 != zero3:
            self.kill()
        self._zero3 = zero3
        self.start()
        self._starting.append(self._send("build", build))

    def start(self) -> None:
        """Asks for the actors unless they run already; returns at once. They import and meet in the background."""
        if not self._alive:
            self._spawn()

    def release(self) -> None:
        """Frees the model and keeps the processes. Does nothing after a failure has stopped them."""
        if self._alive:
            self._call("release").result()

    def kill(self) -> None:
        """Kills all ranks: a rank cannot go on without its peers."""
        for worker in self._workers:
            ray.kill(worker, no_restart=True)
        self._workers, self._starting, self._alive = [], [], False

    def node(self, rank: int) -> str:
        return self._nodes[rank] if self._nodes else "not known yet"

    def forward(self, staged: StagedBatch, output: Output, temperature: float = 1.0) -> Call:
        leaders = self._grid.leaders()  # one rank per replica: the others return the same

        def gather(results: list[np.ndarray | None]) -> Tensor:
            return staged.gather([results[rank] for rank in leaders])

        return self._call("forward", staged, output, temperature, combine=gather)

    def train(
        self,
        staged: StagedBatch,
        objective: Objective,
        passes: Passes = ONE_PASS,
        auxiliary: AuxiliaryLoss | None = None,
    ) -> Call:
        rows, settings = (auxiliary.staged, replace(auxiliary, staged=None)) if auxiliary else (None, None)
        return self._call("train", staged, by_value(objective), passes, rows, settings)

    def evaluate(self, staged: StagedBatch, objective: Objective) -> Call:
        return self._call("evaluate", staged, by_value(objective))

    def use_average(self) -> Call:
        return self._call("use_average")

    def save(self, directory: Path) -> Call:
        return self._call("save", Path(directory).resolve())

    def load(self, directory: Path) -> Call:
        return self._call("load", Path(directory).resolve())

    def export(self, directory: Path) -> Call:
        return self._call("export", Path(directory).resolve())

    def weight_plan(self, bucket_bytes: int) -> int:
        """Splits the weights into buckets of about this size; returns their number."""
        return self._call("weight_plan", bucket_bytes).result()

    def weight_bucket(self, index: int) -> ray.ObjectRef:
        """A reference to the bucket in the object store. Ask for buckets in order."""
        return self._call("weight_bucket", index).references[0]

    def weight_checksum(self) -> int:
        """The checksum of all buckets, computed on the rank that made them."""
        return self._call("weight_checksum").result()

    def logprobs_of(self, sequences: list[list[int]]) -> list[list[float]]:
        """log p of every token but the first, at temperature 1."""
        return self._call("logprobs_of", sequences).result()

    def _call(self, method: str, *arguments: Any, **how: Any) -> Call:
        self._wait_until_ready()
        return self._send(method, *arguments, **how)

    def _send(
        self,
        method: str,
        *arguments: Any,
        combine: Callable[[list[Any]], Any] = lambda results: results[0],
    ) -> Call:
        """Calls the method on every rank. A staged batch arrives as the shards of the rank's replica. The dashboard shows
        role.method."""
        if not self._alive:
            raise RuntimeError(f"{self.role} was stopped after a failure: call build before {self.role}.{method}")
        self._counters["rpcs"] += self.ranks
        references = []
        for rank, worker in enumerate(self._workers):
            replica = self._grid.place(rank).replica
            own = [
                value.of_replica(replica, self.replicas) if isinstance(value, StagedBatch) else value
                for value in arguments
            ]
            references.append(getattr(worker, method).options(name=f"{self.role}.{method}").remote(*own))
        return Call(self, method, references, combine)

    def _spawn(self) -> None:
        """Asks for the actors and connects them, without waiting: Ray passes rank 0's address to the others."""
        # a namespace of its own: the names of a killed group stay taken for a while
        namespace = uuid.uuid4().hex
        self._workers = [
            ray.remote(ModelWorker)
            .options(name=f"{self.role}/{rank}", namespace=namespace, max_restarts=0, **options)
            .remote(self.role, rank, self.ranks, self._device_setting)
            for rank, options in enumerate(self.options)
        ]
        self._alive, self._nodes = True, []
        address = self._workers[0].address.remote()
        self._starting = [self._send("connect", address, COLLECTIVE_TIMEOUT_S, combine=list)]

    def _wait_until_ready(self) -> None:
        """Waits for `connect` and `build`. Starts the ranks again where another process took their port meanwhile."""
        attempt = 1
        while self._starting:
            calls, self._starting = self._starting, []
            try:
                for call in calls:
                    result = call.result()
                    if call.method == "connect":
                        self._nodes = result
            except WorkerError as error:
                if "EADDRINUSE" not in error.cause or attempt == PORT_ATTEMPTS:
                    raise
                attempt += 1
                self.build(self._build)
