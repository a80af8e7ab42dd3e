"""The watch: simulated gold that stays, turns and rises, and the alarms' plain words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from random import Random
from statistics import fmean, median

import numpy as np
import pytest

from rlhf.watch import Look, alarms, best, mean_and_error, repetition, turned_down

CALM = Look(step=1, proxy=0.5, length=31, repetition=0.04, truncated=0.03, entropy=1.2, kl=0.0, format=0.95)
PROMPTS, SAMPLES = 8, 4
NOISE = math.sqrt((1 + 1 / SAMPLES) / PROMPTS)  # standard error of a simulated look: prompts and samples vary by 1 each


def look(rng: Random, step: int, gold: float, proxy: float) -> Look:
    """Gold as it would be measured: the mean over a few answers to each of a few prompts, some of them hard."""
    prompts = [rng.gauss(gold, 1) for _ in range(PROMPTS)]
    scores = [rng.gauss(prompt, 1) for prompt in prompts for _ in range(SAMPLES)]
    mean, error = mean_and_error(scores, [row // SAMPLES for row in range(len(scores))])
    return replace(CALM, step=step, proxy=proxy, gold=mean, gold_error=error)


def stop_of(rng: Random, golds: list[float], proxies: list[float], patience: int = 2) -> int | None:
    """The index of the look at which the run would have been stopped."""
    looks: list[Look] = []
    for step, (gold, proxy) in enumerate(zip(golds, proxies, strict=True)):
        looks.append(look(rng, step, gold, proxy))
        if turned_down(looks, patience):
            return step
    return None


@pytest.mark.parametrize(
    ("looks", "patience", "runs", "share"),
    [(6, 1, 300, 0.06), (10, 2, 300, 0.06), (40, 2, 120, 0.06), (40, 1, 200, 0.12)],
)
def test_gold_that_does_not_change_hardly_ever_stops_a_run(looks, patience, runs, share):
    rng = Random(0)
    stopped = [stop_of(rng, [0.0] * looks, list(range(looks)), patience) is not None for _ in range(runs)]
    assert fmean(stopped) <= share


def test_a_turn_is_found_within_few_looks_and_not_before_it():
    """Gold rises to 4 and falls again, by one standard error a look."""
    rng, top = Random(1), 12
    golds = [NOISE * (step if step <= top else 2 * top - step) for step in range(2 * top)]
    stops = [stop_of(rng, golds, list(range(2 * top))) for _ in range(60)]
    assert None not in stops
    assert min(stops) > top
    assert median(stops) <= top + 6


def test_a_fall_at_once_is_found_as_soon_as_patience_allows():
    rng = Random(2)
    golds = [0.0] * 5 + [-10.0] * 5
    for patience in (1, 2, 3):
        assert stop_of(rng, golds, list(range(10)), patience) == 4 + patience


def test_nothing_is_found_while_both_rise():
    rng = Random(3)
    rising = [0.3 * NOISE * step for step in range(30)]
    assert [stop_of(rng, rising, rising) for _ in range(100)].count(None) >= 99


def test_nothing_is_found_where_the_proxy_falls_too():
    falling = [float(-step) for step in range(30)]
    assert all(stop_of(Random(seed), falling, falling) is None for seed in range(20))


def gold_looks(*golds: float | None, error: float = 0.01) -> list[Look]:
    return [
        replace(CALM, step=step, proxy=float(step), gold=gold, gold_error=None if gold is None else error)
        for step, gold in enumerate(golds)
    ]


def test_one_low_look_is_not_enough_where_patience_asks_for_two():
    assert turned_down(gold_looks(0.5, 0.6, 0.6, 0.2), patience=2) is None
    assert turned_down(gold_looks(0.5, 0.6, 0.6, 0.2, 0.2), patience=2)
    assert turned_down(gold_looks(0.5, 0.6, 0.6, 0.2, 0.61), patience=2) is None


def test_the_verdict_tells_the_peak_and_both_rewards():
    turn = turned_down(gold_looks(0.5, 0.6, 0.62, 0.2, 0.2), patience=2)
    assert turn.peak.step == 2
    assert "from 0.610 around step 2 (KL 0.00 nats) to 0.200" in str(turn)
    assert "rose from 1.500 to 3.500" in str(turn)


def test_looks_without_gold_do_not_count():
    assert turned_down(gold_looks(0.6, 0.6, None, None, None), patience=2) is None
    assert turned_down(gold_looks(0.6, None, 0.6, 0.2, None, 0.2), patience=2)
    assert turned_down([], patience=1) is None


def test_a_drop_within_the_noise_is_no_turn():
    assert turned_down(gold_looks(0.6, 0.6, 0.5, 0.5, error=0.05), patience=2) is None
    assert turned_down(gold_looks(0.6, 0.6, 0.5, 0.5, error=0.02), patience=2)


def test_looks_that_went_through_json_decide_alike():
    rng = Random(5)
    looks = [look(rng, step, -step / 3, step) for step in range(12)]
    again = [Look(**row) for row in json.loads(json.dumps([asdict(each) for each in looks]))]
    assert again == looks
    assert all(str(turned_down(looks[:n], 2)) == str(turned_down(again[:n], 2)) for n in range(13))


def test_the_best_look_is_the_first_with_the_highest_gold():
    assert best(gold_looks(0.1, None, 0.7, 0.7, 0.2)).step == 2
    assert best(gold_looks(None)) is None


def test_the_error_is_that_of_the_means_of_prompts():
    """Of clusters of one size the formula is the textbook one over their means."""
    scores = np.random.default_rng(0).normal(size=(7, 3)) + np.arange(7)[:, None]
    mean, error = mean_and_error(scores.ravel().tolist(), np.repeat(np.arange(7), 3).tolist())
    assert mean == pytest.approx(scores.mean())
    assert error == pytest.approx(scores.mean(1).std(ddof=1) / math.sqrt(7))


def test_answers_without_a_score_are_left_out():
    scores, prompts = [1.0, math.nan, 3.0, 2.0], [0, 0, 1, 2]
    assert mean_and_error(scores, prompts) == mean_and_error([1.0, 3.0, 2.0], [0, 1, 2])
    assert mean_and_error([math.nan], [0]) == (None, None)
    assert mean_and_error([1.0, 2.0], [4, 4]) == (1.5, None)


def test_repetition_counts_sequences_that_were_there_before():
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([1, 2, 3]) == 0
    assert repetition([7] * 10) == pytest.approx(6 / 7)  # 7 sequences, one of them new
    assert repetition([1, 2, 3, 4, 9, 1, 2, 3, 4]) == pytest.approx(1 / 6)


def test_length_drift_is_told_in_plain_words():
    assert alarms([CALM, replace(CALM, length=71)]) == [
        "answers have become 2.3 times as long as at the start (31 → 71 tokens): the reward may be paying for length"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": 12.0}, "shrunk to 39% of their length at the start (31 → 12 tokens)"),
        ({"repetition": 0.5}, "50% of their 4-token sequences"),
        ({"truncated": 0.4}, "40% of the answers hit the length limit, 3% at the start"),
        ({"format": 0.6}, "60% of the answers have the wanted format, 95% at the start"),
        ({"entropy": 0.2}, "entropy has collapsed (1.20 → 0.20 nats a token)"),
        ({"entropy": 3.0}, "entropy has exploded (1.20 → 3.00 nats a token)"),
    ],
)
def test_each_drift_has_its_alarm_and_no_other(change, words):
    found = alarms([CALM, replace(CALM, **change)])
    assert len(found) == 1
    assert words in found[0]


def test_small_changes_are_no_alarm():
    near = replace(CALM, length=40, repetition=0.15, truncated=0.15, format=0.85, entropy=0.7)
    assert alarms([CALM, near, replace(CALM, length=24, entropy=2.0)]) == []
    assert alarms([CALM]) == alarms([]) == []


def test_an_alarm_is_told_when_it_begins_and_not_again():
    longer = [CALM, *(replace(CALM, length=length) for length in (60, 70, 31, 80))]
    assert [len(alarms(longer[: count + 1])) for count in range(len(longer))] == [0, 1, 0, 0, 0]


def test_an_alarm_does_not_silence_its_opposite():
    lengths = [CALM, *(replace(CALM, length=length) for length in (50, 31, 10, 50, 10))]
    told = [alarms(lengths[: count + 1]) for count in range(len(lengths))]
    assert [len(texts) for texts in told] == [0, 1, 0, 1, 0, 0]
    assert "1.6 times as long" in told[1][0] and "shrunk to 32%" in told[3][0]
    entropies = [CALM, replace(CALM, entropy=3.0), replace(CALM, entropy=0.2)]
    assert "exploded" in alarms(entropies[:2])[0] and "collapsed" in alarms(entropies)[0]


def test_twice_a_tiny_entropy_is_no_explosion():
    sure = replace(CALM, entropy=0.05)
    assert alarms([sure, replace(sure, entropy=0.3)]) == []


def test_a_format_that_is_not_measured_has_no_alarm():
    blind = replace(CALM, format=None)
    assert alarms([blind, blind]) == []
