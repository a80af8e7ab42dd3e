"""Labels of a judge over samples: the pairs, the rows, and their agreement with gold."""

import pytest
from judge_stub import always_first, judge, longer, prompt, samples, serving

from data.errors import UserError
from rlhf.phases import label
from rlhf.phases.label import compare, counts, figures, row_of


def length(sample) -> float:
    return len(sample.text)


def shortness(sample) -> float:
    return -len(sample.text)


def test_a_right_judge_labels_and_agrees_with_gold():
    asked = [*samples(prompt(0), "short", "long answer"), *samples(prompt(1), "a long answer", "short")]
    with serving(longer) as (_, url):
        judged = compare(judge(url), asked)
    assert [(each.preference[0].text, each.preference[1].text) for each in judged] == [
        ("long answer", "short"),
        ("a long answer", "short"),
    ]
    found = figures(counts(judged, length))
    assert found["pairs"] == found["rows"] == 2 and found["labelled"] == 1
    assert found["agreement"] == found["agreement_before_swap"] == 1
    assert figures(counts(judged, shortness))["agreement"] == 0


def test_a_judge_that_follows_the_position_labels_nothing():
    asked = [*samples(prompt(0), "short", "long answer"), *samples(prompt(1), "a long answer", "short")]
    with serving(always_first) as (_, url):
        judged = compare(judge(url), asked)
    found = figures(counts(judged, length))
    assert found["rows"] == 0 and found["position_bound"] == 1
    assert found["agreement_before_swap"] == 0.5 and "agreement" not in found


def test_the_swap_raises_the_agreement_of_a_judge_that_leans_to_the_first():
    def leans(question):
        _, first, second = question.split("|")
        return "A" if len(first) + 3 >= len(second) else "B"

    texts = [("a", "bb"), ("bb", "a"), ("a", "bbbbbb"), ("bbbbbb", "a")]
    asked = [sample for row, pair in enumerate(texts) for sample in samples(prompt(row), *pair)]
    with serving(leans) as (_, url):
        model = judge(url)
        found = figures(counts(compare(model, asked), length))
        assert model.metrics()["first_position"] == 0.75
    assert found["agreement_before_swap"] == 0.75 and found["agreement"] == 1
    assert found["labelled"] == found["position_bound"] == 0.5


def test_without_a_swap_there_is_no_agreement_before_it():
    asked = samples(prompt(0), "1", "3")
    ways = {"pairwise": ({"swap": False}, "A"), "pointwise": ({"kind": "pointwise"}, None)}
    for settings, verdict in ways.values():
        with serving(lambda question, verdict=verdict: verdict or question.split("|")[1]) as (_, url):
            found = figures(counts(compare(judge(url, **settings), asked), lambda sample: float(sample.text)))
        assert found["agreement"] in (0, 1) and "agreement_before_swap" not in found


def test_prompts_are_read_before_a_judges_server_starts(monkeypatch):
    class Context:
        phase = None

        @property
        def judge(self):
            raise AssertionError("started")

    def broken(context):
        raise UserError("line 3 is no JSON")

    monkeypatch.setattr(label, "read_prompts", broken)
    with pytest.raises(UserError, match="line 3"):
        label.run(Context())


def test_empty_and_truncated_answers_take_no_part():
    asked = [
        *samples(prompt(0), " ", "something"),
        *samples(prompt(1), "aa", "b", truncated=True),
        *samples(prompt(2), "aa", "b"),
    ]
    with serving(longer) as (stub, url):
        judged = compare(judge(url), asked)
    assert [each.first.prompt.row for each in judged] == [2] and len(stub.requests) == 2


def test_ratings_pair_the_best_with_the_worst_and_give_a_margin():
    asked = [*samples(prompt(0), "7", "2", "9"), *samples(prompt(1), "4", "4"), *samples(prompt(2), "what", "5")]
    with serving(lambda question: question.split("|")[1]) as (_, url):
        model = judge(url, kind="pointwise")
        judged = compare(model, asked)
        row = row_of(model, judged[0])
    assert [each.outcome for each in judged] == ["first", "tie", "unanswered"]
    assert row == {
        "prompt": [{"role": "user", "content": "question 0"}],
        "chosen": "9",
        "rejected": "2",
        "annotator": "judge",
        "margin": pytest.approx(0.7),
    }


def test_a_row_names_its_principle():
    with serving(lambda question: longer(question.rsplit("|", 1)[0])) as (_, url):
        model = judge(url, principles=["be long"], template="{prompt}|{first}|{second}|{principle}")
        (judged,) = compare(model, samples(prompt(0), "a", "bb"))
    row = row_of(model, judged)
    assert row["principle"] == "be long" and row["chosen"] == "bb" and "margin" not in row
