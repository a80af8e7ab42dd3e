"""Reserved texts are found in every spelling, and clean documents stay."""

import json
import random
import re
from functools import partial

import pytest
from corpus_stages import document, dropped, files_of, outcomes, prepared, speeches, stage_of
from data_cases import shared_file

from data.corpus.decontaminate import Decontaminate, simple_words
from data.errors import UserError

TEMPLATE = "You are a helpful assistant who answers every question of the user in one short sentence. Question: "


def rows(name: str, count: int) -> list[dict]:
    with open(shared_file(name)) as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def reserved(**sets: list[str]):
    return {name.replace("_", " "): partial(iter, texts) for name, texts in sets.items()}


def found(directory, held: list[str], sets, step: Decontaminate | None = None) -> dict[int, str]:
    """The reasons, by row, of what is dropped of these texts."""
    stage = stage_of(directory / "stage", [("web", held)])
    made = prepared(step or Decontaminate(), stage, directory / "work", reserved=sets)
    return {row: reason for (_, row), reason in dropped(outcomes(made, stage)).items()}


def grouped_numbers(text: str, separator: str) -> str:
    return re.sub(r"\d{4,}", lambda match: f"{int(match[0]):,}".replace(",", separator), text)


DISGUISES = {
    "as it is": lambda text: text,
    "capitals": str.upper,
    "no punctuation": lambda text: re.sub(r"[^\w\s]", " ", text),
    "other punctuation": lambda text: text.replace(",", " –").replace(".", "!").replace("'", "’").replace("?", " …"),
    "line breaks": lambda text: text.replace(" ", "\n"),
    "white space": lambda text: text.replace(" ", " \t\u00a0 "),
    "markdown": lambda text: "> **" + text.replace(". ", ".**\n> *") + "*",
    "thousands with commas": lambda text: grouped_numbers(text, ","),
    "thousands with spaces": lambda text: grouped_numbers(text, "\u202f"),
    "thousands without": lambda text: re.sub(r"(?<=\d),(?=\d{3})", "", text),
    "cents": lambda text: re.sub(r"(?<![\d.,])(\d{1,3})(?![\d.,])", r"\1.00", text),
    "wide letters": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "accents": lambda text: text.replace("e", "é").replace("o", "ö"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_every_planted_leak_is_found(disguise, tmp_path):
    questions = [row["question"] for row in rows("gsm8k_test.jsonl", 250)]
    rng = random.Random(1)
    around = speeches(100, 20)
    held = [
        f"{rng.choice(around)}\n{DISGUISES[disguise](question)}\n{rng.choice(around)}"
        if rng.random() < 0.5
        else rng.choice(around)
        for question in questions
    ]
    leaks = {row for row, text in enumerate(held) if text not in around}
    assert len(leaks) > 90
    assert found(tmp_path, held, reserved(gsm8k_test=questions)) == dict.fromkeys(leaks, "contains text of gsm8k test")


def test_exactly_the_documents_that_share_twelve_words_are_dropped(tmp_path):
    """Against a set of all runs of twelve words, as strings."""
    held = [f"{row['question']}\n{row['answer']}" for row in rows("gsm8k_train.jsonl", 1500)]
    texts = [row["question"] for row in rows("gsm8k_test.jsonl", 659)]
    gone = found(tmp_path, held, reserved(test=texts), Decontaminate(common=10**6))
    runs = {
        " ".join(words[start : start + 12]) for words in map(simple_words, texts) for start in range(len(words) - 11)
    }
    assert gone.keys() == {row for row, text in enumerate(held) if shares(text, runs)}
    assert 0 < len(gone) < 10


def shares(text: str, runs: set[str]) -> bool:
    words = simple_words(text)
    return any(" ".join(words[start : start + 12]) in runs for start in range(len(words) - 11))


def test_the_reason_names_the_first_set_that_has_the_text(tmp_path):
    one, two = (row["question"] for row in rows("gsm8k_test.jsonl", 2))
    assert found(tmp_path, [one, two, one + two], reserved(RL_prompts=[two], evaluation=[one, two])) == {
        0: "contains text of evaluation",
        1: "contains text of RL prompts",
        2: "contains text of RL prompts",
    }


def test_short_texts_are_found_whole_and_shorter_ones_are_counted(tmp_path):
    short = "Which of the three rivers is the longest one?"  # nine words
    shorter = "Who wrote Hamlet?"
    held = [
        f"He asked: {short.lower()} She knew.",
        "Which of the three rivers is the longest?",
        f"{shorter} Nobody knows.",
    ]
    stage = stage_of(tmp_path / "stage", [("web", held)])
    step = prepared(
        Decontaminate(), stage, tmp_path / "work", reserved=reserved(quiz=[short, shorter, shorter + "!", ""])
    )
    assert dropped(outcomes(step, stage)).keys() == {(0, 0)}
    assert step.figures == {"quiz": {"texts": 3, "too short": 2, "only common phrases": 0, "runs": 1}}
    assert json.loads(json.dumps(step.figures)) == step.figures
    step = prepared(Decontaminate(least_words=3), stage, tmp_path / "3", reserved=reserved(quiz=[short, shorter]))
    assert dropped(outcomes(step, stage)).keys() == {(0, 0), (0, 2)}


def test_a_template_of_many_reserved_texts_drops_no_clean_document(tmp_path):
    questions = [row["question"] for row in rows("gsm8k_test.jsonl", 200)]
    others = [row["question"] for row in rows("gsm8k_train.jsonl", 200)]
    sets = reserved(prompts=[TEMPLATE + question for question in questions])
    innocents, leaks = [TEMPLATE + other for other in others], [f"So: {question}" for question in questions]
    assert found(tmp_path / "1", innocents + leaks, sets).keys() == set(range(200, 400))
    assert found(tmp_path / "2", innocents, sets, Decontaminate(common=10**6)).keys() == set(range(200))


def test_texts_that_differ_from_each_other_in_a_number_only_are_each_found(tmp_path):
    prompts = [
        f"Compute {number} plus 7 and write the result in a box at the end of your answer." for number in range(11, 60)
    ]
    held = [*prompts[:20], "Compute 99 plus 7 and write the result in a box at the end of your answer."]
    assert found(tmp_path, held, reserved(prompts=prompts)).keys() == set(range(20))


def test_texts_without_a_word_of_their_own_are_counted(tmp_path):
    texts = [TEMPLATE + question["question"] for question in rows("gsm8k_test.jsonl", 10)] + [TEMPLATE]
    stage = stage_of(tmp_path / "stage", [("web", [TEMPLATE + "What is love?"])])
    step = prepared(Decontaminate(), stage, tmp_path / "work", reserved=reserved(prompts=texts))
    assert step.figures["prompts"]["only common phrases"] == 1
    assert not dropped(outcomes(step, stage))


def test_texts_of_common_phrases_alone_are_counted_and_drop_nothing(tmp_path):
    opening = [
        f"compute {digit} plus the value of {digit}".split() for digit in ("one", "two", "six", "ten", "four", "five")
    ]
    ending = [f"then write {word} into the box".split() for word in ("it", "this", "that", "all", "x", "y", "z")]
    texts = [" ".join(one[:6] + two) for one in opening for two in ending]
    stage = stage_of(tmp_path / "stage", [("web", [texts[0], "What is love? Nobody knows, but all of them ask."])])
    step = prepared(Decontaminate(), stage, tmp_path / "work", reserved=reserved(prompts=texts))
    assert step.figures["prompts"] == {"texts": 42, "too short": 0, "only common phrases": 42, "runs": 0}
    assert not dropped(outcomes(step, stage))


def test_the_same_words_in_another_order_are_no_leak(tmp_path):
    text = "seven brave sailors carried heavy golden barrels across narrow wooden bridges yesterday"
    other = " ".join(reversed(text.split()))
    assert found(tmp_path, [text, other], reserved(tales=[text])).keys() == {0}


def test_tables_of_numbers_are_no_leak(tmp_path):
    texts = ["The table: " + " ".join(str(number) for number in range(40)) + " ends there, after the fortieth number."]
    held = [" ".join(str(number) for number in range(100)), "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"]
    assert not found(tmp_path, held, reserved(tables=texts))


def test_without_reserved_texts_everything_stays(tmp_path):
    assert not found(tmp_path / "1", ["some text"], {})
    assert not found(tmp_path / "2", ["some text of so many words that a run of twelve fits in"], reserved(empty=[]))


def test_other_kinds_pass_and_the_index_is_the_same_each_time(tmp_path):
    text = rows("gsm8k_test.jsonl", 1)[0]["question"]
    stage = stage_of(tmp_path / "stage", [("web", [document(text, "web", 0, "code"), document(text, "web", 1)])])
    for name in "12":
        step = prepared(Decontaminate(kinds=("text",)), stage, tmp_path / name, reserved=reserved(test=[text]))
        assert dropped(outcomes(step, stage)).keys() == {(0, 1)}
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 1,000.50 km — OK?", "it s 10005 km ok"),
        ("1 000,5 / 20", "100052"),
        ("0 and 00", "0 and 0"),
        ("Ｆｕｌｌ ｗｉｄｔｈ № 5", "full width no 5"),
        ("Ünïcode\u200b “quoted” ‘too’ • dot", "unicode quoted too dot"),
    ],
)
def test_words_are_simplified_before_they_are_compared(text, words):
    assert " ".join(simple_words(text)) == words


def test_lengths_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="least_words is 9 and words 8"):
        Decontaminate(words=8, least_words=9)
