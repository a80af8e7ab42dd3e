"""The Ray cluster of a run: joins one or starts one on this machine, and sends users' modules to its workers."""

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

# Ray reads these when it is imported. A cluster started here serves this machine alone: it listens on the loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # actors that ask for no GPU still see the GPUs

import ray

from actors.dashboard import LateDashboard, announce
from actors.placement import Resources
from data.errors import UserError

OURS = ("actors", "rlhf", "data")
OBJECT_STORE_BYTES = 4 * 2**30  # batches and buckets of weights, never whole models
SMALLEST_STORE_BYTES = 128 * 2**20
CONNECT_TIMEOUT_S = 5.0
START_ATTEMPTS = 4
SLOW_START = "timed out during startup"  # in the message of Ray's error
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray Jobs sets it in the drivers that it starts


@contextmanager
def cluster(address: str | None = None, device: str = "auto") -> Iterator[Resources]:
    """Joins the cluster at `address` (or RAY_ADDRESS), else starts one on this machine; yields its resources.

    On exit, stops a cluster that it started and leaves a joined one running. Uses an existing connection (a notebook's
    `ray.init`) and leaves it open. Raises UserError where no cluster answers at `address`.
    """
    if ray.is_initialized():
        yield resources()
        return
    address = address or os.environ.get("RAY_ADDRESS")
    dashboard = LateDashboard()
    if address:
        announce(_join(address))
    else:
        _start(device, dashboard)
    try:
        yield resources()
    finally:
        if not address:
            dashboard.wait()
        ray.shutdown()


def resources() -> Resources:
    """The connected cluster's total resources, whether in use or not."""
    total = ray.cluster_resources()
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))


def _start(device: str, dashboard: LateDashboard) -> None:
    """Starts a cluster on this machine, and its dashboard in the background unless no port is free for it.

    Raises UserError where the machine is too busy: Ray gives its processes 30 seconds to start.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with dashboard.held_back():
                _init(device)
            return dashboard.start()
        except Exception as error:  # Ray raises no narrower class here
            if SLOW_START not in str(error):
                raise
            ray.shutdown()
            print(f"Ray did not start within 30 s (attempt {attempt} of {START_ATTEMPTS})", file=sys.stderr)
    raise UserError("Ray does not start: this machine is too busy; `launch.py doctor` lists leftover processes")


def _init(device: str) -> None:
    ray.init(
        address="local",
        num_gpus=0 if device == "cpu" else None,
        object_store_memory=_store_bytes(),
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


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
    """Whether something listens at host:port; Ray itself would try for minutes. True for other forms of address, which Ray checks."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return True
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _packages() -> dict[str, Any]:
    """A runtime environment that ships our packages to the nodes. A Ray job's working directory already holds them."""
    if IN_A_JOB in os.environ:
        return {}
    return {"py_modules": [str(Path(__file__).parent.parent / name) for name in OURS]}


def _store_bytes() -> int:
    """Size of the object store: at most half of the free shared memory."""
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else OBJECT_STORE_BYTES
    return max(SMALLEST_STORE_BYTES, min(OBJECT_STORE_BYTES, free // 2))


def by_value(value: Any) -> Any:
    """Returns the value and makes Ray pickle its module by value, for workers cannot import a user's script or notebook."""
    if dataclasses.is_dataclass(value) and not inspect.isclass(value):
        for part in vars(value).values():  # a mix of losses holds objects from other modules
            for each in part if isinstance(part, list | tuple) else (part,):
                if dataclasses.is_dataclass(each):
                    by_value(each)
    described = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    module = inspect.getmodule(described)
    if module is not None and _is_users(module):
        ray.cloudpickle.register_pickle_by_value(module)
    return value


def _is_users(module: ModuleType) -> bool:
    """Whether the module is neither installed nor ours. `__main__` always travels by value; a module without a file is built in."""
    if (
        module.__name__ == "__main__"
        or module.__name__.partition(".")[0] in OURS
        or not getattr(module, "__file__", None)
    ):
        return False
    paths = sysconfig.get_paths()
    installed = {Path(paths[kind]).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not installed.intersection(Path(module.__file__).resolve().parents)
