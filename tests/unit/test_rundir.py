"""The run directory survives a kill at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.rundir import Artifact, Checkpoints, RunDirectory, fingerprint


class Done:
    def result(self) -> None:
        return None


class FileGroup:
    """A model group whose state is one file, to test commits on a real file system."""

    def __init__(self, state: str = "") -> None:
        self.state = state

    def export(self, directory: Path) -> Done:
        (directory / "config.json").write_text("{}")
        return Done()

    def save(self, directory: Path) -> Done:
        directory.mkdir(parents=True)
        (directory / "shard").write_text(self.state)
        return Done()

    def load(self, directory: Path) -> Done:
        self.state = (directory / "shard").read_text()
        return Done()


class DyingGroup(FileGroup):
    def save(self, directory: Path) -> Done:
        super().save(directory)
        raise RuntimeError("killed in the middle of its shard")


class NoTokenizer:
    def save_pretrained(self, directory: Path) -> None:
        return None


def test_an_incomplete_checkpoint_is_never_resumed_from(tmp_path):
    checkpoints = Checkpoints(tmp_path / "ppo", "inputs")
    group = FileGroup("after step 2")
    checkpoints.save(2, group, {"policy": group}, {"coefficient": 0.5}, NoTokenizer())
    dying = DyingGroup("torn")
    with pytest.raises(RuntimeError):
        checkpoints.save(4, dying, {"policy": dying}, {}, NoTokenizer())

    fresh = FileGroup()
    progress = checkpoints.load({"policy": fresh})
    assert progress["step"] == 2
    assert progress["coefficient"] == 0.5
    assert fresh.state == "after step 2"


def test_only_the_current_checkpoint_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "ppo", "inputs")
    for step in (2, 4, 6):
        checkpoints.save(step, FileGroup(), {"policy": FileGroup()}, {}, NoTokenizer())
    assert [path.name for path in (tmp_path / "ppo").glob("step-*")] == ["step-6"]


def test_a_checkpoint_of_other_inputs_is_not_resumed_from(tmp_path):
    Checkpoints(tmp_path / "sft", "old data").save(3, FileGroup(), {"policy": FileGroup()}, {}, NoTokenizer())
    assert Checkpoints(tmp_path / "sft", "new data").load({}) == {"step": 0}


def test_an_artifact_appears_complete_or_not_at_all(tmp_path):
    run = RunDirectory(tmp_path)
    staging = run.staging("sft")
    (staging / "model.safetensors").write_text("weights")
    assert Artifact.read(run.artifact("sft")) is None
    artifact = Artifact(run.artifact("sft"), "id", {"loss": 1.5}, {"seed": 0}, 2.0, {"count": 1, "failed": 0})
    artifact.commit(staging)
    assert Artifact.read(run.artifact("sft")) == artifact
    assert (run.artifact("sft") / "model.safetensors").exists()
    assert not staging.exists()


def test_fingerprints_ignore_the_order_of_keys_and_see_every_value():
    assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint(json.loads('{"b": [2.5], "a": 1}'))
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_stepping_back_takes_the_checkpoint_before_if_it_was_kept(tmp_path):
    checkpoints, group = Checkpoints(tmp_path / "pretrain", "inputs"), FileGroup()
    for step in (10, 20, 30):
        group.state = f"after step {step}"
        checkpoints.save(step, group, {"policy": group}, {}, NoTokenizer(), keep=2)
    assert sorted(path.name for path in checkpoints.directory.glob("step-*")) == ["step-20", "step-30"]
    checkpoints.step_back()
    assert checkpoints.step == checkpoints.load({"policy": group})["step"] == 20 and group.state == "after step 20"
    checkpoints.step_back()
    assert checkpoints.current is None and checkpoints.step == 0 and checkpoints.load({"policy": group}) == {"step": 0}
    assert not list(checkpoints.directory.glob("step-*"))
