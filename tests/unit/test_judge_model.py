"""Preferences and rewards of a judge: position swap, ties, rings of samples, statistics."""

import math

import pytest
from judge_stub import KEY, always_first, judge, longer, prompt, samples, serving

from data.errors import UserError
from rlhf.config.rewards import Judge
from rlhf.interfaces import Served
from rlhf.judge.client import Client
from rlhf.judge.judge import Comparison, JudgeModel, decide, ring

PAIRS = [("long answer", "short"), ("short", "long answer"), ("same size", "size same"), ("equal", "equal")]


def comparisons(pairs=PAIRS):
    return [Comparison(prompt(row), *pair) for row, pair in enumerate(pairs)]


def test_a_right_judge_is_followed_in_both_orders():
    with serving(longer) as (stub, url):
        asked = judge(url)
        assert [decision.outcome for decision in asked.compare(comparisons())] == ["first", "second", "tie", "tie"]
        assert len(stub.requests) == 6  # equal answers are not asked about
        figures = asked.metrics()
    assert figures["asked"] == 6 and figures["malformed"] == figures["failed"] == 0
    assert figures["first_position"] == 0.5 and figures["consistency"] == 1.0


def test_a_judge_that_follows_the_position_prefers_nothing():
    with serving(always_first) as (_, url):
        asked = judge(url)
        decisions = asked.compare(comparisons(PAIRS[:3]))
        assert {decision.outcome for decision in decisions} == {"position_bound"}
        assert {(decision.straight, decision.swapped) for decision in decisions} == {("first", "second")}
        assert asked.metrics()["first_position"] == 1.0 and asked.metrics()["consistency"] == 0.0


def test_without_the_swap_the_first_order_decides():
    with serving(always_first) as (stub, url):
        asked = judge(url, swap=False)
        assert [decision.outcome for decision in asked.compare(comparisons(PAIRS[:3]))] == ["first"] * 3
        assert len(stub.requests) == 3 and "consistency" not in asked.metrics()


@pytest.mark.parametrize(
    ("straight", "swapped", "outcome"),
    [
        ("first", "first", "first"),
        ("second", "second", "second"),
        ("first", "second", "position_bound"),
        ("tie", "first", "tie"),
        ("tie", "tie", "tie"),
        ("first", None, "unanswered"),
        (None, "tie", "unanswered"),
    ],
)
def test_what_two_orders_make_together(straight, swapped, outcome):
    assert decide(straight, swapped).outcome == outcome


def test_words_that_are_no_verdict_and_failures_are_counted_apart():
    def broken(question):
        if question.startswith("question 0"):
            return "both have their charm"
        return (500, {"error": {"message": "oops"}}) if question.startswith("question 1") else longer(question)

    with serving(broken) as (_, url):
        asked = judge(url, retries=0)
        outcomes = [decision.outcome for decision in asked.compare(comparisons(PAIRS[:2] + PAIRS[:1]))]
        figures = asked.metrics()
    assert outcomes == ["unanswered", "unanswered", "first"]
    assert figures["asked"] == 6 and figures["malformed"] == 2
    assert figures["failed"] == figures["failed/status_500"] == 2


def test_a_judge_that_answers_nothing_at_all_ends_the_run_and_says_why():
    down = serving(lambda _: (500, {"error": {"message": "out of memory"}}))
    told = r"none of 12 questions \(12 status_500; the last: .*out of memory"
    with down as (_, url), pytest.raises(UserError, match=told):
        judge(url, retries=0).compare(comparisons(PAIRS[:2] * 3))


def test_a_served_judge_that_answers_nothing_is_not_looked_for_at_a_url():
    with serving(lambda _: (500, {"error": {"message": "oops"}})) as (_, url):
        settings = Judge(model="phase:judge", retries=0)
        with pytest.raises(UserError) as error:
            JudgeModel(settings, Client(Served(url, "judge", KEY), settings), 0).compare(comparisons(PAIRS[:2] * 3))
        assert "judge.url" not in str(error.value) and "judge.timeout_s" in str(error.value)
        with pytest.raises(UserError, match=r"judge\.url is up"):
            judge(url, retries=0).compare(comparisons(PAIRS[:2] * 3))


def test_the_constitution_is_named_in_every_question_and_both_orders_share_it():
    principles = ["be kind", "be brief", "be true"]
    with serving(lambda _: "A") as (stub, url):
        asked = judge(url, principles=principles, template="{principle}|{prompt}|{first}|{second}")
        asked.compare(comparisons(PAIRS[:2] * 10))
        named = {}
        for body in stub.requests:
            principle, request, *_ = body["messages"][0]["content"].split("|")
            named.setdefault(request, []).append(principle)
    assert all(len(each) == 2 and len(set(each)) == 1 for each in named.values())
    assert {each[0] for each in named.values()} == set(principles)


def test_ratings_become_shares_of_the_best_and_no_rating_is_nan():
    replies = {"good": "8", "bad": "2/10", "odd": "eight"}
    with serving(lambda question: replies[question.split("|")[1]]) as (_, url):
        asked = judge(url, kind="pointwise")
        scores = asked.score(samples(prompt(0), "good", "bad", "odd"))
        assert scores[:2] == [0.8, 0.2] and math.isnan(scores[2])
        assert asked.metrics()["malformed"] == 1


def test_a_pairwise_score_is_the_share_of_wins_in_the_ring():
    with serving(longer) as (stub, url):
        three = samples(prompt(0), "a", "bbb", "cc")  # a < bbb, bbb > cc, cc > a
        two = samples(prompt(1), "aa", "b")
        assert judge(url).score([*three, *two]) == [0.0, 1.0, 0.5, 1.0, 0.0]
        assert len(stub.requests) == 2 * (3 + 1)


def test_a_position_bound_verdict_and_equal_answers_score_a_half():
    with serving(always_first) as (_, url):
        assert judge(url).score(samples(prompt(0), "aa", "b")) == [0.5, 0.5]
        assert judge(url).score(samples(prompt(0), "same", "same")) == [0.5, 0.5]


def test_a_sample_without_a_verdict_scores_nan():
    def hates_c(question):
        return "hm" if "c" in question.split("|")[1:] else longer(question)

    with serving(hates_c) as (_, url):
        scores = judge(url).score([*samples(prompt(0), "aa", "b"), *samples(prompt(1), "c", "dd")])
    assert scores[:2] == [1.0, 0.0] and all(map(math.isnan, scores[2:]))


def test_a_ring_stays_within_the_prompt_and_wants_two_samples():
    first, second = prompt(0), prompt(1)
    mixed = [*samples(first, "a", "b"), *samples(second, "c", "d", "e"), *samples(prompt(2), "f", "g", "h", "i")]
    assert ring(mixed) == [(0, 1), (2, 3), (3, 4), (4, 2), (5, 6), (6, 7), (7, 8), (8, 5)]
    with pytest.raises(UserError, match=r"row 7 has one: set sampling\.samples to at least 2"):
        ring(samples(prompt(7), "alone"))
