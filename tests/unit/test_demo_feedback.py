"""The demo's other feedback: rankings, ratings, pairs of one good, and pairs with wrong labels."""

import pytest

from data.demo import feedback, tasks
from data.demo.gold import FORMS, HELPFUL, SAFE, WEIGHTS, judge
from data.errors import UserError


def asked(prompt):
    """The request, read from its words alone."""
    words = prompt.rstrip(".").split()
    kind = next(word for word in words if word in FORMS)
    name = next(word for word in words if word in tasks.PEOPLE)
    animal = next(word for word in words if word in tasks.ANIMALS)
    return {"kind": kind, "name": name, "animal": animal, "place": words[-1]}


def test_the_two_goods_share_the_qualities_without_rest():
    assert sorted(HELPFUL + SAFE) == sorted(WEIGHTS)


def test_ranks_follow_gold_and_equal_gold_is_a_tie():
    for row in feedback.rankings(rows=100):
        golds = [judge(answer, **asked(row["prompt"])) for answer in row["responses"]]
        for first in range(4):
            for second in range(4):
                assert (row["ranks"][first] < row["ranks"][second]) == (golds[first] > golds[second])
        assert min(row["ranks"]) == 1


def test_a_rating_s_goods_weigh_up_to_gold():
    shares = [sum(WEIGHTS[name] for name in names) for names in (HELPFUL, SAFE)]
    for row in feedback.ratings(rows=100):
        rating = shares[0] * row["rating"]["helpful"] + shares[1] * row["rating"]["safe"]
        assert rating == pytest.approx(judge(row["response"], **asked(row["prompt"])))


def test_pairs_of_a_good_differ_in_it_and_do_not_follow_gold_always():
    agree = 0
    for row in feedback.pairs_of("safe", rows=200):
        golds = [judge(row[column], **asked(row["prompt"])) for column in ("chosen", "rejected")]
        agree += golds[0] > golds[1]
    assert 100 < agree < 200


def test_an_unknown_good_is_named():
    with pytest.raises(UserError, match="good 'honest'; use one of helpful, safe"):
        next(feedback.pairs_of("honest", rows=1))


def test_noisy_pairs_are_the_demo_s_with_the_share_exchanged():
    clean, noisy = list(tasks.pairs(2000)), list(feedback.noisy_pairs(2000, wrong=0.3))
    exchanged = [mine["chosen"] == other["rejected"] for mine, other in zip(clean, noisy)]
    assert 0.27 < sum(exchanged) / 2000 < 0.33
    assert all(
        {mine["chosen"], mine["rejected"]} == {other["chosen"], other["rejected"]} for mine, other in zip(clean, noisy)
    )
