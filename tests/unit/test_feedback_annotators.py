"""Agreement of annotators against published examples, weights of their rows, and preferences that contradict themselves."""

import json
import random
import re
from collections import Counter

import networkx
import pytest
from data_cases import rows_of, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.examples import build_examples
from data.feedback import agreement as measures
from data.feedback.agreement import Judgment, by_item, cohens_kappa, krippendorff_alpha, with_others
from data.feedback.columns import FeedbackOptions

NONE = None


def build(kind: str, *rows: dict, **options):
    return build_examples(kind, rows_of(*rows), tokenizer(), 200, FeedbackOptions(**options))


def judgments(table: dict[str, list]) -> list[Judgment]:
    """{annotator: value of each item, None = not judged}."""
    return [Judgment((n,), who, v) for who, said in table.items() for n, v in enumerate(said) if v is not None]


# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section D: four observers, twelve units
TABLE = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    "C": [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
}


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, published):
    assert krippendorff_alpha(by_item(judgments(TABLE)), level) == pytest.approx(published, abs=5e-4)


def test_alpha_of_more_values_and_items_than_fit_is_nearly_the_same(monkeypatch):
    draw = random.Random(0)
    true = [draw.gauss(0, 1) for _ in range(3000)]
    shared = by_item(judgments({who: [value + draw.gauss(0, 0.5) for value in true] for who in "AB"}))
    rough = krippendorff_alpha(shared, "interval")  # 6,000 distinct ratings: rounded
    assert rough == pytest.approx(1 / 1.25, abs=0.02)  # the variance of the truth, as a share of all variance
    monkeypatch.setattr(measures, "CELLS", 1000 * measures.LEVELS**2)
    assert krippendorff_alpha(shared, "interval") == pytest.approx(rough, abs=0.03)


def test_alpha_without_variation_or_shared_items_is_not_defined():
    assert krippendorff_alpha(by_item(judgments({"A": [1, 1], "B": [1, 1]})), "nominal") is None
    assert krippendorff_alpha(by_item(judgments({"A": [1, NONE], "B": [NONE, 2]})), "nominal") is None


def test_kappa_is_that_of_the_published_example():
    # Sim and Wright 2005 (Physical Therapy 85), table 1: 22 and 11 of 39 alike, 2 and 4 not; kappa = .67
    counts = {(1, 1): 22, (1, 0): 2, (0, 1): 4, (0, 0): 11}
    first, second = zip(*[pair for pair, count in counts.items() for _ in range(count)])
    assert cohens_kappa(first, second) == pytest.approx(0.67, abs=5e-3)
    assert cohens_kappa([1, 1], [1, 1]) is None
    assert cohens_kappa([1, 0], [0, 1]) == -1


def test_agreement_with_the_others_counts_only_where_they_have_a_majority():
    shared = by_item(judgments({"A": [1, 1, 1, 0], "B": [1, 0, 1, 0], "C": [1, 1, 0, NONE]}))
    # A: the others split on the second and the third item; it agrees on the first and the last
    assert with_others(shared, "nominal") == {"A": 1.0, "B": 2 / 3, "C": 1 / 2}
    assert with_others(by_item(judgments({"A": [0, 10], "B": [5, 10]})), "interval") == {"A": 0.75, "B": 0.75}


# through rows


def pair(better: str, worse: str, annotator: str | None = None, prompt: str = "a?") -> dict:
    return {"prompt": prompt, "chosen": better, "rejected": worse, "annotator": annotator}


def test_annotators_of_the_same_pairs_are_compared_whatever_the_order():
    prompts = [f"{n}?" for n in range(10)]
    rows = [pair("x", "y", "ann", prompt) for prompt in prompts]
    rows += [pair(*("xy" if n < 8 else "yx"), "bob", prompt) for n, prompt in enumerate(prompts)]
    report = build("preference", *rows).report
    found = report.agreement
    assert (found["annotators"], found["items"]) == (2, 10)
    assert found["with_others"] == {"ann": 0.8, "bob": 0.8}
    assert list(found["kappa"]) == ["ann, bob"]
    assert json.loads(json.dumps(report.as_dict()))["agreement"] == found
    assert "agreement of 2 annotators" in str(report)
    assert any("2 pairs of answers judged both ways" in warning for warning in report.warnings)


def test_ranks_are_ordinal_ratings_are_of_intervals_and_thumbs_are_names():
    values = {who: said for who, said in TABLE.items()}
    rated = [
        {"prompt": f"{n}?", "response": "x", "rating": value, "annotator": who}
        for who, said in values.items() for n, value in enumerate(said) if value is not None
    ]  # fmt: skip
    assert build("rating", *rated).report.agreement["alpha"] == pytest.approx(0.849, abs=5e-4)
    assert "kappa" not in build("rating", *rated).report.agreement
    thumbs = [row | {"label": row["rating"] > 2} for row in rated]
    named = krippendorff_alpha(
        by_item(judgments({who: [None if v is None else v > 2 for v in said] for who, said in values.items()})),
        "nominal",
    )
    assert build("thumbs", *thumbs).report.agreement["alpha"] == pytest.approx(named, abs=5e-5)
    ranked = [
        {"prompt": f"{n}?", "responses": list("abc"), "ranks": ranks, "annotator": who}
        for n in range(4) for who, ranks in (("ann", [1, 2, 3]), ("bob", [1, 3, 2] if n else [1, 2, 3]))
    ]  # fmt: skip
    by_rank = {"ann": [1, 2, 3] * 4, "bob": [1, 2, 3] + [1, 3, 2] * 3}
    ordinal = krippendorff_alpha(by_item(judgments(by_rank)), "ordinal")
    assert build("ranking", *ranked).report.agreement["alpha"] == pytest.approx(ordinal, abs=5e-5)


def test_steps_are_judged_one_by_one():
    row = {"prompt": "a", "steps": ["x", "y"], "labels": [1, 0], "annotator": "ann"}
    found = build("steps", row, row | {"labels": [1, 1], "annotator": "bob"}).report.agreement
    assert (found["items"], found["with_others"]) == (2, {"ann": 0.5, "bob": 0.5})


def test_one_annotator_or_none_is_no_agreement():
    assert build("preference", pair("x", "y")).report.agreement == {}
    found = build("preference", pair("x", "y", "ann"), pair("x", "y", "ann")).report
    assert found.agreement == {"annotators": 1, "items": 0, "kappa": {}, "with_others": {}}
    assert found.warnings == []


def test_annotators_of_rankings_who_hardly_agree_are_told_by_alpha_alone():
    ranked = [
        {"prompt": f"{n}?", "responses": list("abc"), "ranks": ranks, "annotator": who}
        for n in range(4) for who, ranks in (("ann", [1, 2, 3]), ("bob", [3, 2, 1]))
    ]  # fmt: skip
    [warning] = [text for text in build("ranking", *ranked).report.warnings if "hardly agree" in text]
    assert re.search(r"alpha is -\d\.\d\d, below 0\.667", warning)
    assert "items" not in warning  # those of the report are pairs of answers, alpha's are the answers' places


# weights


def test_weights_by_name_have_a_mean_of_one_and_rows_of_nobody_count_as_one():
    rows = [pair("x", "y", "ann", "1?"), pair("x", "y", "bob", "2?"), pair("x", "y", None, "3?")]
    batch = build("preference", *rows, annotators={"ann": 3, "bob": 0.5}).batch([0, 1, 2])
    assert batch.weights.tolist() == pytest.approx([2, 2, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert "weights" not in build("preference", *rows).batch([0])


def test_weights_by_agreement_favour_who_agrees():
    rows = [pair("x", "y", who, f"{n}?") for n in range(4) for who in ("ann", "bob", "cid")]
    rows += [pair(*("yx" if n < 3 else "xy"), "dan", f"{n}?") for n in range(4)]
    rows += [pair("x", "y", "eve", "alone?")]
    examples = build("preference", *rows, annotators="agreement")
    weight = {row["annotator"]: w for row, w in zip(examples.meta, examples.columns["weights"])}
    assert weight["dan"] / weight["ann"] == pytest.approx(0.25)
    assert weight["eve"] / weight["ann"] == pytest.approx((3 + 0.25) / 4)
    assert examples.columns["weights"].mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("annotators", "expected"),
    [
        ({"anne": 1}, "no row is of the annotator 'anne'; did you mean 'ann'?"),
        ({"zoe": 1}, "no row is of the annotator 'zoe'; there are ann"),
        ({"ann": 0}, "the weights of all annotators are 0"),
        ("agreement", "annotators: agreement needs answers that several annotators judged"),
    ],
)
def test_weights_that_cannot_be_are_refused(annotators, expected):
    with pytest.raises(UserError) as error:
        build("preference", pair("x", "y", "ann"), annotators=annotators)
    assert expected in str(error.value)


def test_an_item_of_several_annotators_is_never_on_both_sides_of_a_split():
    rows = [pair("x", "y", who, f"{n}?") for n in range(6) for who in ("ann", "bob")]
    train, held_out = build("preference", *rows).split(3, seed=0)
    sides = [{each.rows(unit)[0].meta["row"] // 2 for unit in range(len(each))} for each in (train, held_out)]
    assert not sides[0] & sides[1]
    assert (len(train), len(held_out)) == (8, 4)


# contradictions


def test_a_cycle_is_named_with_its_rows():
    rows = [pair("u", "v", prompt="fine?"), pair("x", "y"), pair("y", "z"), pair("z", "x"), pair("z", "w")]
    [warning] = build("preference", *rows).report.warnings
    assert warning.startswith("1 prompt with contradictory preferences, e.g. rows 2, 3, 4, 5: A > B > C > A")


def test_a_cycle_across_rankings_is_found_and_one_row_alone_has_none():
    assert build("ranking", {"prompt": "a", "responses": list("xyzw")}).report.warnings == []
    rows = [{"prompt": "a", "responses": list(order)} for order in ("xyz", "yzx", "zxy")]
    found = build("ranking", *rows).report.warnings
    assert len(found) == 2  # each two answers were judged both ways, and the majority goes round
    assert "3 pairs of answers judged both ways, e.g. in rows 1, 2, 3" in found[0]
    assert found[1].endswith("A > B > C > A")


def test_a_pair_judged_both_ways_is_no_cycle_and_other_prompts_do_not_matter():
    rows = [pair("x", "y"), pair("y", "x"), pair("y", "z"), pair("z", "x", prompt="b?")]
    assert build("preference", *rows).report.warnings == ["1 pair of answers judged both ways, e.g. in rows 1, 2, 3"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.permutations("wxyz").map(lambda order: order[:2]), min_size=1, max_size=9))
def test_a_cycle_is_told_just_where_the_majority_has_one(said):
    votes = Counter(map(tuple, said))
    majority = [(a, b) for a, b in votes if votes[a, b] > votes[b, a]]
    warnings = build("preference", *(pair(better, worse) for better, worse in said)).report.warnings
    told = any("contradictory" in warning for warning in warnings)
    assert told == (not networkx.is_directed_acyclic_graph(networkx.DiGraph(majority)))
    both = len({frozenset(pair) for pair in votes if pair[::-1] in votes})
    assert any(f"{both} pair" in warning for warning in warnings) == bool(both)
