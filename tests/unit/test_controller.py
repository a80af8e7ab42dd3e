"""What a phase's result depends on, and what it does not."""

from __future__ import annotations

import json
from functools import partial
from io import StringIO

from rich.console import Console

from rlhf.config.schema import Config
from rlhf.controller import Controller, identity

SCORE = "data.demo.gold:well_formed"
POLICY = {"policy": {"architecture": {"model_type": "llama"}}}


class Taste:
    """A reward without a repr of its own."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def score(self, samples):
        return [self.weight] * len(samples)


def weigh(sample, weight):
    return weight


def test_an_object_is_known_by_its_parameters_and_not_by_its_address():
    assert identity(Taste(1.0)) == identity(Taste(1.0)) != identity(Taste(2.0))
    assert (
        identity(partial(weigh, weight=1)) == identity(partial(weigh, weight=1)) != identity(partial(weigh, weight=2))
    )
    assert identity(weigh) == identity(weigh) != identity(Taste)
    assert identity(None) is None


def test_a_model_that_no_algorithm_needs_is_no_part_of_the_lineage(tmp_path):
    """The critic would start as the reward model of a phase that comes later."""
    prompts = {"path": "data.demo.tasks:prompts", "args": {"rows": 4}}
    phase = {"kind": "rl", "algorithm": "grpo", "reward": [SCORE], "data": prompts, "sampling": {"samples": 2}}
    later = {"kind": "reward", "data": {"path": "data.demo.tasks:pairs", "args": {"rows": 4}}}
    models = POLICY | {"reward": "phase:reward"}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": [phase, later]})
    controller = Controller(config, lambda: None, console=Console(file=StringIO()))
    assert controller.lineage(config.phases[0], {})["models"].keys() == {"policy"}


def test_the_lineage_tells_what_rows_are_turned_into(tmp_path):
    row = {"prompt": "1 + 1?", "responses": ["2", "3"], "ranks": [1, 2]}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row) + "\n")
    phase = {"kind": "reward", "data": f"{tmp_path}/rankings.jsonl"}
    phases = [phase | {"name": "pairs"}, phase | {"name": "whole", "loss": "kwise"}]
    models = {"reward": POLICY["policy"]}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": phases})
    controller = Controller(config, lambda: None, console=Console(file=StringIO()))
    pairs, whole = (controller.lineage(phase, {}) for phase in config.phases)
    assert pairs["conversions"] == {"data": "ranking → pairs"}
    assert "conversions" not in whole
