"""The Ray cluster of a run: joined or started here, and left as it was found. And what must travel to its workers."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# Read by ray when it is imported. A cluster of our own is for this machine alone: it listens on the loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leaves the GPUs visible to actors that ask for none

import ray

from actors.placement import Resources
from data.errors import UserError

OURS = ("actors", "rlhf", "data")
OBJECT_STORE_BYTES = 4 * 2**30  # batches and buckets of weights, never whole models
SMALLEST_STORE_BYTES = 128 * 2**20
CONNECT_TIMEOUT_S = 5.0
START_ATTEMPTS = 4
SLOW_START = "timed out during startup"  # in the message of Ray's error
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray Jobs in the driver that it starts


@contextmanager
def cluster(address: str | None = None, device: str = "auto") -> Iterator[Resources]:
    """Joins the cluster at `address` (or at RAY_ADDRESS), else starts one on this machine; yields what it has.

    On exit, a cluster that was started here is gone and one that was joined is left running. A connection that the
    caller made (a notebook's `ray.init`) is used and left alone. Raises UserError where no cluster is at `address`.
    """
    if ray.is_initialized():
        yield resources()
        return
    address = address or os.environ.get("RAY_ADDRESS")
    url = _join(address) if address else _start(device)
    print(
        f"Ray dashboard: http://{url} (its token: ray get-auth-token)" if url else "Ray runs without its dashboard",
        file=sys.stderr,
    )
    try:
        yield resources()
    finally:
        ray.shutdown()


def resources() -> Resources:
    """What the connected cluster has, in use or not."""
    total = ray.cluster_resources()
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))


def _start(device: str) -> str:
    """Starts a cluster of this machine's own. A dashboard that finds no free port is left out, as is Ray's way.

    Raises UserError where the machine is too busy for Ray, which gives its processes 30 seconds to come up.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return _init(device)
        except Exception as error:  # Ray raises no narrower class here
            if SLOW_START not in str(error):
                raise
            ray.shutdown()
            print(f"Ray did not come up in 30 s (attempt {attempt} of {START_ATTEMPTS})", file=sys.stderr)
    raise UserError(
        "Ray does not come up on this machine: it is too busy; see `launch.py doctor` for leftover processes"
    )


def _init(device: str) -> str:
    context = ray.init(
        address="local",
        num_gpus=0 if device == "cpu" else None,
        object_store_memory=_store_bytes(),
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    return context.dashboard_url


def _join(address: str) -> str:
    advice = (
        f"no Ray cluster answers at {address!r}: start one with `ray start --head`, "
        "or leave --address out to start one here"
    )
    if not _answers(address):
        raise UserError(advice)
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=_packages())
    except ConnectionError as error:
        raise UserError(f"{advice}; where it asks for a token, set RAY_AUTH_MODE=token ({error})") from error
    return context.dashboard_url


def _answers(address: str) -> bool:
    """Whether something listens at host:port, which Ray would try for minutes. Other addresses are left to Ray."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return True
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _packages() -> dict[str, Any]:
    """Ships our packages to nodes that may not have them. A job's working directory already holds them."""
    if IN_A_JOB in os.environ:
        return {}
    return {"py_modules": [str(Path(__file__).parent.parent / name) for name in OURS]}


def _store_bytes() -> int:
    """Shared memory for the object store: at most half of what is free."""
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else OBJECT_STORE_BYTES
    return max(SMALLEST_STORE_BYTES, min(OBJECT_STORE_BYTES, free // 2))


def by_value(value: Any) -> Any:
    """The value itself, ready to travel to workers that cannot import its module: a script, a notebook, a test."""
    if dataclasses.is_dataclass(value) and not inspect.isclass(value):
        for part in vars(value).values():  # a mix of losses holds objects of other modules
            for each in part if isinstance(part, list | tuple) else (part,):
                if dataclasses.is_dataclass(each):
                    by_value(each)
    described = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    module = inspect.getmodule(described)
    if module is not None and _is_users(module):
        ray.cloudpickle.register_pickle_by_value(module)
    return value


def _is_users(module: ModuleType) -> bool:
    """Neither installed nor ours. `__main__` always travels by value; a module without a file is built in."""
    if (
        module.__name__ == "__main__"
        or module.__name__.partition(".")[0] in OURS
        or not getattr(module, "__file__", None)
    ):
        return False
    paths = sysconfig.get_paths()
    installed = {Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not installed.intersection(Path(module.__file__).resolve().parents)
