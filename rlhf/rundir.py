"""The run directory: `config.yaml`, `metrics.jsonl`, `summary.json`, `artifacts/<phase>/`, `checkpoints/<phase>/`.

Everything that a later command relies on is written beside its place and moved there, so that a kill at any moment
leaves either the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlhf.interfaces import ModelGroup

RECORD = "phase.json"


def write_atomically(path: Path, text: str) -> None:
    """Writes, syncs to disk, then moves into place."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def fingerprint(value: Any) -> str:
    """A short stable hash of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """What a phase leaves: a directory that transformers and vLLM load, with this record in it."""

    path: Path
    id: str  # fingerprint of everything that the phase depends on
    metrics: dict[str, float]
    lineage: dict[str, Any]  # config, data and parent fingerprints
    seconds: float = 0.0
    syncs: dict[str, int] = field(default_factory=dict)  # weight syncs: count, failed
    data: list[dict[str, Any]] = field(default_factory=list)  # of each data set: rows, dropped and why, tokens
    answers: list[dict[str, Any]] = field(default_factory=list)  # a few prompts with the answer before and after

    @classmethod
    def read(cls, path: Path) -> Artifact | None:
        """The artifact at this directory; None where no phase has finished there."""
        record = path / RECORD
        return cls(path=path, **json.loads(record.read_text())) if record.exists() else None

    def commit(self, staging: Path) -> None:
        """Turns the files written to `staging` into the artifact, in one move."""
        record = asdict(self)
        del record["path"]
        write_atomically(staging / RECORD, json.dumps(record, indent=2))
        if self.path.exists():
            shutil.rmtree(self.path)
        os.replace(staging, self.path)


@dataclass(frozen=True)
class RunDirectory:
    root: Path

    def artifact(self, phase: str) -> Path:
        return self.root / "artifacts" / phase

    def finished(self, phases: Iterable[str]) -> dict[str, Artifact]:
        """The artifacts of those phases that have finished."""
        found = {phase: Artifact.read(self.artifact(phase)) for phase in phases}
        return {phase: artifact for phase, artifact in found.items() if artifact is not None}

    def staging(self, phase: str) -> Path:
        """An empty directory in which the phase's artifact is put together."""
        path = self.root / "artifacts" / f".{phase}.partial"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def incidents(self, phase: str) -> Path:
        """Of a phase that went back to a checkpoint (`rlhf.phases.spikes`)."""
        return self.root / "incidents" / f"{phase}.json"

    def checkpoints(self, phase: str, owner: str) -> Checkpoints:
        return Checkpoints(self.root / "checkpoints" / phase, owner)


@dataclass(frozen=True)
class Checkpoints:
    """One phase's checkpoints. `CURRENT` names the last one that every rank has finished writing (DeepSpeed's own
    `latest` may name a torn one); nothing older is kept, unless `save` is told to. `owner` is the phase's input fingerprint: a
    checkpoint of other inputs is never resumed from."""

    directory: Path
    owner: str

    @property
    def current(self) -> Path | None:
        """The checkpoint to resume from: an HF directory with the ranks' states under `state/<role>`."""
        pointer = self.directory / "CURRENT"
        path = self.directory / pointer.read_text().strip() if pointer.exists() else None
        if path is None or json.loads((path / "progress.json").read_text())["owner"] != self.owner:
            return None
        return path

    @property
    def step(self) -> int:
        """Finished steps of the current checkpoint; 0 where there is none."""
        return json.loads((self.current / "progress.json").read_text())["step"] if self.current else 0

    def save(
        self,
        step: int,
        exported: ModelGroup,
        groups: Mapping[str, ModelGroup],
        state: Mapping[str, Any],
        tokenizer: Any,
        keep: int = 1,
    ) -> None:
        """Saves after `step` finished steps: all roles at once, then the pointer, then older checkpoints go, but for the last `keep`
        with this one."""
        path = self.directory / f"step-{step}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        exported.export(path).result()
        tokenizer.save_pretrained(path)
        pending = [group.save(path / "state" / role) for role, group in groups.items()]
        for work in pending:
            work.result()
        write_atomically(path / "progress.json", json.dumps({"owner": self.owner, "step": step, **state}))
        write_atomically(self.directory / "CURRENT", path.name)
        earlier = [old for old in self._complete() if old != path][-keep + 1 :] if keep > 1 else []
        for old in self.directory.glob("step-*"):
            if old not in (path, *earlier):
                shutil.rmtree(old)

    def step_back(self) -> None:
        """Gives the last checkpoint up for the one before it, where that was kept; else the phase begins anew."""
        last = self.current
        *_, before = [None, *(path for path in self._complete() if path != last)]
        if before is None:
            (self.directory / "CURRENT").unlink()
        else:
            write_atomically(self.directory / "CURRENT", before.name)
        shutil.rmtree(last)

    def _complete(self) -> list[Path]:
        """This owner's checkpoints, in the order of their steps."""
        written = {path.parent: json.loads(path.read_text()) for path in self.directory.glob("step-*/progress.json")}
        own = [path for path, progress in written.items() if progress["owner"] == self.owner]
        return sorted(own, key=lambda path: written[path]["step"])

    def load(self, groups: Mapping[str, ModelGroup]) -> dict[str, Any]:
        """Loads every role's state; returns {"step", …the state saved with it}, step 0 where there is nothing."""
        path = self.current
        if path is None:
            return {"step": 0}
        pending = [group.load(path / "state" / role) for role, group in groups.items()]
        for work in pending:
            work.result()
        return json.loads((path / "progress.json").read_text())
