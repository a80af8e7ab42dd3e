"""Rankings, ratings, pairs with extra columns, verdicts and questions give the rows and columns that their losses read."""

import math
import re
from itertools import combinations

import pytest
from data_cases import assistant, rows_of, shared_file, tokenizer, user
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.examples import build_examples
from data.feedback.columns import FeedbackOptions, conversion_of
from data.feedback.single_answers import question_batch, rule_question
from data.messages import number_in
from data.sample import Prompt, Sample
from data.sources import open_rows

ASK = {"prompt": "2 + 3?"}
PAIR = ASK | {"chosen": "5", "rejected": "6"}


def build(kind: str, *rows: dict, max_length: int = 200, **options):
    return build_examples(kind, rows_of(*rows), tokenizer(), max_length, FeedbackOptions(**options))


def units(examples, *columns: str) -> list[list[tuple]]:
    """Of each unit's rows the answer, without its end, and these columns."""
    return [
        [
            (
                tokenizer().decode(row.tokens[row.mask]).removesuffix("<|im_end|>"),
                *(round(row.columns[c], 5) for c in columns),
            )
            for row in examples.rows(unit)
        ]
        for unit in range(len(examples))
    ]


# pairs


def test_a_pair_tells_its_margin():
    examples = build("preference", PAIR | {"margin": 2.5}, PAIR | {"margin": None})
    assert units(examples, "ranks", "margins") == [
        [("5", 1, 2.5), ("6", 2, 2.5)],
        [("5", 1, 0), ("6", 2, 0)],
    ]
    assert examples.report.converted == ""


def test_a_tie_is_dropped_unless_ties_are_kept():
    rows = [PAIR, PAIR | {"prompt": "5?", "tie": True}]
    dropping, keeping = build("preference", *rows), build("preference", *rows, ties=True)
    assert dropping.report.dropped == {"without a better answer": 1}
    assert units(dropping, "ranks") == [[("5", 1), ("6", 2)]]
    assert units(keeping, "ranks") == [[("5", 1), ("6", 2)], [("5", 1), ("6", 1)]]
    assert units(build("ranking", *rows, ties=True), "ranks") == units(keeping, "ranks")


# rankings of K answers

FOUR = ASK | {"responses": ["c", "a", "d", "b"], "ranks": [3, 1, 3, 2]}


def test_a_ranking_is_one_unit_with_the_best_answer_first():
    examples = build("ranking", FOUR)
    assert units(examples, "ranks")[0] == [("a", 1), ("b", 2), ("c", 3), ("d", 3)]
    assert examples.rows_of_largest_unit == 4


def test_units_of_different_sizes_lie_adjacent_and_share_a_group():
    examples = build("ranking", ASK | {"responses": ["a", "b", "c"]}, {"prompt": "?", "responses": ["d", "e"]})
    batch = examples.batch([1, 0]).validate()
    assert batch.group_ids.tolist() == [0, 0, 1, 1, 1]
    assert batch.ranks.tolist() == [1, 2, 1, 2, 3]
    assert [row["row"] for row in batch.meta] == [1, 1, 0, 0, 0]
    answers = [tokenizer().decode(tokens[mask]) for tokens, mask in zip(batch.tokens, batch.action_mask)]
    assert answers == [f"{letter}<|im_end|>" for letter in "deabc"]
    assert [examples.batch([unit]).ranks.tolist() for unit in (0, 1)] == [[1, 2, 3], [1, 2]]


@pytest.mark.parametrize(
    "row",
    [
        {"responses": ["a", "b", "c"]},
        {"responses": ["c", "b", "a"], "ranks": [9, 2.5, 1]},
        {"responses": ["c", "b", "a"], "ratings": [-1, 0, 7.5]},
        {"responses": ["c", "b", "a"], "ratings": [{"x": 1, "y": 1}, {"x": 3, "y": 0}, {"x": 0, "y": 4}]},
        {"responses": [[assistant("a")], [user("2 + 3?"), assistant("b")], "c"]},
    ],
)
def test_the_forms_of_a_ranking_are_the_same_unit(row):
    assert units(build("ranking", ASK | row), "ranks") == [[("a", 1), ("b", 2), ("c", 3)]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=6).filter(lambda ranks: len(set(ranks)) > 1), st.booleans())
def test_a_ranking_becomes_all_pairs_of_unequal_rank_and_with_ties_all_pairs(ranks, ties):
    names = "abcdef"[: len(ranks)]
    found = units(build("preference", ASK | {"responses": list(names), "ranks": ranks}, ties=ties), "ranks")
    rank_of = dict(zip(names, ranks))
    assert len(found) == len({frozenset((one[0], other[0])) for one, other in found})
    expected = {frozenset(pair) for pair in combinations(names, 2) if ties or rank_of[pair[0]] != rank_of[pair[1]]}
    assert {frozenset((one[0], other[0])) for one, other in found} == expected
    for (better, first), (worse, second) in found:
        assert rank_of[better] <= rank_of[worse]
        assert (first, second) == ((1, 1) if rank_of[better] == rank_of[worse] else (1, 2))


def test_rankings_into_pairs_are_counted_and_named():
    examples = build("preference", FOUR, FOUR | {"prompt": "?"})
    assert examples.report.converted == "2 rankings into 10 pairs"
    assert "2 rankings into 10 pairs" in str(examples.report)
    assert examples.report.as_dict()["converted"] == "2 rankings into 10 pairs"


def test_ratings_become_pairs_whose_margin_is_the_difference():
    row = ASK | {"responses": ["a", "b", "c"], "ratings": [1, 4.5, 1]}
    assert units(build("preference", row), "margins") == [[("b", 3.5), ("a", 3.5)], [("b", 3.5), ("c", 3.5)]]
    assert units(build("preference", row, ties=True), "ranks", "margins")[-1] == [("a", 1, 0), ("c", 1, 0)]


@pytest.mark.parametrize(
    "column", [{"correct": [False, True, True, 0]}, {"answer": "so\n#### 1,000"}, {"answer": 1000}]
)
def test_every_right_answer_is_better_than_every_wrong_one_and_none_is_tied(column):
    row = ASK | {"responses": ["it is 999", "it is 1000.0", "$1,000", "-1000"]} | column
    wins = [(one, other) for (one,), (other,) in units(build("preference", row, ties=True))]
    right, wrong = ("it is 1000.0", "$1,000"), ("it is 999", "-1000")
    assert wins == [(one, other) for one in right for other in wrong]
    assert [rank for _, rank in units(build("ranking", row), "ranks")[0]] == [1, 1, 2, 2]


def test_unusable_answers_are_left_out_of_a_ranking_and_a_ranking_without_two_is_dropped():
    long = "long " * 100
    examples = build(
        "ranking",
        ASK | {"responses": ["a", " ", "b", long], "ranks": [1, 2, 3, 4]},
        ASK | {"responses": ["a", "", " "], "ranks": [1, 2, 3]},
        ASK | {"responses": ["a", long, long + "er"], "ranks": [1, 2, 3]},
        ASK | {"responses": ["a", "b", "a"], "ranks": [1, 2, 3]},
        ASK | {"responses": ["a", "a"], "ranks": [1, 1]},
        ASK | {"responses": ["a", "b"], "ranks": [2, 2]},
        {"responses": [[user("x"), assistant("a")], [user("y"), assistant("b")]], "ranks": [1, 2]},
        ASK | {"responses": ["a", "b", "a"], "ranks": [1, 2, 1]},
    )
    assert units(examples, "ranks") == [[("a", 1), ("b", 2)]] * 2
    assert examples.report.dropped == {
        "single answers that are empty": 1,
        "single answers that repeat another": 1,
        "single answers longer than 200 tokens": 1,
        "with an empty answer": 1,
        "longer than 200 tokens": 1,
        "with equal answers": 2,
        "without a better answer": 1,
        "with dialogues that part before the last answer": 1,
    }


def test_answers_that_differ_in_the_blanks_around_them_are_equal():
    examples = build("ranking", ASK | {"responses": ["a", "b", " a\n"], "ranks": [1, 2, 1]})
    assert units(examples, "ranks") == [[("a", 1), ("b", 2)]]
    assert examples.report.dropped == {"single answers that repeat another": 1}
    pair = build("preference", PAIR, PAIR | {"rejected": "5 "})
    assert (len(pair), pair.report.dropped) == (1, {"with equal answers": 1})


def test_rankings_that_are_all_too_long_say_what_length_would_do():
    row = ASK | {"responses": ["a", "bb " * 30, "bb " * 60]}
    needed = len(build("ranking", row).rows(0)[1].tokens)
    with pytest.raises(UserError, match=rf"all 1 rows .* longer than 20 tokens \(shortest {needed}\)"):
        build("ranking", row, max_length=20)
    assert len(build("ranking", row, max_length=needed).rows(0)) == 2


def test_what_is_made_of_one_prompt_is_never_on_both_sides_of_a_split():
    rows = [{"prompt": f"{n}?", "responses": ["a", "b", "c", "d"][: 2 + n % 3]} for n in range(12)]
    train, held_out = build("preference", *rows).split(10, seed=1)
    sides = [{each.rows(unit)[0].meta["row"] for unit in range(len(each))} for each in (train, held_out)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(12))
    assert 10 <= len(held_out) < 16


ANSWERS = ("one", "two", "three")
SEVERAL_A_PROMPT = {  # kind -> rows of a prompt
    "preference": lambda ask: [ask | {"chosen": "yes", "rejected": answer} for answer in ANSWERS],
    "ranking": lambda ask: [ask | {"chosen": "yes", "rejected": answer} for answer in ANSWERS],
    "rating": lambda ask: [ask | {"responses": list(ANSWERS), "ratings": [1, 2, 3]}],
    "thumbs": lambda ask: [ask | {"response": answer, "label": answer == "one"} for answer in ANSWERS],
    "binary": lambda ask: [ask | {"response": "x", "question": f"{answer}?", "answer": "yes"} for answer in ANSWERS],
    "steps": lambda ask: [ask | {"steps": [answer, "so"], "labels": [1, 0]} for answer in ANSWERS],
}


@pytest.mark.parametrize("kind", SEVERAL_A_PROMPT)
def test_feedback_on_answers_to_one_prompt_is_never_on_both_sides_of_a_split(kind):
    rows = [row for n in range(8) for row in SEVERAL_A_PROMPT[kind]({"prompt": f"prompt {n}, please"})]
    sides = build(kind, *rows).split(4, seed=3)
    rows_of_sides = [[row for unit in range(len(side)) for row in side.rows(unit)] for side in sides]
    asked = [{re.search("prompt .", tokenizer().decode(row.tokens))[0] for row in each} for each in rows_of_sides]
    assert (len(asked[0]), len(asked[1]), len(sides[1])) == (6, 2, 6)
    assert not asked[0] & asked[1]


def test_one_prompt_alone_cannot_be_split():
    with pytest.raises(UserError, match=r"data\.holdout is 1, but there are 3 rows .*\(distinct prompts: 1\)"):
        build("thumbs", *SEVERAL_A_PROMPT["thumbs"](ASK)).split(1, seed=0)


def test_the_conversion_is_told_from_the_columns_alone():
    rankings = ["prompt", "responses"]
    assert conversion_of("preference", rankings) == "ranking → pairs"
    assert conversion_of("preference", [*rankings, "ranks"]) == "ranking → pairs"
    assert conversion_of("preference", [*rankings, "ratings", "answer"]) == "ratings → pairs with margin"
    assert conversion_of("preference", [*rankings, "correct"]) == "verifiable answers → pairs"
    assert conversion_of("ranking", rankings) is None
    assert conversion_of("preference", ["chosen", "rejected"]) is None
    assert conversion_of("thumbs", ["chosen", "rejected"]) == "pairs → thumbs"
    assert conversion_of("thumbs", ["chosen", "rejected", "response", "label"]) is None
    assert conversion_of("text", ["text"]) is None


# ratings


def test_a_rating_is_one_number_or_the_mean_of_its_attributes():
    rows = [
        {"response": f"\n\nHuman: a\n\nAssistant: {n}", "rating": rating}
        for n, rating in enumerate([3, -0.5, {"helpful": 1, "honest": 4}, {"helpful": 2, "honest": None}])
    ]
    assert units(build("rating", *rows), "ratings") == [[("0", 3)], [("1", -0.5)], [("2", 2.5)], [("3", 2)]]


def test_attributes_are_weighted_and_one_may_count_against():
    row = ASK | {"response": "5", "rating": {"helpful": 5, "long": 2, "odd": 100}}
    weights = {"helpful": 3, "long": -1}
    assert units(build("rating", row, attributes=weights), "ratings") == [[("5", (3 * 5 - 2) / 4)]]


def test_ratings_of_several_answers_are_as_many_rows():
    row = ASK | {"responses": ["a", " ", "b"], "ratings": [1, 2, 3]}
    examples = build("rating", row, row)
    assert units(examples, "ratings") == [[("a", 1)], [("b", 3)]] * 2
    assert (examples.report.rows, examples.report.dropped) == (6, {"with an empty answer": 2})
    assert "group_ids" not in examples.batch([0])


# verdicts and questions


def asked(answer: str, question: str) -> str:
    turns = [("user", "2 + 3?"), ("assistant", answer), ("user", question)]
    return "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns) + "<|im_start|>assistant\n"


def test_a_verdict_asks_about_the_rule_and_ends_where_the_reply_would_start():
    rows = [ASK | {"response": "5", "rule": "be kind", "violated": violated} for violated in (True, 0)]
    batch = build("binary", *rows).batch([0, 1]).validate()
    question = "Does the answer keep to this rule: be kind"
    assert tokenizer().decode(batch.tokens[0]) == asked("5", question)
    assert batch.desirable.tolist() == [0, 1]
    assert batch.action_mask.sum(1).tolist() == [1, 1]
    assert batch.action_mask.int().argmax(1).tolist() == (batch.lengths - 1).tolist()
    assert batch.meta[0]["question"] == question


@pytest.mark.parametrize(("answer", "expected"), [("Yes", 1), (" no ", 0), (True, 1), (False, 0), (0.25, 0.25), (1, 1)])
def test_the_answer_to_a_question_is_a_number(answer, expected):
    examples = build("binary", ASK | {"response": "5", "question": "Is it short?", "answer": answer})
    batch = examples.batch([0])
    assert batch.desirable.tolist() == [expected]
    assert tokenizer().decode(batch.tokens[0]) == asked("5", "Is it short?")


def test_thumbs_are_binary_too_and_may_be_all_alike_with_a_warning():
    up = ASK | {"response": "5", "label": True, "question": "ignored", "answer": "ignored"}
    examples = build("binary", up, up)
    assert units(examples, "desirable") == [[("5", 1)]] * 2
    [warning] = examples.report.warnings
    assert "all 2 rows of rows.jsonl say 1" in warning
    assert f"warning: {warning}" in str(examples.report)
    assert build("binary", up, up | {"label": False}).report.warnings == []


def sample(text: str, prompt: str = "2 + 3?") -> Sample:
    return Sample(Prompt((1,), prompt, 0, messages=(user(prompt),)), 0, (), (), text, False, 0)


def test_questions_about_samples_are_the_rows_that_were_trained_on():
    questions = ["Is it short?", rule_question("be kind")]
    batch = question_batch([sample("5"), sample("six")], questions, tokenizer()).validate()
    texts = [tokenizer().decode(tokens[:length]) for tokens, length in zip(batch.tokens, batch.lengths)]
    assert texts == [asked(answer, question) for answer in ("5", "six") for question in questions]
    rows = [
        ASK | {"response": answer, "question": question, "answer": 1}
        for answer in ("5", "six")
        for question in questions
    ]
    trained = build("binary", *rows).batch(range(4))
    assert trained.tokens.equal(batch.tokens)
    assert trained.action_mask.equal(batch.action_mask)


# errors

RANKED = ASK | {"responses": ["a", "b"]}
RATED = ASK | {"response": "5", "rating": 1}
VERDICT = ASK | {"response": "5", "rule": "be kind", "violated": True}
QUESTION = ASK | {"response": "5", "question": "Short?", "answer": "yes"}


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("preference", {"prompt": "a"}, "need the columns chosen and rejected, or responses (and ratings, ranks"),
        ("preference", PAIR | {"margin": -1}, "row 1: column 'margin' must be a number not below 0, found -1"),
        ("preference", PAIR | {"margin": "much"}, "column 'margin' must be a number not below 0, found 'much'"),
        ("preference", PAIR | {"margin": math.nan}, "column 'margin' must be a number not below 0, found nan"),
        ("preference", PAIR | {"tie": "yes"}, "column 'tie' must be true or false (or 1 or 0), found 'yes'"),
        ("preference", PAIR | {"tie": True, "margin": 1}, "column 'margin' is 1, but column 'tie' says"),
        ("preference", PAIR | {"annotator": 7}, "column 'annotator' must be a name, found 7"),
        ("ranking", RANKED | {"responses": "a"}, "column 'responses' must be a list, found text"),
        ("ranking", RANKED | {"responses": ["a"]}, "column 'responses' must list two answers or more, found 1"),
        ("ranking", RANKED | {"responses": ["a", 5]}, "row 1, answer 2: column 'responses' must be text or a list"),
        ("ranking", RANKED | {"prompt": None}, "answer 1: column 'responses' must end with an assistant's answer"),
        ("ranking", RANKED | {"ranks": [1, 2, 3]}, "column 'ranks' has 3 items, but column 'responses' has 2"),
        ("ranking", RANKED | {"ranks": [0, 1]}, "column 'ranks', item 1 must be a number from 1 (the best), found 0"),
        (
            "ranking",
            RANKED | {"ranks": [1, True]},
            "column 'ranks', item 2 must be a number from 1 (the best), found True",
        ),
        ("ranking", RANKED | {"ranks": None}, "column 'ranks' must be a list, found null"),
        ("ranking", RANKED | {"correct": [True, "no"]}, "column 'correct', item 2 must be true or false"),
        ("ranking", RANKED | {"answer": "five"}, "column 'answer' must hold the number that a response must give"),
        ("ranking", RANKED | {"answer": [5]}, "column 'answer' must be text, found a list"),
        ("ranking", RANKED | {"ratings": [1, math.inf]}, "column 'ratings', item 2 must be a number, or an object"),
        ("rating", ASK | {"response": "5"}, "no column 'rating'"),
        (
            "rating",
            RATED | {"rating": "good"},
            "column 'rating' must be a number, or an object of numbers by attribute",
        ),
        ("rating", RATED | {"rating": None}, "column 'rating' must be a number, or an object"),
        ("rating", RATED | {"rating": {"x": "good"}}, "column 'rating', 'x' must be a number, found 'good'"),
        ("rating", RATED | {"rating": {"x": None}}, "found one without any"),
        ("binary", ASK | {"response": "5"}, "need the columns response and label, or response, rule and violated"),
        ("binary", ASK | {"response": "5", "rule": "x"}, "no column 'violated'"),
        ("binary", VERDICT | {"violated": "yes"}, "column 'violated' must be true or false (or 1 or 0), found 'yes'"),
        ("binary", VERDICT | {"rule": " "}, "column 'rule' is empty"),
        ("binary", QUESTION | {"question": 5}, "column 'question' must be text, found a number"),
        (
            "binary",
            QUESTION | {"answer": "maybe"},
            "column 'answer' must be yes or no, true or false, or a number from 0",
        ),
        ("binary", QUESTION | {"answer": 2}, "or a number from 0 to 1, found 2"),
    ],
)
def test_a_bad_value_is_one_line_that_names_row_and_column(kind, row, expected):
    with pytest.raises(UserError) as error:
        build(kind, row)
    assert expected in str(error.value)
    assert str(error.value).startswith("rows.jsonl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rating", "attributes", "expected"),
    [
        ({"helpful": 1, "honest": 2}, {"harmless": 1}, r"no attribute 'harmless', .*; it has helpful, honest"),
        ({"helpful": 1, "harmless": None}, {"harmless": 1}, r"no attribute 'harmless', .*; it has helpful"),
        (3, {"harmless": 1}, "is one number, so that the attributes harmless cannot be weighted"),
    ],
)
def test_an_attribute_that_is_not_there_is_refused(rating, attributes, expected):
    with pytest.raises(UserError, match=rf"row 1: column 'rating' .*{expected}|row 1: column 'rating' {expected}"):
        build("rating", RATED | {"rating": rating}, attributes=attributes)


def test_options_for_columns_that_are_not_there_are_refused():
    with pytest.raises(UserError, match="attributes are given weights, but no column 'rating'"):
        build("preference", PAIR, attributes={"helpful": 1})
    with pytest.raises(UserError, match="annotators are given weights, but there is no column 'annotator'"):
        build("preference", PAIR, annotators="agreement")
    with pytest.raises(UserError, match="attributes: all weights are 0"):
        FeedbackOptions(attributes={"helpful": 0})
    with pytest.raises(UserError, match=r"annotators: the weight of 'ann' is -1; wanted 0 or more"):
        FeedbackOptions(annotators={"ann": -1})


# real rows


def test_real_solutions_are_rankings_that_become_the_pairs_of_right_against_wrong():
    path = shared_file("gsm8k_model_solutions.jsonl")
    rankings = open_rows("examples.gsm8k:solution_rankings", args={"path": path}, limit=60)
    pairs = open_rows("examples.gsm8k:solution_pairs", args={"path": path}, limit=100)
    converted = build_examples("preference", rankings, tokenizer(), 4096)
    direct = build_examples("preference", pairs, tokenizer(), 4096)
    assert units(converted)[: len(direct)] == units(direct)
    assert converted.report.converted.endswith(f"rows of verifiable answers into {len(converted)} pairs")
    assert [number_in(text) == 18 for text in rankings[0]["responses"]] == rankings[0]["correct"]
