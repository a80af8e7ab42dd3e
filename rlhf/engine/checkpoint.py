"""Checkpoints of one role: DeepSpeed's state and each rank's random generators, in a fresh directory.

A checkpoint counts once every rank has returned; the driver then says so in a pointer of its own. DeepSpeed's `latest`
is not written, for it names a checkpoint before all ranks have written theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.errors import UserError
from rlhf.engine.device import Device
from rlhf.engine.weights import WeightAverage

TAG = "deepspeed"
LAYOUT = "layout.json"


def save_checkpoint(
    deepspeed_engine: Any,
    directory: Path,
    device: Device,
    layout: dict[str, Any],
    steps: int,
    average: WeightAverage | None,
) -> None:
    """Every rank writes its part. layout: what a rank must have in common with the one that wrote, to load it."""
    directory.mkdir(parents=True, exist_ok=True)
    deepspeed_engine.save_checkpoint(str(directory), tag=TAG, client_state={"steps": steps}, save_latest=False)
    torch.save(device.rng_state(), _rank_file(directory, "rng"))
    if average is not None:
        torch.save(average.state(), _rank_file(directory, "average"))
    if dist.get_rank() == 0:
        (directory / LAYOUT).write_text(json.dumps(layout))


def load_checkpoint(
    deepspeed_engine: Any, directory: Path, device: Device, layout: dict[str, Any], average: WeightAverage | None
) -> int:
    """Every rank reads its part; the optimizer steps that were taken.

    Raises UserError where the directory holds no checkpoint, or one of another layout.
    """
    if not (directory / LAYOUT).is_file():
        raise UserError(f"{directory}: no checkpoint of a model here; delete the directory to start anew")
    written = json.loads((directory / LAYOUT).read_text())
    changed = [
        f"{name} {written.get(name)} then, {value} now" for name, value in layout.items() if written.get(name) != value
    ]
    if changed:
        raise UserError(
            f"{directory}: written with another layout ({'; '.join(changed)}); resume with the former pool size and "
            "model settings, or give the run another name"
        )
    _, state = deepspeed_engine.load_checkpoint(str(directory), tag=TAG)
    device.set_rng_state(torch.load(_rank_file(directory, "rng"), weights_only=True))
    if average is not None:
        average.load(torch.load(_rank_file(directory, "average"), weights_only=True))
    return state["steps"]


def _rank_file(directory: Path, content: str) -> Path:
    return directory / f"{content}-{dist.get_rank()}.pt"
