"""Rows of thumbs up and thumbs down, and the mismatched answers that KTO measures its baseline on."""

import pytest
import torch
from data_cases import assistant, rows_of, shared_file, tokenizer, user

from data.batch import Batch
from data.errors import UserError
from data.examples import build_examples
from data.feedback.single_answers import mismatched
from data.sources import open_rows

UP, DOWN = {"prompt": "2 + 3?", "response": "5", "label": True}, {"prompt": "2 + 3?", "response": "6", "label": False}
DIALOGUE = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: 2 + 3?\n\nAssistant: {}"


def build(*rows: dict, max_length: int = 200):
    return build_examples("thumbs", rows_of(*rows), tokenizer(), max_length)


def judged(examples) -> list[tuple[str, bool]]:
    """(trained text, desirable) of each row."""
    rows = [row for unit in range(len(examples)) for row in examples.rows(unit)]
    return [(tokenizer().decode(row.tokens[row.mask]), bool(row.columns["desirable"])) for row in rows]


EXPECTED = [("5<|im_end|>", True), ("6<|im_end|>", False)]


@pytest.mark.parametrize(
    "rows",
    [
        [UP, DOWN],
        [UP | {"label": 1}, DOWN | {"label": 0}],
        [UP | {"prompt": [user("2 + 3?")]}, DOWN | {"response": [assistant("6")]}],
        [
            {"response": [user("2 + 3?"), assistant("5")], "label": True},
            {"response": "\n\nHuman: 2 + 3?\n\nAssistant: 6", "label": False},
        ],
        [{"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}],
        [{"chosen": "\n\nHuman: 2 + 3?\n\nAssistant: 5", "rejected": "\n\nHuman: 2 + 3?\n\nAssistant: 6"}],
    ],
)
def test_the_forms_of_feedback_are_the_same_rows(rows):
    examples = build(*rows)
    assert judged(examples) == EXPECTED
    assert examples.rows_of_largest_unit == 1
    prompts = {tokenizer().decode(examples.rows(unit)[0].tokens[~examples.rows(unit)[0].mask]) for unit in range(2)}
    assert prompts == {"<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n"}


def test_only_the_last_answer_is_trained_on_and_its_label_is_a_column():
    examples = build(DOWN, {"response": DIALOGUE.format("5"), "label": True})
    assert judged(examples)[1] == EXPECTED[0]
    assert [examples.rows(unit)[0].meta["row"] for unit in range(2)] == [0, 1]
    assert examples.batch([1, 0]).desirable.tolist() == [1.0, 0.0]


def test_a_response_beside_pairs_wins():
    both = [row | {"chosen": "a", "rejected": "b"} for row in (UP, DOWN)]
    assert judged(build(*both)) == EXPECTED


def test_unusable_rows_are_dropped_and_counted():
    report = build(UP, DOWN, UP | {"response": " "}, DOWN | {"response": "long " * 100}).report
    assert (report.rows, report.units) == (4, 2)
    assert report.as_dict()["dropped"] == {"with an empty answer": 1, "longer than 200 tokens": 1}


def test_each_answer_of_a_pair_counts_as_a_row():
    pair = {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}
    examples = build(pair, pair | {"chosen": ""}, pair | {"chosen": "6"}, pair | {"rejected": "long " * 100})
    assert judged(examples) == [*EXPECTED, EXPECTED[1], EXPECTED[0]]
    assert [examples.rows(unit)[0].meta["row"] for unit in range(4)] == [0, 0, 1, 3]
    report = examples.report
    assert report.as_dict()["dropped"] == {
        "with an empty answer": 1,
        "with equal answers": 2,
        "longer than 200 tokens": 1,
    }
    assert report.rows == report.units + report.dropped.total() == 8


def test_a_tie_is_neither_good_nor_bad_and_answers_that_differ_in_blanks_are_equal():
    pair = {"prompt": "2 + 3?", "chosen": "5", "rejected": "6", "margin": 0.5}
    examples = build(pair, pair | {"tie": True, "margin": None}, pair | {"rejected": " 5\n"})
    assert judged(examples) == EXPECTED
    assert examples.report.dropped == {"without a better answer": 2, "with equal answers": 2}
    assert examples.report.rows == examples.report.units + examples.report.dropped.total()


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"tie": "yes"}, "row 1: column 'tie' must be true or false (or 1 or 0), found 'yes'"),
        ({"margin": -1}, "row 1: column 'margin' must be a number not below 0, found -1"),
        ({"tie": True, "margin": 1}, "column 'margin' is 1, but column 'tie' says that no answer is better"),
    ],
)
def test_what_a_pair_says_beside_its_answers_is_checked(extra, expected):
    with pytest.raises(UserError) as error:
        build({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"} | extra)
    assert expected in str(error.value)


def test_pairs_that_are_all_too_long_say_so():
    pair = {"prompt": "a", "chosen": "long " * 30, "rejected": "long " * 20}
    with pytest.raises(UserError, match=r"all 4 rows of rows\.jsonl are longer than 9 tokens"):
        build(pair, pair, max_length=9)


@pytest.mark.parametrize(("row", "found", "other"), [(UP, "up", "down"), (DOWN, "down", "up")])
def test_one_kind_of_label_alone_is_refused(row, found, other):
    expected = (
        rf"KTO needs thumbs up and thumbs down; all 2 rows of rows\.jsonl .* are {found}: bring some that are {other}"
    )
    with pytest.raises(UserError, match=expected):
        build(row, row)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "answer": "b"}, "rows of thumbs need the columns response and label, or chosen and rejected"),
        ({"prompt": "a", "response": "b"}, "the columns are prompt, response; name them with data.columns"),
        (UP | {"label": "up"}, "rows.jsonl, row 1: column 'label' must be true or false (or 1 or 0"),
        (UP | {"label": 2}, "thumbs up or down), found 2"),
        (UP | {"label": None}, "found None"),
        (UP | {"label": [True]}, "found [True]"),
        (UP | {"response": 5}, "row 1: column 'response' must be text or a list of messages, found a number"),
        ({"response": "b", "label": True}, "column 'response' must end with an assistant's answer to something"),
    ],
)
def test_a_bad_row_is_one_line_that_names_row_and_column(row, expected):
    with pytest.raises(UserError) as error:
        build(row)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_real_pairs_are_twice_as_many_rows_of_feedback():
    rows = open_rows(shared_file("hh_harmless.jsonl.gz"), limit=60)
    examples = build_examples("thumbs", rows, tokenizer(), 8192)
    assert len(examples) + examples.report.dropped.total() == 120
    labels = [desirable for _, desirable in judged(examples)]
    assert abs(labels.count(True) - labels.count(False)) <= 4


# mismatched answers

# prompts 1 2, 3, 4 5 6; answers 10 11, 20, 30 31
THREE = Batch.from_rows(
    [[1, 2, 10, 11], [3, 20], [4, 5, 6, 30, 31]],
    [[False, False, True, True], [False, True], [False, False, False, True, True]],
    desirable=torch.tensor([1.0, 0.0, 1.0]),
)


def test_each_prompt_is_followed_by_the_answer_of_the_row_half_the_batch_away():
    batch = mismatched(THREE, max_length=9).validate()
    assert batch.tokens.tolist() == [[1, 2, 20, 0, 0], [3, 30, 31, 0, 0], [4, 5, 6, 10, 11]]
    assert batch.lengths.tolist() == [3, 3, 5]
    assert batch.action_mask.int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert set(batch.columns) == {"tokens", "lengths", "action_mask"}


def test_a_mismatched_row_is_cut_to_the_length_limit():
    batch = mismatched(THREE, max_length=4).validate()
    assert batch.tokens.tolist() == [[1, 2, 20, 0], [3, 30, 31, 0], [4, 5, 6, 10]]
    assert batch.action_mask.sum(1).tolist() == [1, 2, 1]


def test_one_row_has_no_other_answer():
    with pytest.raises(UserError, match=r"raise batch_size .* to at least 2"):
        mismatched(THREE.select([0]), max_length=9)


def test_mismatched_rows_of_a_data_set_ask_and_answer_across_rows():
    examples = build(UP, DOWN | {"prompt": "hi"}, UP | {"prompt": "bye", "response": "7"})
    batch = mismatched(examples.batch([0, 1, 2]), max_length=200).validate()
    texts = [tokenizer().decode(tokens[:length]) for tokens, length in zip(batch.tokens, batch.lengths)]
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"
    assert texts == [asked.format(*pair) for pair in (("2 + 3?", "6"), ("hi", "7"), ("bye", "5"))]
