"""The cluster's side of a run: groups of ranks, rollout engines, servers and staged batches, placed as planned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.group import WorkerGroup
from actors.judge_server import JudgeServer
from actors.monitor import Monitor
from actors.pieces import run_pieces
from actors.placement import ROLLOUT, Placement
from actors.rollout_engines import Engines
from actors.rollout_pool import EnginePool
from actors.staging import StagedBatch
from data.batch import Batch
from data.corpus.work import Piece
from data.errors import UserError
from data.lean_transformers import import_transformers
from data.tokenizer import load_tokenizer, stop_token_ids
from rlhf.config.schema import Config
from rlhf.interfaces import ModelBuild, ModelGroup, Served

ENGINE_BYTES = 2 * 2**30  # of a rollout engine's process on a CPU, beside its weights and its KV cache
NOT_ARCHITECTURE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}


class ClusterRuntime:
    """Implements `Runtime`. A context manager: on exit it stops all processes and frees their places."""

    def __init__(self, config: Config, placement: Placement) -> None:
        self._config, self._placement = config, placement
        self._places: dict[str, PlacementGroup] = {}  # by pool
        self._groups: dict[tuple[str, str], WorkerGroup] = {}  # by role and pool
        self._servers: dict[str, JudgeServer] = {}  # by role
        self._engines: Engines | None = None  # of the next rollout pool: their processes have started
        self._pool: EnginePool | None = None
        self._pool_key: tuple | None = None
        self._past_syncs: Counter = Counter()  # of rollout engines that were closed
        self._monitor = Monitor(config.run.name)
        self.counters: Counter = Counter()  # bytes_through_driver, rpcs

    def __enter__(self) -> ClusterRuntime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._close_rollouts()
        if self._engines is not None:
            self._engines.stop()
        for server in self._servers.values():
            server.kill()
        for group in self._groups.values():
            group.kill()
        for place in self._places.values():
            remove_placement_group(place)
        self._groups, self._servers, self._places = {}, {}, {}

    def expect(self, pools: Mapping[str, str], rollouts: tuple[str, int] | None = None) -> None:
        """Starts the processes of these roles ({role: pool}), and the rollout engines of (model path, max_length) where
        there is memory for them beside all else; returns at once. They import while the driver reads its data."""
        early = rollouts and self._pool is None and self._engines_have_room(rollouts[0])
        if early:  # first, for vLLM takes longest to import
            self._engines = Engines(self._seats(ROLLOUT, self._config.rollout.pool))
        for role, pool in pools.items():
            self._group(role, pool).start()
        if early:
            self.rollouts(*rollouts)

    def group(self, build: ModelBuild, pool: str) -> WorkerGroup:
        """The role's group on this pool, its model loading in the background. Reuses the processes of an earlier phase."""
        group = self._group(build.role, pool)
        group.build(replace(build, path=build.path and _absolute(build.path)))
        return group

    def rollouts(self, model_path: str, max_length: int) -> EnginePool:
        """The rollout engines for this architecture, its stop tokens and length; new ones where one of these changed."""
        path = _absolute(model_path)
        architecture = import_transformers().AutoConfig.from_pretrained(path, local_files_only=True).to_dict()
        stop = tuple(stop_token_ids(load_tokenizer(path)))
        key = {name: value for name, value in architecture.items() if name not in NOT_ARCHITECTURE}, stop, max_length
        if self._pool is None or key != self._pool_key:
            self._close_rollouts()
            engines = self._engines or Engines(self._seats(ROLLOUT, self._config.rollout.pool))
            self._engines = None
            self._pool = EnginePool(
                engines,
                path,
                max_length,
                settings=self._config.rollout,
                stop_token_ids=stop,
                dtype=self._engine_dtype,
                seed=self._config.run.seed,
            )
            self._pool_key = key
        return self._pool

    def serve(self, role: str, model_path: str, pool: str, max_length: int) -> Served:
        """Serves the model by vLLM's OpenAI-compatible server on the role's pool; one server per role."""
        if role in self._servers:
            self._servers.pop(role).stop()
        path = _absolute(model_path)
        stop = stop_token_ids(load_tokenizer(path))
        (seat,) = self._seats(role, pool)
        server = self._servers[role] = JudgeServer(role, seat)
        served = server.start(path, max_length, self._config.rollout, self._engine_dtype, self._config.run.seed)
        return replace(served, stop_token_ids=tuple(stop))

    def stage(self, batch: Batch, groups: Sequence[ModelGroup], minibatches: int = 1, seed: int = 0) -> StagedBatch:
        """Puts the batch into the object store once, in shards that divide evenly over every group's replicas."""
        shards = math.lcm(*(group.replicas for group in groups))
        return StagedBatch.put(batch, shards, minibatches, seed, self.counters)

    def release(self, role: str) -> None:
        """Frees the role's model on every pool and keeps its processes. Stops the role's server."""
        if role in self._servers:
            self._servers.pop(role).stop()
        for (name, _), group in self._groups.items():
            if name == role:
                group.release()

    def run_pieces(self, pieces: Sequence[Piece], workers: int) -> Iterator[None]:
        """Runs the pieces as Ray Data tasks, `workers` at once. All nodes must share the run directory's disk."""
        return run_pieces(pieces, workers)

    def report(self, metrics: Mapping[str, float], phase: str) -> None:
        """Exports the step's metrics and the driver's counters."""
        self._monitor.report({**metrics, **self.counters}, phase)

    @property
    def rollout_stats(self) -> dict[str, int]:
        """Weight syncs of the whole run: {"count", "failed"}."""
        now = self._pool.stats if self._pool else {"syncs": 0, "failed": 0}
        return {"count": self._past_syncs["syncs"] + now["syncs"], "failed": self._past_syncs["failed"] + now["failed"]}

    @property
    def _engine_dtype(self) -> str:
        """The dtype of the rollout engines' weights."""
        dtype = self._config.rollout.dtype
        return ("bfloat16" if self._placement.on_gpus else "float32") if dtype == "auto" else dtype

    def _group(self, role: str, pool: str) -> WorkerGroup:
        key = role, pool
        if key not in self._groups:
            device = "auto" if self._placement.on_gpus else "cpu"
            self._groups[key] = WorkerGroup(role, self._seats(*key), device, self.counters)
        return self._groups[key]

    def _engines_have_room(self, model_path: str) -> bool:
        """Whether engines may wait for their first use: on GPUs that they share with no model, on CPUs in half of the free memory."""
        seats = self._placement.pools[self._config.rollout.pool].seats
        if self._placement.on_gpus:
            return set(seats) == {ROLLOUT}
        weights = sum(file.stat().st_size for file in Path(model_path).glob("*.safetensors"))
        engine_bytes = ENGINE_BYTES + weights + self._config.rollout.memory_gib * 2**30
        return seats[ROLLOUT].ranks * engine_bytes < psutil.virtual_memory().available / 2

    def _close_rollouts(self) -> None:
        if self._pool is not None:
            self._past_syncs.update(self._pool.stats)
            self._pool.close()
        self._pool = None

    def _seats(self, role: str, pool: str) -> list[dict[str, Any]]:
        """Ray's actor options for each rank of the role on this pool."""
        planned = self._placement.pools.get(pool)
        if planned is None or role not in planned.seats:
            raise UserError(
                f"{role} has no place on pool {pool!r}: list the pool under `pools` and name it in models.{role}.pool"
            )
        if pool not in self._places:
            self._places[pool] = placement_group([dict(bundle) for bundle in planned.bundles], name=pool)
        seat = planned.seats[role]
        return [
            {
                "num_cpus": seat.cpus,
                "num_gpus": seat.gpus,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    self._places[pool], rank % len(planned.bundles)
                ),
            }
            for rank in range(seat.ranks)
        ]


def _absolute(path: str) -> str:
    """A directory's absolute path, since a worker may have another working directory; a hub name unchanged."""
    return str(Path(path).resolve()) if Path(path).is_dir() else path
