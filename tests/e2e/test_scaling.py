"""`launch.py scaling` on a small text: a grid of trainings on one cluster, its law, and what `plan` then expects of the run itself."""

from __future__ import annotations

import json

import pytest
import yaml
from runs import call
from transformers import AutoModelForCausalLM

from rlhf.scaling.law_tables import count

WIDTHS = {"narrow": 16, "middle": 32, "wide": 64, "widest": 96}
LENGTH, BATCH = 32, 2
TOKENS = [steps * BATCH * LENGTH for steps in (2, 4, 8)]
SHAPE = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
CONFIG = {
    "pools": {"train": {"devices": 1}},
    "models": {"policy": {"architecture": {"hidden_size": 48, **SHAPE}}},
    "phases": [
        {
            "kind": "pretrain",
            "data": {"path": "data.demo.tasks:corpus", "args": {"rows": 60}, "holdout": 8},
            "tokenizer": {"vocab_size": 300},
            "max_length": LENGTH,
            "batch_size": BATCH,
            "steps": 20,
            "optim": {"lr": 1.0e-2},
        }
    ],
    "scaling": {
        "sizes": {name: {"architecture": {"hidden_size": width}} for name, width in WIDTHS.items()},
        "tokens": TOKENS,
        "held_out": [{"size": "widest", "tokens": TOKENS[-1]}],
        "held_out_error": 1.0e-9,  # which no law reaches
    },
}


@pytest.fixture(scope="module")
def scaled(ray_cluster, tmp_path_factory):
    """The directory, and what the command printed when it was called the first and the second time."""
    directory = tmp_path_factory.mktemp("scaling")
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump({"run": {"output": str(directory / "run")}, **CONFIG}, sort_keys=False))
    first = call("scaling", str(file))
    assert first.returncode == 1, first.stderr[-4000:]
    written = (directory / "run-scaling/scaling.json").read_text()
    return directory, written, first, call("scaling", str(file))


def test_every_training_of_the_grid_is_in_the_report(scaled):
    directory, written, first, _ = scaled
    points = json.loads(written)["points"]
    asked = [(size, tokens) for tokens in TOKENS for size in ("narrow", "middle", "wide")] + [("widest", TOKENS[-1])]
    assert len(points) == len(asked)
    for point, (size, tokens) in zip(points, asked):
        left = directory / "run-scaling/artifacts" / f"{size}-{tokens}"
        assert point["size"] == size
        assert point["tokens"] == pytest.approx(tokens, rel=0.05)  # the text's last row is not full
        assert point["parameters"] == AutoModelForCausalLM.from_pretrained(left).num_parameters()
        assert point["loss"] == json.loads((left / "phase.json").read_text())["metrics"]["loss"]
    assert "training 10 of 10" in first.stderr
    assert (directory / "run-scaling/scaling.html").exists()


def test_a_held_out_error_that_is_too_large_is_told(scaled):
    error = json.loads(scaled[1])["held_out_error"]
    assert f"held-out error {100 * error:.3g} % is over scaling.held_out_error 1e-07 %" in scaled[2].stdout


def test_called_again_it_trains_nothing_and_finds_the_same_law(scaled):
    directory, written, _, second = scaled
    assert second.returncode == 1
    assert "Nothing is left to do" in second.stderr and "training 1 of" not in second.stderr
    assert (directory / "run-scaling/scaling.json").read_text() == written


def test_the_plan_expects_a_loss_of_the_run_itself(scaled):
    directory, written, *_ = scaled
    done = call("plan", str(directory / "config.yaml"))
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if f" {count(20 * BATCH * LENGTH)} " in line)
    law, tokens = json.loads(written)["law"], 20 * BATCH * LENGTH
    vocabulary, width, inner = json.loads(written)["model"]["vocab_size"], 48, SHAPE["intermediate_size"]
    layer = 4 * width**2 + 3 * width * inner + 2 * width
    size = 2 * vocabulary * width + SHAPE["num_hidden_layers"] * layer + width
    loss = law["E"] + law["A"] / size ** law["alpha"] + law["B"] / tokens ** law["beta"]
    assert f" {count(size)} " in row and f" {loss:.3f} " in row
    assert "Warning" not in done.stderr
