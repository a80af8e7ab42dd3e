"""The watch in the RL loop: what a look measures, when it looks, which policies it keeps, and how it continues after an
interruption."""

from __future__ import annotations

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from data.sample import Prompt, Sample
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.phases.answers import batch_of
from rlhf.phases.base import PhaseContext, Tracker
from rlhf.phases.experience import Draw, Experience
from rlhf.phases.scoring import Rewards
from rlhf.phases.watching import ALARMS, Watcher
from rlhf.rundir import RunDirectory

TEMPERATURE = 0.7
LOGPROBS = {"policy": -1.0, "reference": -1.5}


class Done:
    def __init__(self, value=None):
        self.value = value

    def result(self):
        return self.value


class Group:
    """A model that gives every token one log-prob, and whose export holds the number of its weights."""

    def __init__(self, role: str) -> None:
        self.role, self.weights, self.asked = role, 0, []

    def forward(self, staged, output, temperature):
        self.asked.append((output, temperature))
        return Done(torch.full(staged.tokens.shape, LOGPROBS[self.role]))

    def export(self, directory: Path) -> Done:
        (directory / "weights").write_text(str(self.weights))
        return Done()


class GoldScorer:
    """Scores that are set from outside, one for all answers to a prompt."""

    def __init__(self, *of_prompts: float) -> None:
        self.of_prompts = of_prompts

    def score(self, samples, staged) -> Rewards:
        return Rewards(torch.tensor([self.of_prompts[sample.prompt.row] for sample in samples]), {})


@pytest.fixture
def watcher(tmp_path) -> Watcher:
    watch = {"every": 2, "patience": 1, "gold": ["data.demo.gold:gold"]}
    phase = {"kind": "rl", "data": "unused", "reward": ["data.demo.gold:well_formed"], "watch": watch, "steps": 8}
    phase["sampling"] = {"temperature": TEMPERATURE}
    models = {"policy": {"path": "a-model"}}
    config = Config.model_validate({"run": {"output": str(tmp_path)}, "models": models, "phases": [phase]})
    context = PhaseContext(
        resolve(config).phases[0], None, RunDirectory(tmp_path), {}, "id", tmp_path / "s", Console(file=StringIO())
    )
    context.tokenizer = SimpleNamespace(save_pretrained=lambda directory: None)
    groups = {role: Group(role) for role in LOGPROBS}
    return Watcher(context, context.phase.watch, groups, gold=GoldScorer(0.4, 0.6))


def tracker(context: PhaseContext) -> Tracker:
    rows = []
    log = SimpleNamespace(write=lambda step, metrics: rows.append({"step": step, **metrics}), rows=rows)
    return Tracker(context, log, bar=None)


def experience(reward: float = 1.0, length: int = 5) -> Experience:
    """Two answers to each of two prompts."""
    prompts = [Prompt((5, 6), "", 0), Prompt((7,), "", 1)]
    samples = [
        Sample(prompt, index, tuple(range(8, 8 + length)), (-2.0,) * length, "", index == 1, version=0)
        for prompt in prompts
        for index in range(2)
    ]
    batch = batch_of(samples).with_columns(rewards=[reward] * 4)
    return Experience(batch, None, {}, Draw(batch, batch, {}, samples), [])


def test_a_look_measures_the_answers(watcher):
    track = tracker(watcher.context)
    assert not watcher.look(1, experience(), track)
    assert asdict(watcher.looks[0]) == {
        "step": 1,
        "proxy": 1.0,
        "length": 5.0,
        "repetition": 0.0,
        "truncated": 0.5,
        "entropy": 2.0,
        "kl": 2.5,  # five tokens of -1.0 - -1.5
        "gold": pytest.approx(0.5),
        "gold_error": pytest.approx(0.1),  # of two prompts' means, 0.4 and 0.6
        "format": None,
    }
    assert track.log.rows[0]["watch/kl"] == 2.5
    assert "watch/format" not in track.log.rows[0]


def test_only_missing_log_probs_are_computed_at_the_sampling_temperature(watcher):
    known = experience()
    columns = {"old_logprobs": torch.full(known.batch.tokens.shape, -0.5)}
    batch = known.batch.with_columns(**columns)
    watcher.look(
        1, Experience(batch, None, {}, Draw(batch, batch, {}, known.first.samples), []), tracker(watcher.context)
    )
    assert watcher.looks[0].kl == 5.0
    assert watcher.groups["policy"].asked == []
    assert watcher.groups["reference"].asked == [("logprobs", TEMPERATURE)]


def test_it_looks_at_the_first_step_every_few_and_the_last(watcher):
    for step in range(1, 9):
        watcher.look(step, experience(), tracker(watcher.context))
    assert [look.step for look in watcher.looks] == [1, 3, 5, 7, 8]


def test_a_step_without_any_reward_is_not_looked_at(watcher):
    assert not watcher.look(1, experience(reward=float("nan")), tracker(watcher.context))
    assert watcher.looks == []


def test_a_phase_without_a_watch_is_never_looked_at(watcher):
    idle = Watcher(watcher.context, None, watcher.groups)
    assert not idle.look(1, experience(), tracker(watcher.context))
    assert idle.figures() == {}


def hacked(watcher: Watcher, golds: list[float], start: int = 0) -> list[bool]:
    """Looks at steps 1, 3, 5 …, the reward rising, gold as given; the policy's weights are the step."""
    stops = []
    for place, gold in enumerate(golds, start):
        step = 2 * place + 1
        watcher.gold.of_prompts = (gold - 0.001, gold + 0.001)
        watcher.groups["policy"].weights = step
        stops.append(watcher.look(step, experience(reward=float(step), length=5 + 4 * place), tracker(watcher.context)))
    return stops


def kept(watcher: Watcher) -> dict[str, str]:
    """The weights that are kept, by directory."""
    return {path.name: (path / "weights").read_text() for path in watcher.kept.glob("*")}


def continued(watcher: Watcher, saved: dict, step: int) -> Watcher:
    """After an interruption that left the checkpoint of `step`."""
    again = Watcher(watcher.context, watcher.settings, watcher.groups, watcher.gold)
    again.resume(json.loads(json.dumps(saved)), step)
    return again


def test_the_policy_of_golds_best_look_is_kept_where_the_run_stops(watcher):
    assert hacked(watcher, [0.3, 0.6, 0.1]) == [False, False, True]
    assert kept(watcher) == {"step-3": "3"}
    figures = watcher.figures()
    assert (figures["stopped_at"], figures["step_at_best"]) == (5, 3)
    assert (figures["gold_at_best"], figures["watch_gold"]) == (pytest.approx(0.6), pytest.approx(0.1))
    told = [json.loads(line) for line in (watcher.context.run.root / ALARMS).read_text().splitlines()]
    assert [row["step"] for row in told] == [3, 5]
    assert told[0]["text"].startswith("answers have become 1.8 times as long")
    assert told[1]["text"].endswith("the run stops here")


def test_a_run_that_may_not_stop_is_told_once_and_goes_on(watcher):
    watcher.settings = watcher.settings.model_copy(update={"stop": False})
    assert hacked(watcher, [0.3, 0.6, 0.1, 0.1]) == [False] * 4
    assert "stopped_at" not in watcher.figures()
    assert not watcher.kept.exists()
    assert (watcher.context.run.root / ALARMS).read_text().count("turned down") == 1


def test_the_policy_that_the_checkpoint_knows_stays_until_the_next_checkpoint(watcher):
    hacked(watcher, [0.3, 0.5])
    saved = watcher.state()
    watcher.saved()
    assert kept(watcher) == {"step-3": "3"}
    hacked(watcher, [0.6, 0.7], start=2)
    assert kept(watcher) == {"step-3": "3", "step-7": "7"}

    again = continued(watcher, saved, step=4)  # its looks after the checkpoint turn out otherwise
    assert kept(again) == {"step-3": "3"}
    assert hacked(again, [0.1], start=2) == [True]
    again.context.runtime = SimpleNamespace(release=lambda role: None, group=lambda build, pool: build)
    assert again.best_policy().path == str(again.kept / "step-3")
    assert again.figures()["step_at_best"] == 3


def test_the_next_checkpoint_leaves_golds_best_alone(watcher):
    hacked(watcher, [0.3, 0.5])
    watcher.saved()
    hacked(watcher, [0.6], start=2)
    watcher.saved()
    assert kept(watcher) == {"step-5": "5"}


def test_an_interrupted_export_is_no_policy(watcher):
    (watcher.kept / ".step-3.partial").mkdir(parents=True)
    again = continued(watcher, {}, step=0)
    assert hacked(again, [0.3, 0.5, 0.1]) == [False, False, True]
    assert kept(again) == {"step-3": "3"}


def test_a_run_without_a_watch_deletes_alarms_and_policies_of_an_earlier_run(watcher):
    hacked(watcher, [0.3, 0.6, 0.1])
    watcher.settings = None
    continued(watcher, {}, step=0)
    assert (watcher.context.run.root / ALARMS).read_text() == ""
    assert kept(watcher) == {}


def test_a_gold_score_of_only_one_prompt_detects_no_turn(watcher):
    watcher.gold.of_prompts = (0.4, float("nan"))
    watcher.look(1, experience(), tracker(watcher.context))
    assert (watcher.looks[0].gold, watcher.looks[0].gold_error) == (pytest.approx(0.4), None)
    assert "one prompt alone has a gold score" in (watcher.context.run.root / ALARMS).read_text()


def test_an_interrupted_run_has_the_looks_of_an_uninterrupted_one(watcher):
    hacked(watcher, [0.3, 0.6])
    saved = watcher.state()
    hacked(watcher, [0.1], start=2)
    whole = watcher.looks
    other = {"phase": "other", "step": 99, "time": 0.0, "text": ""}
    with open(watcher.context.run.root / ALARMS, "a") as file:
        file.write(json.dumps(other) + "\n")
    again = continued(watcher, saved, step=4)
    told = [json.loads(line) for line in (watcher.context.run.root / ALARMS).read_text().splitlines()]
    assert [(row["phase"], row["step"]) for row in told] == [("rl", 3), ("other", 99)]
    assert hacked(again, [0.1], start=2) == [True]
    assert again.looks == whole
    assert again.turn == watcher.turn
