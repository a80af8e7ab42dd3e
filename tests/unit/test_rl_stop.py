"""An RL run that its watch stops: an interruption before the stop does not change the result."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from data_cases import tokenizer
from rich.console import Console

from data.sample import Sample
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.phases import rl
from rlhf.phases.base import Metrics, PhaseContext
from rlhf.rundir import RunDirectory

# Of the answers that weights 0, 1 and 2 sample: gold is best at the second look, and the third stops the run.
LENGTHS = (6, 4, 10)
GOLD = {"source": "length", "args": {"high": 4, "falloff": 10, "unit": "tokens"}}  # 0.8, 1.0 and 0.4 of these


class Done:
    def __init__(self, value=None):
        self.value = value

    def result(self):
        return self.value


class Group:
    """A model whose weights are the number of times that it was trained; its log-probs are all -1, a reference's -1.5."""

    def __init__(self, build) -> None:
        self.logprob = -1.5 if build.role == "reference" else -1.0
        exported = Path(build.path) / "weights"
        self.weights = int(exported.read_text()) if exported.exists() else 0

    def forward(self, staged, output, temperature=1.0) -> Done:
        return Done(torch.where(staged.action_mask, self.logprob, 0.0))

    def train(self, staged, objective, passes, auxiliary=None) -> Done:
        self.weights += 1
        return Done([{"loss": 0.0, "tokens": len(staged)}])

    def export(self, directory: Path) -> Done:
        (directory / "weights").write_text(str(self.weights))
        return Done()

    def save(self, directory: Path) -> Done:
        directory.mkdir(parents=True)
        return self.export(directory)

    def load(self, directory: Path) -> Done:
        self.weights = int((directory / "weights").read_text())
        return Done()


class Engines:
    """Answers as long as `lengths` says for the weights; the machine stops where it says nothing. Each answer's score
    rises with the weights."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    def sync(self, policy: Group) -> dict[str, float]:
        self.weights = policy.weights
        return {"canary_gap": 0.0}

    def generate(self, prompts, sampling) -> list[Sample]:
        if self.weights >= len(self.lengths):
            raise InterruptedError
        length = self.lengths[self.weights]
        tokens, logprobs = tuple(range(8, 8 + length)), (-1.0,) * length
        return [
            Sample(prompt, index, tokens, logprobs, "", False, 1, score=self.weights + 0.5 * index)
            for prompt in prompts
            for index in range(sampling.samples)
        ]


class Runtime:
    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.engines = Engines(lengths)

    def group(self, build, pool) -> Group:
        return Group(build)

    def rollouts(self, path, max_length) -> Engines:
        return self.engines

    def stage(self, batch, groups, minibatches=1, seed=0):
        return batch

    def release(self, role) -> None:
        pass

    def report(self, metrics, phase) -> None:
        pass


def attempt(root: Path, lengths: tuple[int, ...]) -> tuple[Metrics, str]:
    """(the phase's figures, the weights that it leaves) of a run that goes on where an earlier attempt left off."""
    root.mkdir(exist_ok=True)
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(4)))
    watch = {"gold": [GOLD], "every": 1, "patience": 1}
    phase = {"kind": "rl", "data": str(root / "prompts.jsonl"), "reward": ["environment"], "watch": watch, "steps": 6}
    phase |= {"algorithm": {"name": "grpo", "kl": {"coef": 0.1}}, "checkpoint_every": 2, "prompts_per_step": 2}
    phase |= {"sampling": {"samples": 2, "max_new_tokens": 16}, "max_length": 512}
    models = {"policy": {"path": "a-model"}}
    config = Config.model_validate({"run": {"output": str(root)}, "models": models, "phases": [phase]})
    run, console = RunDirectory(root), Console(file=StringIO())
    context = PhaseContext(resolve(config).phases[0], Runtime(lengths), run, {}, "id", run.staging("rl"), console)
    context.tokenizer = tokenizer()
    figures = rl.run(context)
    return figures, (context.staging / "weights").read_text()


def test_a_run_that_is_continued_and_stops_at_once_reports_the_last_trained_steps_figures(tmp_path):
    whole, weights = attempt(tmp_path / "whole", LENGTHS)
    assert (whole["stopped_at"], whole["step_at_best"], weights) == (3, 2, "1")
    assert (whole["reward"], whole["length"], whole["kl"]) == (1.25, 4.0, 2.0)  # of step 2
    with pytest.raises(InterruptedError):
        attempt(tmp_path / "twice", LENGTHS[:2])
    assert attempt(tmp_path / "twice", LENGTHS) == (whole, weights)


def test_a_policy_kept_after_the_checkpoint_is_not_the_best_one(tmp_path):
    """Before the interruption the third look had the best gold; sampled anew it is the worst."""
    with pytest.raises(InterruptedError):
        attempt(tmp_path, (6, 5, 4))
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "rl.best").iterdir()) == ["step-2", "step-3"]
    figures, weights = attempt(tmp_path, (6, 5, 10))
    assert (figures["stopped_at"], figures["step_at_best"], weights) == (3, 2, "1")


def test_the_time_of_a_look_is_reported(tmp_path):
    attempt(tmp_path, LENGTHS)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["seconds/watch"] > 0 for line in lines if "reward" in line)
