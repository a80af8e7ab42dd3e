"""A resumed run gives the very losses of a run that was never interrupted."""

import json
from pathlib import Path

import plain
import pytest
from marks import long

from data.errors import UserError
from rlhf.engine.device import resolve
from rlhf.engine.engine import Engine

BATCHES = [plain.make_batch(rows=8, seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def dropping(llama, tmp_path_factory):
    return plain.dropping(llama, tmp_path_factory.mktemp("dropping"))


def interrupted(rank, world, build, directory):
    """The last two of four steps' metrics: uninterrupted, and resumed by an engine that had taken other steps."""
    shares = [plain.share(batch, rank, world) for batch in BATCHES]
    objective = plain.NegativeLogprob()
    engine = Engine(build, resolve("cpu"))
    for batch in shares[:2]:
        engine.train(batch, objective)
    engine.save(Path(directory))
    uninterrupted = [engine.train(batch, objective) for batch in shares[2:]]
    engine.close()
    resumed = Engine(build, resolve("cpu"))
    resumed.train(shares[3], objective)
    resumed.load(Path(directory))
    after = [resumed.train(batch, objective) for batch in shares[2:]]
    resumed.close()
    return uninterrupted, after


@pytest.mark.parametrize(
    ("stage", "dtype"), [(0, "float32"), long(1, "float32"), long(2, "float32"), (3, "float32"), (2, "bfloat16")]
)
def test_resuming_is_exact_to_the_bit(groups, dropping, tmp_path, stage, dtype):
    build = plain.build(dropping, zero_stage=stage, dtype=dtype)
    for uninterrupted, resumed in groups[2].run(interrupted, build, str(tmp_path)):
        assert resumed == uninterrupted


def load_elsewhere(rank, world, build, directory):
    engine = Engine(build, resolve("cpu"))
    with pytest.raises(UserError) as caught:
        engine.load(Path(directory))
    engine.close()
    return str(caught.value)


def test_other_ranks_or_no_checkpoint_are_the_users_errors(groups, llama, tmp_path):
    build = plain.build(llama)
    groups[2].run(interrupted, build, str(tmp_path))
    assert json.loads((tmp_path / "layout.json").read_text())["ranks"] == 2
    (message,) = groups[1].run(load_elsewhere, build, str(tmp_path))
    assert "ranks 2 then, 1 now" in message and "resume with" in message
    (message,) = groups[1].run(load_elsewhere, build, str(tmp_path / "nothing"))
    assert "no checkpoint" in message
