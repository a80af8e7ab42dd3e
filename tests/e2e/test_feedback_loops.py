"""Every kind of reward model, two steps each, and the rewards made of them, on real Ray, vLLM and DeepSpeed."""

from __future__ import annotations

import json
import math

import pytest
from runs import figures, lines


@pytest.mark.parametrize("phase", ["pairs", "kwise", "order", "ratings", "rules", "steps"])
def test_every_loss_trains_a_reward_model_that_tells_how_it_is_read(loops, phase):
    directory, _ = loops
    assert all(math.isfinite(step["loss"]) for step in lines(directory, phase))
    artifact = directory / "artifacts" / phase
    reads = {"rules": "questions", "steps": "steps"}.get(phase, "answer")
    assert json.loads((artifact / "reward.json").read_text())["reads"] == reads
    assert json.loads((artifact / "calibration.json").read_text())
    assert (artifact / "calibration.png").stat().st_size > 10_000


def test_annotators_agreement_is_told(loops):
    directory, done = loops
    (report,) = json.loads((directory / "artifacts/order/phase.json").read_text())["data"]
    assert 0 < report["agreement"]["alpha"] < 1
    assert "pairs of answers judged both ways" in done.stderr


def test_an_ensemble_disagrees_and_what_a_function_cannot_score_is_dropped_and_counted(loops):
    directory, done = loops
    for step in lines(directory, "ensemble"):
        if "reward" in step:
            assert step["reward/model/std"] > 0
            assert 0 <= step["reward/length"] <= 1
    ends = [step for step in lines(directory, "ensemble") if "dropped" in step]
    assert sum(step["dropped"] for step in ends) == sum(step.get("reward/unsteady/failed", 0) for step in ends) > 0
    assert "no answer within 2 s (limits.timeout_s)" in done.stderr and "not today" in done.stderr


def test_the_watch_sees_gold_kl_and_format(loops):
    directory, _ = loops
    looks = [line for line in lines(directory, "ensemble") if "watch/gold" in line]
    assert [look["step"] for look in looks] == [1, 2]
    assert looks[0]["watch/kl"] == pytest.approx(0, abs=1e-4)  # the policy is still the reference
    assert looks[1]["watch/kl"] != looks[0]["watch/kl"]
    assert 0 <= looks[0]["watch/format"] <= 1


def test_the_guard_stands_before_the_other_reward(loops):
    directory, _ = loops
    (guarded,), (unguarded,) = lines(directory, "guarded"), lines(directory, "unguarded")
    assert guarded["reward"] == pytest.approx(guarded["reward/rules"]) and guarded["reward"] < 0
    assert unguarded["reward"] == pytest.approx(unguarded["reward/steps"]) and 0 < unguarded["reward"] < 1


def test_a_judge_s_labels_are_pairs_to_learn_from(loops):
    directory, _ = loops
    rows = [json.loads(line) for line in (directory / "artifacts/label/rows.jsonl").read_text().splitlines()]
    found = figures(directory, "label")
    assert len(rows) > 1 and all(len(row["chosen"]) < len(row["rejected"]) for row in rows)
    assert all(row["annotator"] == "judge" for row in rows)
    assert found["rows"] == len(rows) <= found["pairs"] and found["asked"] > found["rows"]
    assert len(lines(directory, "dpo")) == 2


def test_the_report_shows_every_phase_and_needs_nothing_from_outside(loops):
    directory, _ = loops
    page = (directory / "report.html").read_text()
    assert all(name in page for name in ("pairs", "ensemble", "label", "Krippendorff"))
    assert "http" not in page.replace("http://www.w3.org", "")  # the names of SVG's vocabulary
