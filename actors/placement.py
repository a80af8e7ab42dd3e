"""Plans where each role runs: turns pools into bundles of CPUs and GPUs, and roles into shares of them. Pure functions."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import UserError
from rlhf.config.kinds import JUDGE
from rlhf.config.resolved import Resolved
from rlhf.config.schema import Config

ROLLOUT = "rollout"
DRIVER_FILES = ("nvidia[0-9]*", "kfd", "dri/render*", "dxg")  # of accelerators, in /dev
SMALLEST_CPU_SHARE = 0.02  # more than fifty processes per CPU are a mistake in the config


@dataclass(frozen=True)
class Resources:
    """A cluster's devices."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Seat:
    """One role on a pool: `ranks` actors, rank r on bundle r modulo the number of bundles."""

    role: str
    ranks: int
    cpus: float  # of one rank
    gpus: float  # of one rank; below 1: roles take turns on the GPU


@dataclass(frozen=True)
class PoolPlan:
    name: str
    devices: int
    bundles: tuple[Mapping[str, float], ...]  # each bundle's resources, by Ray's names
    seats: Mapping[str, Seat]  # by role


@dataclass(frozen=True)
class Placement:
    on_gpus: bool
    pools: Mapping[str, PoolPlan]  # by name; without pools that no phase uses

    def rows(self) -> list[dict[str, Any]]:
        """One row per role and pool, for `launch.py plan`. `share`: of a GPU, or of a CPU."""
        return [
            {
                "pool": pool.name,
                "devices": pool.devices,
                "role": seat.role,
                "ranks": seat.ranks,
                "share": seat.gpus if self.on_gpus else seat.cpus,
            }
            for pool in self.pools.values()
            for seat in pool.seats.values()
        ]


def this_machine() -> Resources:
    """The resources of a cluster started on this machine."""
    gpus = 0
    if any(file for pattern in DRIVER_FILES for file in Path("/dev").glob(pattern)):
        import torch  # slow to load: asked only where a driver is

        gpus = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    return Resources(cpus=len(os.sched_getaffinity(0)), gpus=gpus)


def plan(resolved: Resolved, available: Resources | None = None) -> Placement:
    """Places the config's pools on a cluster with these resources; default: this machine.

    algorithm: the one given to `rlhf.run` instead of the config's; models that the algorithm does not need get no place.
    Raises UserError where the pools need more devices than there are.
    """
    config, available = resolved.config, available or this_machine()
    on_gpus = uses_gpus(config, available)
    ranks = {name: ranks_by_role(resolved, name) for name in config.pools}
    ranks = {name: roles for name, roles in ranks.items() if roles}
    actors = sum(sum(roles.values()) for roles in ranks.values())
    cpus = round_down(min(1.0, available.cpus / max(actors, 1)))
    if cpus < SMALLEST_CPU_SHARE:
        raise UserError(
            f"the pools need {actors} processes ({_sizes(config, ranks)}) but the cluster has {available.cpus:g} CPUs: "
            "lower pools.*.devices or use more CPUs"
        )
    pools = {name: _pool_plan(config, name, roles, cpus, on_gpus) for name, roles in ranks.items()}
    gpus = sum(bundle.get("GPU", 0) for pool in pools.values() for bundle in pool.bundles)
    if gpus > available.gpus:
        raise UserError(
            f"the pools need {gpus:g} GPUs ({_sizes(config, ranks)}) but the cluster has {available.gpus:g}: "
            "lower pools.*.devices, let roles share a pool, or set device=cpu"
        )
    return Placement(on_gpus, pools)


def uses_gpus(config: Config, available: Resources) -> bool:
    """Whether the run uses GPUs; `auto` does where the cluster has some. Raises UserError where the config asks for a missing GPU."""
    if config.device == "cpu":
        return False
    if config.device != "auto" and available.gpus < 1:
        raise UserError(
            f"device is {config.device} but the cluster has no GPU: set device=auto, or join one that has (--address)"
        )
    return available.gpus >= 1


def ranks_by_role(resolved: Resolved, pool: str) -> dict[str, int]:
    """{role: ranks} of all roles that some phase runs on this pool, including the rollout engines."""
    config = resolved.config
    devices = config.pools[pool].devices
    used = dict.fromkeys(
        role for phase in resolved.phases for role, model in phase.needed.items() if model.pool == pool
    )
    roles = {role: 1 if role == JUDGE else devices for role in sorted(used, key=_order)}
    if config.rollout.pool == pool and any(phase.samples_answers for phase in resolved.phases):
        roles[ROLLOUT] = config.rollout.engines
    return roles


def _order(role: str) -> tuple[int, str]:
    first = ("policy", "reference", "critic")
    return first.index(role) if role in first else len(first), role


def _pool_plan(config: Config, name: str, ranks: Mapping[str, int], cpus: float, on_gpus: bool) -> PoolPlan:
    """One bundle per device, shared by the pool's roles. A pool of rollout engines alone has one bundle per rollout engine; a pool of
    a judge alone has one bundle for all devices, since the judge's server spans them."""
    devices = config.pools[name].devices
    alone = len(ranks) == 1 and not ranks.keys().isdisjoint({ROLLOUT, JUDGE})
    most = max(ranks.values())
    bundles = most if alone else min(devices, most)  # no bundle without a rank
    span = devices if set(ranks) == {JUDGE} else 1  # devices of one rank
    if ROLLOUT in ranks:
        span = config.rollout.tensor_parallel
    if on_gpus and span > 1 and not alone:
        raise UserError(
            f"rollout.tensor_parallel={span} needs a pool of its own, but pool {name!r} also holds models: "
            "name another pool in rollout.pool"
        )
    gpus = 0.0
    if on_gpus:
        gpus = float(span) if alone else round_down(1 / len(ranks))
    seats = {role: Seat(role, count, cpus, gpus) for role, count in ranks.items()}
    crowd = [sum(math.ceil((count - bundle) / bundles) for count in ranks.values()) for bundle in range(bundles)]
    resources = [{"CPU": round(cpus * actors, 2)} for actors in crowd]
    if on_gpus:
        resources = [{**bundle, "GPU": span if alone else 1} for bundle in resources]
    return PoolPlan(name, devices, tuple(resources), seats)


def _sizes(config: Config, ranks: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{name}: {config.pools[name].devices} for {' + '.join(roles)}" for name, roles in ranks.items())


def round_down(share: float) -> float:
    """Rounds down to two decimals, so that shares never add up to more than 1."""
    return math.floor(share * 100 + 1e-9) / 100
