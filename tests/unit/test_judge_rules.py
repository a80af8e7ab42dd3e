"""What a config may say of a judge, and what the config with a judge of its own says."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.placement import Resources, plan
from data.demo.judging import questions
from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.load import load_config
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.judge.questions import render

ROOT = Path(__file__).resolve().parents[2]
URL = "http://127.0.0.1:8000/v1"
PAIR = "{prompt} {first} {second}"


def tree(judge: dict[str, Any] | None, **settings: Any) -> Config:
    """A label phase with this judge, after an SFT phase."""
    label = {"kind": "label", "data": "data.demo.tasks:prompts", "models": {"policy": "phase:sft"}, "judge": judge}
    phase = {**label, **settings}
    phase = {name: value for name, value in phase.items() if value is not None}
    sft = {"kind": "sft", "data": "data.demo.tasks:instructions", "models": {"policy": "some/model"}}
    pools = {"train": {}, "rollout": {}, "judge": {}}
    return Config.model_validate({"pools": pools, "phases": [sft, phase]})


def advice(judge: dict[str, Any] | None, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        check(tree(judge, **settings))
    return str(error.value)


@pytest.mark.parametrize(
    "judge",
    [
        {"url": URL},
        {"model": "phase:sft"},
        {"url": "https://judge.example/v1", "template": PAIR},
        {"url": URL, "template": PAIR + " {principle}", "principles": ["be kind"]},
        {"url": URL, "principles": ["be kind"]},
        {"url": URL, "kind": "pointwise", "template": "{prompt} {answer} of {best}"},
        {"url": URL, "template": PAIR + ' reply with {"verdict": "A"}'},
    ],
)
def test_sound_judges_pass(judge):
    check(tree(judge))


@pytest.mark.parametrize(
    ("judge", "line"),
    [
        ({}, "no model and no url"),
        ({"url": URL, "model": "phase:sft"}, "both a model and a url"),
        ({"url": "127.0.0.1:8000"}, "is no http address"),
        ({"url": "file:///etc/passwd"}, "is no http address"),
        ({"model": "phase:later"}, "judge.model: there is no phase 'later'"),
        ({"model": "phase:sft", "pool": "jugde"}, "judge.pool: there is no pool 'jugde'; did you mean judge?"),
        ({"url": URL, "template": "{prompt} {first}"}, "needs {second} in it"),
        ({"url": URL, "template": PAIR + " {answer}"}, "{answer} is no field of a pairwise judge"),
        ({"url": URL, "kind": "pointwise", "template": PAIR}, "needs {answer} in it"),
        ({"url": URL, "template": PAIR + "{principle}"}, "judge.principles is empty"),
        ({"url": URL, "template": PAIR, "principles": ["be kind"]}, "never asked about"),
    ],
)
def test_a_wrong_judge_is_told_with_advice(judge, line):
    assert line in advice(judge)


def test_a_highest_rating_of_zero_is_no_scale():
    with pytest.raises(ValidationError, match=r"judge.best\n +Input should be greater than 0"):
        tree({"url": URL, "kind": "pointwise", "best": 0})


def rl(**settings: Any) -> dict[str, Any]:
    return {"kind": "rl", "algorithm": "reinforce", "reward": ["judge"], **settings}


def test_a_reward_by_a_judge_needs_one_and_samples_to_compare():
    assert "there is no judge" in advice(None, **rl())
    assert "sampling.samples is 1" in advice({"url": URL}, **rl())
    check(tree({"url": URL}, **rl(sampling={"samples": 2})))
    check(tree({"url": URL, "kind": "pointwise"}, **rl()))
    assert "nobody asks it" in advice({"url": URL}, **rl(reward=["data.demo.gold:well_formed"]))


def test_a_served_judges_questions_must_fit_its_positions(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    line = "judge.max_length 4096 is over the 512 positions of the judge's model"
    assert line in advice({"model": str(tmp_path)})


def test_a_judge_that_is_served_takes_one_place_and_one_elsewhere_takes_none():
    served = plan(resolve(tree({"model": "phase:sft"})), Resources(cpus=4))
    assert [(row["pool"], row["ranks"]) for row in served.rows() if row["role"] == "judge"] == [("judge", 1)]
    assert "judge" not in {row["role"] for row in plan(resolve(tree({"url": URL})), Resources(cpus=4)).rows()}


def test_the_small_judge_learns_the_very_questions_that_it_is_asked():
    phases = {phase.name: phase for phase in load_config(ROOT / "configs/rlaif.yaml").phases}
    taught, asked = phases["judge"].data.args["template"], phases["label"].judge.template
    row = next(questions(1, taught))
    first, second = (text.split(" which")[0] for text in row["prompt"].split(" A: ")[1].split(" B: "))
    assert row["prompt"] == render(asked, prompt=row["prompt"].split(" A: ")[0], first=first, second=second)


def test_the_small_judge_sees_the_better_answer_in_both_places():
    rows = list(questions(400, "{prompt}|{first}|{second}"))
    assert 150 < sum(row["response"] == "A" for row in rows) < 250
    assert {row["response"] for row in rows} == {"A", "B"}
    assert rows == list(questions(400, "{prompt}|{first}|{second}"))
