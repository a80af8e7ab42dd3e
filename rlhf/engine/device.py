"""The only place that knows about devices: what a rank runs on, in which dtype, over which backend."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Literal

import torch
import torch.distributed as dist

from data.errors import UserError
from data.lean_transformers import import_transformers


@dataclass(frozen=True)
class Device:
    """What one rank runs on. A value: it travels to the workers."""

    kind: Literal["cpu", "cuda"]

    @property
    def backend(self) -> str:
        """torch.distributed's backend."""
        return "nccl" if self.kind == "cuda" else "gloo"

    @property
    def torch_device(self) -> torch.device:
        """Index 0: a rank sees one device only, because Ray hides the others from it."""
        return torch.device("cuda", 0) if self.kind == "cuda" else torch.device("cpu")

    def dtype(self, name: str = "auto") -> torch.dtype:
        """The dtype of this name; "auto" is bfloat16 on GPUs and float32 on CPUs."""
        if name == "auto":
            return torch.bfloat16 if self.kind == "cuda" else torch.float32
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]

    def rng_state(self) -> dict[str, torch.Tensor]:
        """The states of the generators that torch draws from here."""
        states = {"cpu": torch.get_rng_state()}
        if self.kind == "cuda":
            states["cuda"] = torch.cuda.get_rng_state()
        return states

    def set_rng_state(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.kind == "cuda":
            torch.cuda.set_rng_state(states["cuda"])

    def free_memory(self) -> None:
        """Gives cached blocks back, so that another process that shares the device can have them."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()


def resolve(setting: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device for the config's `device`. Raises UserError where GPUs are asked for and there are none."""
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise UserError("device: cuda, but torch sees no GPU here; set device=cpu, or run `launch.py doctor`")
    return Device("cuda" if setting != "cpu" and available else "cpu")


def init_distributed(rank: int, world: int, address: str, port: int, device: Device, timeout_s: float) -> None:
    """Makes this process rank `rank` of `world` ranks that meet at address:port. Once in a process, before any Engine.

    Raises torch.distributed.DistNetworkError where the port is taken, DistStoreError where a rank does not come within
    `timeout_s`. Every later collective ends after `timeout_s`, too.
    """
    on_cpu = device.kind == "cpu"
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank) if on_cpu else "0",
        LOCAL_SIZE=str(world) if on_cpu else "1",
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        DS_ACCELERATOR=device.kind,
    )
    if on_cpu:
        # one thread a rank: two ranks of one thread are faster than one of two, and a shared core ruins OpenMP barriers
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device.torch_device)
    timeout = timedelta(seconds=timeout_s)
    # DeepSpeed makes its groups without a timeout, so that torch's default would hold for a hung peer
    dist.distributed_c10d.default_pg_timeout = dist.distributed_c10d.default_pg_nccl_timeout = timeout

    deepspeed = _import_deepspeed()
    deepspeed.utils.logger.setLevel("WARNING")
    # about names of collectives that DeepSpeed still uses
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    deepspeed.init_distributed(device.backend, timeout=timeout, auto_mpi_discovery=False)


def _import_deepspeed() -> ModuleType:
    """DeepSpeed, which reads DS_ACCELERATOR as it is imported, without the compilers that it would start and import."""
    import_transformers()
    import deepspeed
    from deepspeed.runtime import compiler
    from transformers import modeling_utils  # noqa: F401 - for `Engine`; here, because the driver still reads its data

    # `deepspeed.initialize` imports the Muon optimizer whichever is used, and its decorators import torch's whole compiler
    compiler.compile = lambda: lambda function: function
    # DeepSpeed would run a C compiler to learn which kernels it could build; only a shared-memory all-reduce for inference asks
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed
