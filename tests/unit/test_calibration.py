"""The calibration report: a worked example, models whose calibration is known, and numpy's and torch's own statistics."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit

from rlhf.reports import calibration
from rlhf.reports.calibration_plot import draw


def logit(probability):
    return float(np.log(probability / (1 - probability)))


def test_expected_calibration_error_worked_out_by_hand():
    # (0.50, 0.55]: one, wrong, at 0.55. (0.70, 0.75]: two at 0.72 and 0.74, one right. (0.95, 1]: one, right, at 0.97
    confidence, right = np.array([0.55, 0.72, 0.74, 0.97]), np.array([0.0, 1.0, 0.0, 1.0])
    bins = calibration.reliability(confidence, right)
    assert [(round(part["from"], 2), part["count"]) for part in bins] == [(0.5, 1), (0.7, 2), (0.95, 1)]
    assert [part["accuracy"] for part in bins] == [0, 0.5, 1]
    wanted = (1 * 0.55 + 2 * (0.73 - 0.5) + 1 * 0.03) / 4
    assert calibration.expected_calibration_error(bins) == pytest.approx(wanted)


def bradley_terry(pairs, scale=1.0, seed=0):
    """Pairs whose better answer is drawn from the scores themselves, and these scores times `scale`."""
    draw_ = np.random.default_rng(seed)
    scores = draw_.normal(0, 1.5, (pairs, 2))
    first_is_better = draw_.random(pairs) < expit(scores[:, 0] - scores[:, 1])
    ranks = np.where(first_is_better[:, None], [[1, 2]], [[2, 1]])
    lengths = draw_.integers(5, 50, 2 * pairs)
    return scale * scores.ravel(), lengths, ranks.ravel(), np.repeat(np.arange(pairs), 2)


def test_a_model_that_the_labels_are_drawn_from_is_calibrated():
    report = calibration.of_comparisons(*bradley_terry(20_000))
    assert report["ece"] < 0.015
    for part in report["reliability"]:
        assert part["accuracy"] == pytest.approx(part["confidence"], abs=4 / part["count"] ** 0.5)
    assert report["accuracy"] == pytest.approx(np.mean([part["confidence"] for part in each(report)]), abs=0.01)
    assert abs(report["length_correlation"]) < 0.02


def each(report):
    return [part for part in report["reliability"] for _ in range(part["count"])]


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_a_model_that_is_too_sure_or_not_sure_enough_is_not(scale):
    report = calibration.of_comparisons(*bradley_terry(5_000, scale))
    assert report["ece"] > 0.08
    gap = sum(part["count"] * (part["confidence"] - part["accuracy"]) for part in report["reliability"])
    assert (gap > 0) == (scale > 1)
    assert report["accuracy"] == calibration.of_comparisons(*bradley_terry(5_000))["accuracy"]


def test_labels_drawn_from_their_logits_are_calibrated():
    draw_ = np.random.default_rng(1)
    logits = draw_.normal(0, 2, 20_000)
    labels = (draw_.random(20_000) < expit(logits)).astype(float)
    for report in (calibration.of_steps(logits, labels), calibration.of_questions(logits, labels)):
        assert report["ece"] < 0.015
        assert report["good"] == pytest.approx(0.5, abs=0.02)
    assert calibration.of_steps(2 * logits, labels)["ece"] > 0.05


def test_shares_of_annotators_make_accuracy_their_agreement():
    report = calibration.of_labels([1.0, -1.0, 2.0], [0.75, 0.25, 0.0], [3, 4, 5])
    assert report["accuracy"] == pytest.approx((0.75 + 0.75 + 0.0) / 3)


def test_comparisons_worked_out_by_hand():
    # a ranking of three and a pair that is tied; lengths in tokens
    scores, lengths, ranks, groups = [3.0, 1.0, 2.0, 9.0, 8.0], [5, 9, 7, 1, 1], [1, 2, 3, 1, 1], [0, 0, 0, 4, 4]
    report = calibration.of_comparisons(scores, lengths, ranks, groups)
    assert (report["rows"], report["pairs"], report["ties"]) == (5, 3, 1)
    assert report["accuracy"] == pytest.approx(2 / 3)  # 3 > 1, 3 > 2, but not 1 > 2
    assert report["accuracy_when_chosen_is_shorter"] == 1
    assert report["accuracy_when_chosen_is_longer"] == 0
    assert report["chosen_is_shorter"] == pytest.approx(2 / 3)
    assert sum(report["scores"]["chosen"]) == 1 and sum(report["scores"]["rejected"]) == 2


def test_pairs_are_found_whatever_the_order_of_rows():
    scores, lengths, ranks, groups = bradley_terry(200)
    order = np.random.default_rng(2).permutation(400)
    one = calibration.of_comparisons(scores, lengths, ranks, groups)
    other = calibration.of_comparisons(*(np.asarray(values)[order] for values in (scores, lengths, ranks, groups)))
    assert one.keys() == other.keys()
    for name in ("accuracy", "ece", "length_correlation", "accuracy_when_chosen_is_shorter"):
        assert one[name] == pytest.approx(other[name])


def test_correlations_are_those_of_torch_and_of_argsorted_ranks():
    draw_ = np.random.default_rng(3)
    one, other = draw_.normal(size=50), draw_.normal(size=50)
    other += one**3
    wanted = torch.corrcoef(torch.tensor(np.stack([one, other])))[0, 1].item()
    assert calibration.pearson(one, other) == pytest.approx(wanted)
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (one, other)]
    wanted = torch.corrcoef(torch.stack(ranks))[0, 1].item()
    assert calibration.spearman(one, other) == pytest.approx(wanted)
    assert calibration.spearman(one, np.exp(one)) == pytest.approx(1)
    # ties share a rank: 1.5, 1.5, 3, 4 and 1, 2, 3.5, 3.5
    wanted = np.corrcoef([1.5, 1.5, 3, 4], [1, 2, 3.5, 3.5])[0, 1]
    assert calibration.spearman(np.array([5.0, 5, 6, 7]), np.array([0.0, 1, 2, 2])) == pytest.approx(wanted)


def test_a_model_that_likes_length_is_seen():
    _, lengths, ranks, groups = bradley_terry(2_000)
    report = calibration.of_comparisons(lengths / 10, lengths, ranks, groups)
    assert report["length_correlation"] == pytest.approx(1)
    assert report["accuracy_when_chosen_is_shorter"] == 0
    assert report["accuracy_when_chosen_is_longer"] == 1
    means = [part["mean"] for part in report["by_length_difference"]]
    assert means == sorted(means) and means[0] == 0 and means[-1] == 1


def test_ratings_worked_out_by_hand():
    report = calibration.of_ratings([1.0, 2.5, 4.0], [1.0, 2.0, 6.0], [10, 20, 30])
    assert report["mae"] == pytest.approx(2.5 / 3)
    assert report["mae_of_the_mean"] == pytest.approx(2.0)  # their mean is 3
    assert report["rating_correlation"] == pytest.approx(np.corrcoef([1, 2.5, 4], [1, 2, 6])[0, 1])
    assert report["rating_rank_correlation"] == pytest.approx(1)
    assert calibration.headline(report).keys() == {"mae", "rating_correlation", "length_correlation"}


def test_parts_of_equal_size_hold_all_values_and_equal_keys_share_one():
    keys = np.array([1.0, 1, 1, 1, 2, 3, 4, 5, 6, 7])
    parts = calibration.by_quantile(keys, keys)
    assert sum(part["count"] for part in parts) == 10
    assert parts[0]["count"] >= 4 and parts[0]["from"] == 1
    assert all(before["to"] < after["from"] for before, after in pairwise(parts))
    [all_alike] = calibration.by_quantile(np.full(7, 2.0), np.arange(7.0))
    assert (all_alike["count"], all_alike["mean"]) == (7, 3)


def test_of_a_few_distinct_keys_each_is_a_part():
    report = calibration.of_ratings([0.1, 0.2, 0.6, 1.0], [0, 0, 1, 1], [3, 4, 5, 6])
    parts = [(part["from"], part["to"], part["count"], part["mean"]) for part in report["by_rating"]]
    assert parts == [(0, 0, 2, pytest.approx(0.15)), (1, 1, 2, pytest.approx(0.8))]
    five = calibration.by_quantile(np.repeat(np.arange(5.0), [1, 1, 1, 1, 96]), np.arange(100.0))
    assert [part["count"] for part in five] == [1, 1, 1, 1, 96]


def test_the_largest_key_is_a_part_where_it_is_that_of_many():
    keys = np.concatenate([np.arange(10.0), np.full(30, 10.0)])
    parts = calibration.by_quantile(keys, keys)
    assert [part["mean"] for part in parts if part["to"] == 10] == [10]
    assert sum(part["count"] for part in parts) == 40


@pytest.mark.parametrize(
    ("report", "undefined"),
    [
        (calibration.of_comparisons([1.0, 1.0], [3, 3], [1, 1], [0, 0]), {"accuracy", "ece", "length_correlation"}),
        (calibration.of_ratings([1.0], [2.0], [3]), {"rating_correlation", "length_correlation"}),
        (calibration.of_labels([1.0], [1.0], [3]), {"length_correlation"}),
    ],
)
def test_what_is_not_defined_is_none_and_no_headline(report, undefined, tmp_path):
    assert {name for name in undefined if report[name] is None} == undefined
    assert not undefined & calibration.headline(report).keys()
    assert "nan" not in json.dumps(report).lower()
    draw(report, tmp_path / "calibration.png")


def every_kind():
    draw_ = np.random.default_rng(4)
    logits, lengths = draw_.normal(size=300), draw_.integers(5, 60, 300)
    labels = (logits + draw_.normal(size=300) > 0).astype(float)
    return [
        calibration.of_comparisons(*bradley_terry(300)),
        calibration.of_labels(logits, labels, lengths),
        calibration.of_steps(logits, labels),
        calibration.of_questions(logits, labels),
        calibration.of_ratings(logits, logits + labels, lengths),
    ]


@pytest.mark.parametrize("report", every_kind(), ids=lambda report: report["kind"])
def test_every_kind_of_report_is_drawn_and_told(report, tmp_path):
    draw(report, tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(report)) == report
    line = calibration.in_a_line(report)
    assert "300 held-out" in line and "\n" not in line
    assert f"{report['mae' if report['kind'] == 'ratings' else 'accuracy']:.2f}" in line
