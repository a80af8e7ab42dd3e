"""Steps are judged at the token after their last character, wherever the tokenizer puts its borders."""

import json

import pytest
from data_cases import rows_of, shared_file, tokenizer, user
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.examples import build_examples
from data.feedback.step_labels import step_batch, steps_of
from data.render import ChatTemplate
from data.sample import Prompt, Sample
from data.sources import open_rows
from data.tokenizer_training import train_tokenizer
from examples.gsm8k import solution_rankings, solution_ratings, solution_steps, solution_thumbs

ROW = {"prompt": "2 * 3 + 1?", "steps": ["2 * 3 = 6", "6 + 1 = 8"], "labels": [True, False]}


def build(*rows: dict, max_length: int = 400, by=None):
    return build_examples("steps", rows_of(*rows), by or tokenizer(), max_length)


def step_end_places(tokens: list[int], text: str, ends: list[int]) -> list[int]:
    """For each end, the first place that has all of text[:end] before it, by counting bytes: a byte-level token has one
    character a byte, a special one is ASCII."""
    sizes = [len(token) for token in tokenizer().convert_ids_to_tokens(tokens)]
    before = [sum(sizes[:place]) for place in range(len(tokens))]
    return [next(place for place, size in enumerate(before) if size >= len(text[:end].encode())) for end in ends]


STEPS = st.lists(
    st.text(st.sampled_from("ab 12猫ü=\t😀. "), min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=120)
@given(STEPS, st.data())
def test_a_step_is_marked_at_the_first_token_that_has_all_of_it_before_it(steps, data):
    labels = data.draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
    [row] = build({"prompt": "go on?", "steps": steps, "labels": labels}).rows(0)
    by = tokenizer()
    text = by.decode(row.tokens, clean_up_tokenization_spaces=False)
    answer = "\n".join(steps).strip()
    start = text.index("assistant\n") + len("assistant\n")
    assert text[start:] == answer + "<|im_end|>"
    ends = [start + place for place, character in enumerate(answer + "\n") if character == "\n"]
    places = step_end_places(row.tokens.tolist(), text, ends)
    assert row.mask.nonzero()[0].tolist() == places
    assert by.decode([row.tokens[places[-1]]]) == "<|im_end|>"
    assert row.token_columns["step_labels"][row.mask].tolist() == [float(label) for label in labels]
    assert not row.token_columns["step_labels"][~row.mask].any()


def test_the_labels_are_a_column_of_the_batch():
    batch = build(ROW, ROW | {"steps": ["7"], "labels": [1]}).batch([1, 0]).validate()
    assert batch.action_mask.sum(1).tolist() == [1, 2]
    assert [row[mask].tolist() for row, mask in zip(batch.step_labels, batch.action_mask)] == [[1], [1, 0]]
    before = [batch.tokens[1, : place + 1] for place in batch.action_mask[1].nonzero().flatten().tolist()]
    assert [tokenizer().decode(tokens).split("assistant\n")[1] for tokens in before] == [
        "2 * 3 = 6\n",
        "2 * 3 = 6\n6 + 1 = 8<|im_end|>",
    ]


def test_a_border_inside_a_token_is_judged_after_it_and_two_in_one_token_drop_the_row():
    merging = train_tokenizer(["some words\n"] * 9, 280)
    merging.add_tokens(["a\nb", "q\nr\ns"])
    examples = build(
        {"prompt": "x", "steps": ["1a", "b2"], "labels": [0, 1]},
        {"prompt": "x", "steps": ["q", "r", "s"], "labels": [0, 1, 1]},
        by=merging,
    )
    [row] = examples.rows(0)
    assert len(examples) == 1
    assert examples.report.dropped == {"with two step ends in one token": 1}
    assert merging.decode(row.tokens[row.mask.argmax() - 1]) == "a\nb"
    assert row.token_columns["step_labels"][row.mask].tolist() == [0, 1]


def test_a_row_that_is_too_long_is_dropped_and_counted():
    report = build(ROW, ROW | {"steps": ["long " * 200, "b"]}, max_length=100).report
    assert report.dropped == {"longer than 100 tokens": 1}


def test_a_template_that_strips_answers_or_opens_them_with_a_thought_keeps_the_steps():
    thinking = train_tokenizer(["1 2 3\n"] * 3, 280)
    thinking.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n"
        "{{ m.content | trim }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    [row] = build({"prompt": "x", "steps": [" 1 ", " 2 "], "labels": [0, 1]}, by=thinking).rows(0)
    before = [thinking.decode(row.tokens[:place]) for place in row.mask.nonzero()[0]]
    assert [text.split("</think>\n\n")[1] for text in before] == ["1 ", "1 \n 2"]


# scoring


def sample(text: str) -> Sample:
    return Sample(Prompt((1,), "2 * 3 + 1?", 4, messages=(user("2 * 3 + 1?"),)), 0, (), (), text, False, 0)


def test_samples_are_rendered_as_the_rows_that_were_trained_on():
    batch = step_batch([sample("2 * 3 = 6\n\n6 + 1 = 8\n"), sample("7")], tokenizer()).validate()
    trained = build(ROW, ROW | {"steps": ["7"], "labels": [1]}).batch([0, 1])
    for column in ("tokens", "lengths", "action_mask"):
        assert getattr(batch, column).equal(getattr(trained, column))


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_an_answer_without_steps_is_a_row_without_marks(text):
    batch = step_batch([sample(text), sample("7")], tokenizer()).validate()
    assert batch.action_mask.sum(1).tolist() == [0, 1]
    assert len(steps_of(text)) == 0


# errors


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "a", "steps": ["b"]}, "rows.jsonl: no column 'labels'"),
        (ROW | {"steps": "b"}, "row 1: column 'steps' must be a list, found text"),
        (ROW | {"steps": [], "labels": []}, "column 'steps' is empty"),
        (ROW | {"steps": ["a", "b\nc"]}, "column 'steps', item 2 has a line break"),
        (ROW | {"steps": ["a", " "]}, "column 'steps', item 2 must be the text of a step"),
        (ROW | {"steps": [1, "a"]}, "column 'steps', item 1 must be the text of a step, found 1"),
        (ROW | {"labels": [True]}, "column 'labels' has 1 items, but column 'steps' has 2"),
        (
            ROW | {"labels": [True, 0.5]},
            "column 'labels', item 2 must be true or false (or 1 or 0: right or wrong), found 0.5",
        ),
        (ROW | {"prompt": None}, "column 'prompt' must be text or a list of messages, found null"),
    ],
)
def test_a_bad_row_is_one_line_that_names_row_and_column(row, expected):
    with pytest.raises(UserError) as error:
        build(row)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_an_answer_that_the_template_changes_is_refused():
    shouting = train_tokenizer(["1 2 3\n"] * 3, 280)
    shouting.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.content | upper }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    with pytest.raises(UserError, match="the chat template changes the answer"):
        list(ChatTemplate(shouting).encode([ChatTemplate(shouting).stepwise([user("x")], ["abc"], "row 1")]))


def test_steps_of_another_question_need_one(tmp_path):
    row = {"question": "2 + 3?", "a": {"solution": "2 + 3 = 5\n5", "is_correct": True}}
    wrong = {"question": "1 + 1?", "a": {"solution": "3", "is_correct": False}}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(wrong)}\n")
    with pytest.raises(UserError, match="only one question has any"):
        list(solution_steps(str(tmp_path / "rows.jsonl"), misplaced=1.0))
    [own] = solution_steps(str(tmp_path / "rows.jsonl"), misplaced=0.0)
    assert own["steps"] == ["2 + 3 = 5", "5"]


def test_real_solutions_give_steps_thumbs_and_ratings():
    path = shared_file("gsm8k_model_solutions.jsonl")
    thumbs, ratings, steps = (list(read(path)) for read in (solution_thumbs, solution_ratings, solution_steps))
    assert len(thumbs) == len(ratings) == 4000
    assert [row["rating"] for row in ratings] == [int(row["label"]) for row in thumbs]
    assert len(steps) == sum(row["label"] for row in thumbs)
    lines = {row["prompt"]: set() for row in thumbs}
    for row in thumbs:
        lines[row["prompt"]].update(row["response"].split("\n"))
    judged = [
        (step in lines[row["prompt"]], label) for row in steps for step, label in zip(row["steps"], row["labels"])
    ]
    assert all(own for own, label in judged if label)
    assert sum(own for own, label in judged if not label) < 0.01 * len(judged)  # "A: 5" may be said of two questions
    assert 0.27 < sum(not label for _, label in judged) / len(judged) < 0.33


def test_parts_share_no_question():
    path = shared_file("gsm8k_model_solutions.jsonl")
    parts = [{row["prompt"] for row in solution_rankings(path, part)} for part in ("train", "heldout")]
    assert not parts[0] & parts[1]
    assert [len(part) for part in parts] == [800, 200]


def test_real_steps_are_read():
    path = shared_file("gsm8k_model_solutions.jsonl")
    rows = open_rows("examples.gsm8k:solution_steps", args={"path": path}, limit=100)
    examples = build_examples("steps", rows, tokenizer(), 4096)
    assert len(examples) == 100
    assert examples.report.trained_tokens == sum(len(row["steps"]) for row in rows)
