"""The detector tells a leap from the noise of ordinary steps; skipped batches survive a kill."""

import json
import math

import numpy as np
import pytest

from data.errors import UserError
from rlhf.config.training import Spikes
from rlhf.phases.spikes import Detector, Guard, read_incidents, usual_of
from rlhf.phases.step_plan import StepPlan

PLAN = StepPlan(8, 8)


def step(loss, norm=1.0, **more):
    return {"loss": loss, "grad_norm": norm, **more}


def falling(count, seed=0):
    """An ordinary training: the loss falls from 6 to 3, both figures are restless by 5 %."""
    noise = np.random.default_rng(seed).normal(1, 0.05, (count, 2))
    return [step((3 + 3 * math.exp(-n / 50)) * a, 0.8 * b) for n, (a, b) in enumerate(noise)]


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_training_has_no_leap(seed):
    detector = Detector(Spikes())
    assert [detector.leap(metrics) for metrics in falling(500, seed)] == [None] * 500


@pytest.mark.parametrize(
    ("wrong", "told"), [(step(9.0), "loss leapt to 9"), (step(3.1, 40.0), "grad_norm leapt to 40")]
)
def test_a_leap_of_either_figure_is_found_and_does_not_count_for_later_steps(wrong, told):
    detector = Detector(Spikes())
    for metrics in falling(100):
        detector.leap(metrics)
    before = detector.state()
    assert told in detector.leap(wrong) and told in detector.leap(wrong)
    assert detector.state() == before


def test_neither_a_trend_nor_leaps_widen_the_spread():
    values = np.linspace(5, 3, 21)  # falls by 0.1 a step
    assert usual_of(values, 0.0) == (pytest.approx(3.45), pytest.approx(0, abs=1e-12))  # steps 11 to 20
    values[[3, 8, 15]] = 50.0
    assert usual_of(values, 0.0) == (pytest.approx(3.45, abs=0.2), pytest.approx(0, abs=0.2))
    assert usual_of(np.ones(9), 0.3) == (1.0, 0.3)


def test_a_norm_that_falls_fast_at_first_may_rise_again():
    """As measured in a small training, whose rate was still rising."""
    norms = [
        3.9,
        4,
        3.2,
        3,
        2.6,
        2.3,
        2.1,
        1.3,
        1,
        0.8,
        0.53,
        0.85,
        0.96,
        0.8,
        0.6,
        1.5,
        1,
        1.1,
        0.86,
        0.8,
        0.77,
        1,
        1.06,
        2.4,
        1.8,
        3,
    ]
    detector = Detector(Spikes())
    assert [detector.leap(step(3.0, norm)) for norm in norms] == [None] * len(norms)


def test_the_spread_is_the_standard_deviation_of_ordinary_noise():
    unrest = np.random.default_rng(0).normal(7, 2, 100_000)
    assert usual_of(unrest, 0.0) == (pytest.approx(7, abs=0.05), pytest.approx(2, rel=0.01))


def test_a_detector_continues_from_its_saved_state():
    one, steps = Detector(Spikes()), falling(90)
    for metrics in steps[:60]:
        one.leap(metrics)
    other = Detector(Spikes(), json.loads(json.dumps(one.state())))
    for metrics in steps[60:]:
        assert one.leap(metrics) == other.leap(metrics)
    assert one.state() == other.state()


def guard(tmp_path, owner="id", at=50, **settings):
    return Guard.of(Spikes(**settings), tmp_path / "incidents" / "pretrain.json", owner, {"step": at})


def test_incidents_add_up_and_are_read_only_by_their_owner(tmp_path):
    first = guard(tmp_path)
    first.record(14, "loss leapt", step(9.0), {"step": 10}, PLAN)
    first.record(12, "no number", step(math.nan, math.inf), {"step": 10}, PLAN)
    again = guard(tmp_path)
    assert again.incidents == first.incidents and again.skipped == 5 * 8 + 3 * 8
    one, two = again.incidents
    assert (one.step, one.back_to, one.skipped_from, one.skipped) == (15, 10, 80, 40)
    assert (two.skipped_from, two.skipped, two.loss, two.grad_norm) == (120, 24, None, None)
    assert list(PLAN.numbers(10, again.skipped)) == list(range(144, 152))
    assert read_incidents(tmp_path / "none.json", "id") == ()


def test_incidents_of_other_inputs_or_beyond_the_checkpoint_are_forgotten(tmp_path):
    for forgets in ({"owner": "another"}, {"at": 9}):
        guard(tmp_path).record(14, "loss leapt", step(9.0), {"step": 10}, PLAN)
        assert guard(tmp_path, at=10).skipped == 40
        assert guard(tmp_path, **forgets).skipped == 0
        assert guard(tmp_path).skipped == 0  # nor does another run of the same inputs pass over rows that it never saw


def test_a_return_beyond_an_earlier_return_keeps_both_when_the_run_is_killed(tmp_path):
    one = guard(tmp_path, at=30)
    one.record(36, "loss leapt", step(9.0), {"step": 30}, PLAN)
    one.record(31, "loss leapt", step(9.0), {"step": 20}, PLAN)  # the checkpoint at 30 is given up
    again = guard(tmp_path, at=20)
    assert again.incidents == one.incidents and again.skipped == 7 * 8 + 12 * 8
    assert PLAN.numbers(20, again.skipped)[0] == PLAN.numbers(31, 7 * 8)[-1] + 1  # right after what was seen last


def test_a_leap_soon_after_a_checkpoint_or_after_a_return_to_it_casts_doubt_on_it(tmp_path):
    one = guard(tmp_path)
    assert one.doubts(step=10, saved=10) and not one.doubts(step=19, saved=10)
    one.record(19, "loss leapt", step(9.0), {"step": 10}, PLAN)
    assert one.doubts(step=19, saved=10) and not one.doubts(step=29, saved=20)


def test_too_many_incidents_end_the_run(tmp_path):
    one = guard(tmp_path, at_most=1)
    one.record(14, "loss leapt", step(9.0), {"step": 10}, PLAN)
    with pytest.raises(UserError, match=r"step 16: loss leapt, after 1 incidents; raise spikes.at_most to go on"):
        one.record(15, "loss leapt", step(9.0), {"step": 10}, PLAN)


def test_without_settings_a_nonfinite_loss_ends_the_run_and_a_leap_does_not(tmp_path):
    none = Guard.of(None, tmp_path / "x.json", "id", {"step": 0})
    assert none.trouble(3, step(1e9), "policy") is None
    with pytest.raises(UserError, match=r"policy, step 4: non-finite loss \(nan\) .* the weights are unchanged"):
        none.trouble(3, step(math.nan, skipped=1.0), "policy")


def test_an_overflow_of_fp16_is_ignored(tmp_path):
    overflow = {"skipped": 1.0, "loss_scale": 1024.0}
    assert guard(tmp_path).trouble(3, step(2.0, math.inf, **overflow), "policy") is None
    assert "non-finite" in guard(tmp_path).trouble(3, step(math.nan, math.inf, **overflow), "policy")
