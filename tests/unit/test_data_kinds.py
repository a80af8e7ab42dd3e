"""Each kind of rows gives the tokens and masks that its phase trains on, for made-up rows and real files."""

import re

import pytest
from data_cases import assistant, rows_of, shared_file, tokenizer, user

from data.errors import UserError
from data.examples import build_examples
from data.messages import parse_dialogue
from data.plain_rows import build_prompts
from data.sources import open_rows
from data.tokenizer_training import train_tokenizer

DIALOGUE = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: 2 + 3?\n\nAssistant: {}"


def build(kind: str, *rows: dict, max_length: int = 200):
    return build_examples(kind, rows_of(*rows), tokenizer(), max_length)


def texts(examples, unit: int) -> list[tuple[str, str]]:
    """(whole text, trained text) of each row of a unit."""
    return [(tokenizer().decode(row.tokens), tokenizer().decode(row.tokens[row.mask])) for row in examples.rows(unit)]


def rendered(*messages: dict) -> str:
    return "\n".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>" for message in messages)


# text


def test_a_document_ends_with_the_end_of_text_and_its_first_token_is_not_trained_on():
    [row] = build("text", {"text": "the cat"}).rows(0)
    assert tokenizer().decode(row.tokens) == "the cat<|endoftext|>"
    assert row.mask.tolist() == [False] + [True] * (len(row.tokens) - 1)


@pytest.mark.parametrize("max_length", [2, 3, 7, 64])
def test_every_token_of_a_long_document_but_the_first_is_trained_on_once(max_length):
    text = "What is 2 + 3? " * 20
    examples = build("text", {"text": text}, {"text": "a"}, max_length=max_length)
    rows = [examples.rows(unit)[0] for unit in range(len(examples))]
    trained = [token for row in rows if row.meta["row"] == 0 for token in row.tokens[row.mask].tolist()]
    assert trained == [*tokenizer().encode(text), tokenizer().eos_token_id][1:]
    assert all(2 <= len(row.tokens) <= max_length for row in rows)
    assert examples.report.truncated == 1


def test_documents_without_text_are_dropped_and_counted():
    report = build("text", {"text": " \n"}, {"text": "a"}).report
    assert report.as_dict()["dropped"] == {"without text": 1}
    assert str(report).endswith("2 rows, 1 units, 2 tokens, 1 trained, 1 dropped (1 without text)")


# chat

ONE = rendered(user("2 + 3?"), assistant("5"))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("2 + 3?"), assistant("5")]},
        {"prompt": "2 + 3?", "response": "5"},
        {"prompt": [user("2 + 3?")], "response": "5"},
        {"prompt": "\n\nHuman: 2 + 3?\n\nAssistant:", "response": "5"},
        {"instruction": "2 + 3?", "output": "5"},
        {"instruction": "2 + 3?", "input": "", "output": "5"},
        {"instruction": "2 + 3?", "input": None, "output": "5"},
    ],
)
def test_the_forms_of_a_chat_row_are_the_same_dialogue(row):
    assert texts(build("chat", row), 0) == [(ONE, "5<|im_end|>")]


def test_the_input_of_an_instruction_is_a_paragraph_of_the_question():
    [(whole, _)] = texts(build("chat", {"instruction": "add", "input": "2 and 3", "output": "5"}), 0)
    assert whole == rendered(user("add\n\n2 and 3"), assistant("5"))


def test_keys_that_other_messages_have_do_not_reach_the_template():
    marking = train_tokenizer(["some text"], 270)
    marking.chat_template = (
        "{% for m in messages %}{{ 'named ' if m.name is defined }}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    row = {"messages": [{**user("a"), "name": None}, {**assistant("b"), "name": None}]}
    assert "named" not in "".join(text for text, _ in build_examples("chat", rows_of(row), marking, 50).spans(0))


def test_every_answer_of_a_dialogue_is_trained_on():
    messages = [{"role": "system", "content": "be kind"}, user("a"), assistant("b"), user("c"), assistant("d")]
    [(whole, trained)] = texts(build("chat", {"messages": messages}), 0)
    assert (whole, trained) == (rendered(*messages), "b<|im_end|>d<|im_end|>")


def test_long_and_empty_answers_are_dropped_and_counted():
    rows = [{"prompt": "a", "response": answer} for answer in ("b", " ", "long " * 100)]
    assert build("chat", *rows).report.as_dict()["dropped"] == {"with an empty answer": 1, "longer than 200 tokens": 1}


def test_all_rows_too_long_says_how_many_and_how_long():
    rows = [{"prompt": "a", "response": "猫" * count} for count in (40, 30, 50)]
    shortest = len(build("chat", rows[1]).rows(0)[0].tokens)
    with pytest.raises(
        UserError, match=rf"all 3 rows of rows.jsonl are longer than 9 tokens \(shortest {shortest}\): raise"
    ):
        build("chat", *rows, max_length=9)


def test_no_row_left_says_why():
    with pytest.raises(
        UserError, match=r"no row of rows\.jsonl can be used: 1 with an empty answer, 1 longer than 9 tokens of 2"
    ):
        build("chat", {"prompt": "a", "response": ""}, {"prompt": "a", "response": "long " * 9}, max_length=9)


# preference

PAIR = [(rendered(user("2 + 3?"), assistant(answer)), f"{answer}<|im_end|>") for answer in ("5", "6")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"},
        {"prompt": [user("2 + 3?")], "chosen": [assistant("5")], "rejected": [assistant("6")]},
        {"prompt": "2 + 3?", "chosen": [user("2 + 3?"), assistant("5")], "rejected": [user("2 + 3?"), assistant("6")]},
        {"prompt": None, "chosen": [user("2 + 3?"), assistant("5")], "rejected": [user("2 + 3?"), assistant("6")]},
        {"chosen": "\n\nHuman: 2 + 3?\n\nAssistant: 5", "rejected": "\n\nHuman: 2 + 3?\n\nAssistant: 6"},
    ],
)
def test_the_forms_of_a_preference_row_are_the_same_pair(row):
    assert texts(build("preference", row), 0) == PAIR


def test_only_the_last_answer_of_a_preference_is_trained_on():
    (whole, trained), (_, worse) = texts(
        build("preference", {"chosen": DIALOGUE.format("5"), "rejected": DIALOGUE.format("6")}), 0
    )
    assert whole == rendered(user("hi"), assistant("hello"), user("2 + 3?"), assistant("5"))
    assert (trained, worse) == ("5<|im_end|>", "6<|im_end|>")


def test_pairs_that_compare_nothing_are_dropped_and_counted():
    usable = {"chosen": DIALOGUE.format("5"), "rejected": DIALOGUE.format("6")}
    rows = [
        usable,
        usable | {"rejected": usable["chosen"]},
        usable | {"rejected": DIALOGUE.format(" ")},
        usable | {"rejected": usable["rejected"].replace("hello", "bye")},
        usable | {"rejected": DIALOGUE.format("long " * 100)},
    ]
    assert build("preference", *rows).report.as_dict()["dropped"] == {
        "with equal answers": 1,
        "with an empty answer": 1,
        "with dialogues that part before the last answer": 1,
        "longer than 200 tokens": 1,
    }


def test_a_dialogue_keeps_text_that_only_resembles_a_turn():
    assert parse_dialogue("\n\nHuman: a\n\nb Human: c\n\nAssistant: Human: d") == [
        user("a\n\nb Human: c"),
        assistant("Human: d"),
    ]
    for text in ("plain", "before\n\nHuman: a", "\n\nAssistant: a", "Human: a\n\nAssistant: b", ""):
        assert parse_dialogue(text) == []


# prompts


def test_a_prompt_asks_and_keeps_the_other_columns():
    prompts, report = build_prompts(
        rows_of({"prompt": "2 + 3?", "answer": "5"}, {"prompt": [user("hi")], "answer": None}), tokenizer(), 50
    )
    assert tokenizer().decode(prompts[0].tokens) == rendered(user("2 + 3?")) + "\n<|im_start|>assistant\n"
    assert [(prompt.text, prompt.row, prompt.meta) for prompt in prompts] == [
        ("2 + 3?", 0, {"answer": "5"}),
        ("hi", 1, {"answer": None}),
    ]
    assert (report.units, report.tokens) == (2, sum(len(prompt.tokens) for prompt in prompts))


def test_a_prompt_is_what_precedes_the_answer_when_it_is_trained_on():
    [prompt], _ = build_prompts(rows_of({"prompt": "2 + 3?"}), tokenizer(), 50)
    [row] = build("chat", {"prompt": "2 + 3?", "response": "5"}).rows(0)
    assert list(prompt.tokens) == row.tokens[~row.mask].tolist()


def test_an_answered_dialogue_is_asked_again():
    [prompt], _ = build_prompts(rows_of({"prompt": DIALOGUE.format("5")}), tokenizer(), 99)
    assert prompt.text == "2 + 3?"
    assert tokenizer().decode(prompt.tokens).endswith("2 + 3?<|im_end|>\n<|im_start|>assistant\n")


def test_long_and_empty_prompts_are_dropped_and_keep_the_numbers_of_their_rows():
    prompts, report = build_prompts(rows_of({"prompt": ""}, {"prompt": "long " * 50}, {"prompt": "a"}), tokenizer(), 30)
    assert [prompt.row for prompt in prompts] == [2]
    assert report.as_dict()["dropped"] == {"with an empty prompt": 1, "longer than 30 tokens": 1}


def test_no_room_for_prompts_is_the_users_error():
    with pytest.raises(UserError, match="max_new_tokens"):
        build_prompts(rows_of({"prompt": "a"}), tokenizer(), 0)
    with pytest.raises(UserError, match=r"all 1 rows of rows\.jsonl are longer than 3 tokens"):
        build_prompts(rows_of({"prompt": "a"}), tokenizer(), 3)


# errors


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("text", {"body": "a"}, "rows.jsonl: no column 'text'; the columns are body"),
        ("text", {"text": 5}, "rows.jsonl, row 1: column 'text' must be text, found a number"),
        ("text", {"text": None, "id": 1}, "row 1: column 'text' must be text, found null"),
        ("chat", {"question": "a", "answer": "b"}, "chat rows need the columns messages, or prompt and response"),
        ("chat", {"prompt": "a", "response": ["b"]}, "row 1: column 'response' must be text, found a list"),
        ("chat", {"messages": "a"}, "row 1: no assistant message to train on"),
        ("chat", {"messages": 3}, "row 1: column 'messages' must be text or a list of messages, found a number"),
        (
            "chat",
            {"messages": ["a"]},
            "column 'messages', message 1 must be an object with role and content, found text",
        ),
        ("chat", {"messages": [{"role": "user"}]}, "column 'messages', message 1: 'content' must be text, found null"),
        ("chat", {"messages": [user("a")]}, "row 1: no assistant message to train on"),
        ("preference", {"prompt": "a", "chosen": "b"}, "no column 'rejected'; the columns are prompt, chosen"),
        ("preference", {"chosen": "b", "rejected": "c"}, "column 'chosen' must end with an assistant's answer"),
        (
            "preference",
            {"prompt": "a", "chosen": [user("b")], "rejected": "c"},
            "column 'chosen' must end with an assistant's",
        ),
    ],
)
def test_a_bad_row_is_one_line_that_names_row_and_column(kind, row, expected):
    with pytest.raises(UserError) as error:
        build(kind, row)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


# real files


def test_gsm8k_trains_on_exactly_the_answers():
    rows = open_rows(shared_file("gsm8k_test.jsonl"), columns={"prompt": "question", "response": "answer"})
    examples = build_examples("chat", rows, tokenizer(), 4096)
    assert examples.report.as_dict() | {"name": "", "tokens": 0, "trained_tokens": 0} == {
        "name": "", "rows": 659, "units": 659, "tokens": 0, "trained_tokens": 0, "truncated": 0, "dropped": {},
        "converted": "", "agreement": {}, "warnings": [],
    }  # fmt: skip
    for unit in range(len(examples)):
        [(_, trained)] = texts(examples, unit)
        assert trained == rows[unit]["response"] + "<|im_end|>"


def test_hh_rlhf_pairs_share_their_prompt_and_train_on_the_last_answers():
    rows = open_rows(shared_file("hh_harmless.jsonl.gz"), limit=200)
    examples = build_examples("preference", rows, tokenizer(), 8192)
    assert len(examples) + examples.report.dropped.total() == 200
    assert len(examples) >= 195
    for unit in range(len(examples)):
        chosen, rejected = examples.rows(unit)
        row = rows[chosen.meta["row"]]
        first = int(chosen.mask.argmax())
        assert chosen.tokens[:first].tolist() == rejected.tokens[: rejected.mask.argmax()].tolist()
        for example, column in ((chosen, "chosen"), (rejected, "rejected")):
            answer = re.split(r"\n\nAssistant:", row[column])[-1].strip()
            assert tokenizer().decode(example.tokens[example.mask]) == answer + "<|im_end|>"


def test_shakespeare_is_cut_into_rows_that_hold_all_of_it():
    rows = open_rows(shared_file("tinyshakespeare.txt"))
    examples = build_examples("text", rows, tokenizer(), 512)
    assert examples.report.truncated == 1
    pieces = [examples.rows(unit)[0].tokens[1 if unit else 0 :] for unit in range(len(examples))]
    assert "".join(tokenizer().decode(piece) for piece in pieces) == rows[0]["text"] + "<|endoftext|>"
