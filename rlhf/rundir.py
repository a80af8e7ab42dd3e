"""The run directory: `config.yaml`, `metrics.jsonl`, `summary.json`, `artifacts/<phase>/`, `checkpoints/<phase>/`.

Every file that a later command relies on is written under another name and then renamed, so that a kill at any moment
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
    """Writes a file under another name, syncs it to disk, renames it."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def fingerprint(value: Any) -> str:
    """A hash of a JSON value: 16 hexadecimal digits, the same in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """The result of a phase: a directory with this record, and a data set or a model for transformers and vLLM."""

    path: Path
    id: str  # fingerprint of `lineage`
    metrics: dict[str, float]
    lineage: dict[str, Any]  # the phase's inputs: settings, and fingerprints of data and parents
    seconds: float = 0.0
    syncs: dict[str, int] = field(default_factory=dict)  # weight syncs: count, failed
    data: list[dict[str, Any]] = field(default_factory=list)  # for each data set: rows, dropped rows and why, tokens
    answers: list[dict[str, Any]] = field(default_factory=list)  # a few prompts with the answer before and after

    @classmethod
    def read(cls, path: Path) -> Artifact | None:
        """The artifact in the directory; None if its phase has not finished."""
        record = path / RECORD
        return cls(path=path, **json.loads(record.read_text())) if record.exists() else None

    def commit(self, staging: Path) -> None:
        """Makes the directory `staging` the artifact, by renaming it. Replaces an earlier artifact."""
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
        """The artifacts of the phases that have finished, by name."""
        found = {phase: Artifact.read(self.artifact(phase)) for phase in phases}
        return {phase: artifact for phase, artifact in found.items() if artifact is not None}

    def staging(self, phase: str) -> Path:
        """Makes an empty directory for the files of the phase's artifact."""
        path = self.root / "artifacts" / f".{phase}.partial"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def incidents(self, phase: str) -> Path:
        """The file of the phase's returns to a checkpoint (`rlhf.phases.spikes`)."""
        return self.root / "incidents" / f"{phase}.json"

    def checkpoints(self, phase: str, owner: str) -> Checkpoints:
        return Checkpoints(self.root / "checkpoints" / phase, owner)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one phase.

    The file `CURRENT` names the last checkpoint that every rank has finished writing; DeepSpeed's own file `latest` may
    name an incomplete one. owner: fingerprint of the phase's inputs. A checkpoint of another owner is never loaded.
    """

    directory: Path
    owner: str

    @property
    def current(self) -> Path | None:
        """The checkpoint to resume from, if any: an HF model directory with the ranks' states in `state/<role>`."""
        pointer = self.directory / "CURRENT"
        path = self.directory / pointer.read_text().strip() if pointer.exists() else None
        if path is None or json.loads((path / "progress.json").read_text())["owner"] != self.owner:
            return None
        return path

    @property
    def step(self) -> int:
        """The number of finished steps at the current checkpoint; 0 without one."""
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
        """Saves a checkpoint after `step` finished steps, and deletes all but the last `keep` checkpoints.

        exported: the group whose model is exported; groups: the groups whose state is saved, by role; state: JSON
        values that `load` returns.
        """
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
        """Deletes the last checkpoint. The one before becomes current, if it was kept."""
        last = self.current
        *_, before = [None, *(path for path in self._complete() if path != last)]
        if before is None:
            (self.directory / "CURRENT").unlink()
        else:
            write_atomically(self.directory / "CURRENT", before.name)
        shutil.rmtree(last)

    def _complete(self) -> list[Path]:
        """The complete checkpoints of this owner, in the order of their steps."""
        written = {path.parent: json.loads(path.read_text()) for path in self.directory.glob("step-*/progress.json")}
        own = [path for path, progress in written.items() if progress["owner"] == self.owner]
        return sorted(own, key=lambda path: written[path]["step"])

    def load(self, groups: Mapping[str, ModelGroup]) -> dict[str, Any]:
        """Loads every role's state. Returns {"step"} and the saved `state`; {"step": 0} without a checkpoint."""
        path = self.current
        if path is None:
            return {"step": 0}
        pending = [group.load(path / "state" / role) for role, group in groups.items()]
        for work in pending:
            work.result()
        return json.loads((path / "progress.json").read_text())
