"""Arrays at rest between two pieces of work: .npy files that are there whole or not at all, read a page at a time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


def save_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(partial, path)


def open_array(path: Path) -> np.ndarray:
    """Read-only, in the file until it is touched."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
