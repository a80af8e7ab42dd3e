"""Which changes of a config, its code and its data make a phase run again."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rlhf.config.schema import Config
from rlhf.controller import Controller
from rlhf.lineage import identity
from rlhf.phases import best_of_n
from rlhf.rundir import Artifact, RunDirectory, fingerprint

PROMPTS = {"path": "data.demo.tasks:prompts", "args": {"rows": 4}}
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


def test_a_model_that_the_algorithm_does_not_need_is_not_in_the_lineage(tmp_path):
    """The critic would start as the reward model of a phase that comes later."""
    prompts = {"path": "data.demo.tasks:prompts", "args": {"rows": 4}}
    phase = {"kind": "rl", "algorithm": "grpo", "reward": [SCORE], "data": prompts, "sampling": {"samples": 2}}
    later = {"kind": "reward", "data": {"path": "data.demo.tasks:pairs", "args": {"rows": 4}}}
    models = POLICY | {"reward": "phase:reward"}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": [phase, later]})
    controller = Controller(config, lambda: None, console=Console(file=StringIO()))
    assert controller.lineage(controller.resolved.phases[0], {})["models"].keys() == {"policy"}


def test_the_lineage_names_conversions_of_rows(tmp_path):
    row = {"prompt": "1 + 1?", "responses": ["2", "3"], "ranks": [1, 2]}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row) + "\n")
    phase = {"kind": "reward", "data": f"{tmp_path}/rankings.jsonl"}
    phases = [phase | {"name": "pairs"}, phase | {"name": "whole", "loss": "kwise"}]
    models = {"reward": POLICY["policy"]}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": phases})
    controller = Controller(config, lambda: None, console=Console(file=StringIO()))
    pairs, whole = (controller.lineage(phase, {}) for phase in controller.resolved.phases)
    assert pairs["conversions"] == {"data": "ranking → pairs"}
    assert "conversions" not in whole


def id_of(phase: dict[str, Any], **given: Any) -> str:
    common = {"data": PROMPTS, "models": {"policy": "org/a", "reward": "org/b"}}
    config = Config.model_validate({"phases": [common | phase]})
    controller = Controller(config, lambda: None, console=Console(file=StringIO()), **given)
    return fingerprint(controller.lineage(controller.resolved.phases[0], {}))


JUDGE = {"url": "http://127.0.0.1:8000/v1"}
LIMITS = {"timeout_s": 5, "memory_gib": 8, "output_mib": 1, "retries": 7, "workers": 3}
WIDER = {"source": SCORE, "limits": LIMITS}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"reward": [SCORE]}, {"reward": [WIDER]}),
        ({"watch": {"gold": [SCORE], "format": SCORE}}, {"watch": {"gold": [WIDER], "format": WIDER}}),
        *(
            ({"judge": JUDGE}, {"judge": JUDGE | setting})
            for setting in ({"timeout_s": 9}, {"retries": 9}, {"at_once": 9}, {"pool": "x"}, {"key_variable": "x"})
        ),
    ],
)
def test_limits_of_calls_do_not_change_the_result(before, after):
    assert id_of({"kind": "rl", **before}) == id_of({"kind": "rl", **after})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"reward": [SCORE]}, {"reward": [{"source": SCORE, "weight": 2}]}),
        ({"watch": {"gold": [SCORE]}}, {"watch": {"gold": [SCORE], "format": SCORE}}),
        ({"judge": JUDGE}, {"judge": JUDGE | {"swap": False}}),
        ({"judge": JUDGE}, {"judge": JUDGE | {"url": "http://127.0.0.1:8001/v1"}}),
    ],
)
def test_sources_and_weights_of_rewards_change_the_result(before, after):
    assert id_of({"kind": "rl", **before}) != id_of({"kind": "rl", **after})


MINE = "mine_in_controller"
CODE = """
import dataclasses
from rlhf.algorithms.grpo import GRPO
from rlhf.objectives import DPO

def score(sample):
    return 1.0

@dataclasses.dataclass
class Scorer:
    seen: set = dataclasses.field(default_factory=set)
    def score(self, samples):
        return [1.0 for _ in samples]

SCORER = Scorer({"a", "b", "c"})

@dataclasses.dataclass(frozen=True)
class Algorithm(GRPO):
    scale: float = 1.0

@dataclasses.dataclass(frozen=True)
class Loss(DPO):
    scale: float = 1.0
"""
ANSWERS = {"data": PROMPTS, "scores": {"it": f"{MINE}:score"}}


@pytest.mark.parametrize(
    "phase",
    [
        {"kind": "rl", "reward": [f"{MINE}:score"]},
        {"kind": "rl", "reward": [f"{MINE}:Scorer"]},
        {"kind": "rl", "reward": [f"{MINE}:SCORER"]},
        {"kind": "best_of_n", "reward": [f"{MINE}:score"]},
        {"kind": "rl", "watch": {"gold": [f"{MINE}:score"]}},
        {"kind": "rl", "watch": {"format": f"{MINE}:score"}},
        {"kind": "rl", "rollout": f"{MINE}:score"},
        {"kind": "rl", "algorithm": f"{MINE}:Algorithm"},
        {"kind": "rl", "answers": ANSWERS},
        {"kind": "label", "judge": JUDGE, "gold": f"{MINE}:score"},
        {"kind": "dpo", "loss": f"{MINE}:Loss"},
    ],
)
def test_an_edited_function_of_the_config_runs_again(tmp_path, monkeypatch, phase):
    monkeypatch.syspath_prepend(tmp_path)
    ids = []
    for code in (CODE, CODE, CODE.replace("1.0", "2.25")):
        (tmp_path / f"{MINE}.py").write_text(code)
        monkeypatch.delitem(sys.modules, MINE, raising=False)
        ids.append(id_of(phase))
    assert ids[0] == ids[1] != ids[2]


def test_a_function_that_the_caller_replaces_need_not_exist():
    gone = {"kind": "rl", "reward": ["gone:score"], "rollout": "gone:rollout"}
    assert id_of(gone, reward=weigh, rollout=weigh) != id_of(gone, reward=Taste(1.0), rollout=weigh)


def drawn(calls: str):
    """Prompts that differ from call to call. calls: a file with a line for each call."""
    with open(calls, "a+") as file:
        file.write("called\n")
        file.seek(0)
        yield {"prompt": f"call {len(file.readlines())}"}


def test_a_data_function_is_called_once_a_phase(tmp_path, monkeypatch):
    """Its fingerprint is that of the rows which the phase reads, even where it draws other rows in each call."""
    data = {"path": f"{__name__}:drawn", "args": {"calls": str(tmp_path / "calls")}}
    phase = {"kind": "best_of_n", "reward": [SCORE], "data": data}
    phases = [phase | {"name": "one"}, phase | {"name": "two"}]
    models = {"policy": "org/a"}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": phases})
    read = []

    def run(context) -> dict[str, float]:
        read.extend(context.open(context.phase.data) for _ in range(2))
        return {}

    monkeypatch.setattr(best_of_n, "run", run)
    runtime = SimpleNamespace(rollout_stats={}, expect=lambda *needed: None, release=lambda role: None)
    Controller(config, lambda: nullcontext(runtime), console=Console(file=StringIO())).run()
    assert [list(rows) for rows in read] == [[{"prompt": f"call {number}"}] for number in (1, 1, 2, 2)]
    for name, rows in zip(("one", "two"), read[::2], strict=True):
        made = Artifact.read(RunDirectory(Path(config.run.directory)).artifact(name))
        assert made.lineage["data"] == {"data": rows.fingerprint}
