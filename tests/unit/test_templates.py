"""Templates: their syntax, which template a row gets, and rows that no template fits."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from data_cases import assistant, rows_of, shared_file, tokenizer, user

from data.errors import UserError
from data.examples import build_examples
from data.messages import messages_of
from data.plain_rows import build_prompts
from data.sources import Rows, open_rows
from data.templates import Templated, Wording, drawn, parsed
from rlhf.config.data import Data, Template
from rlhf.phases.base import open_data

CITIES = rows_of(*({"country": f"Land {n}", "capital": f"City {n}", "people": n} for n in range(300)))
ASKED = Wording({"prompt": "What is the capital of {country}?", "response": "{capital}"})
TOLD = Wording({"prompt": "Tell me {country}'s capital.", "response": "It is {capital}."})
INVERSE = Wording({"prompt": "{capital} is the capital of which country?", "response": "{country}"})


def said(rows: Rows, index: int) -> tuple[str, str]:
    row = rows[index]
    return row["prompt"], row["response"]


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("{a}", {"a": "x"}),
        ("{a} and {b}, {a}", {"a": "x", "b": 3}),
        ("{{a}} is not {a}", {"a": "{b}"}),  # a value's own braces stay as they are
        ('{{"key": "{a}"}}', {"a": 1.5}),
        ("no column", {}),
        ("", {}),
    ],
)
def test_plain_templates_read_as_pythons_own_format(text, row):
    assert Wording({"text": text}).words(row) == {"text": text.format(**row)}


@pytest.mark.parametrize(
    "text", ["{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{a:{b}}", "{}", "{0}", "{ a }", "{a.__class__}", "{a b}"]
)
def test_nothing_but_a_columns_name_may_stand_in_braces(text):
    with pytest.raises(ValueError, match=r"is not the plain name of a column; map others with data\.columns"):
        parsed(text)


@pytest.mark.parametrize("text", ["{", "}", "{a", "a}", "{a{b}", "}{"])
def test_a_lone_brace_says_how_a_brace_is_written(text):
    with pytest.raises(ValueError, match="write a"):
        parsed(text)


def test_several_phrasings_and_the_inverse_task_are_drawn_by_their_weights():
    wordings = [ASKED, TOLD, Wording(INVERSE.forms, weight=2.0)]
    rows = Templated(CITIES, wordings)
    expected = [
        {
            (wording.words(row)["prompt"], wording.words(row)["response"]): place
            for place, wording in enumerate(wordings)
        }
        for row in CITIES
    ]
    counts = Counter(expected[index][said(rows, index)] for index in range(300))
    for place, share in enumerate([0.25, 0.25, 0.5]):  # within four standard deviations
        assert abs(counts[place] / 300 - share) < 4 * (share * (1 - share) / 300) ** 0.5


def test_a_row_reads_the_same_whenever_and_wherever_it_is_read():
    first, again = (Templated(CITIES, [ASKED, TOLD, INVERSE]) for _ in range(2))
    assert [said(first, n) for n in range(300)] == [said(again, n) for n in reversed(range(300))][::-1]


def test_a_template_that_needs_what_the_row_does_not_have_is_not_drawn_for_it():
    """So rows with a reasoning and rows without can lie in one file."""
    reasoned = Wording({"prompt": "{question}", "response": "{reasoning}\nThe answer is {answer}"})
    plain = Wording({"prompt": "{question} Answer only.", "response": "{answer}"})
    rows = rows_of(
        {"question": "2 + 3?", "reasoning": "2 and 3 make 5.", "answer": 5},
        {"question": "1 + 1?", "reasoning": None, "answer": 2},
        {"question": "7 - 7?", "reasoning": " ", "answer": 0},
        {"question": "1 - 2?", "answer": -1},
    )
    assert said(Templated(rows, [reasoned]), 0) == ("2 + 3?", "2 and 3 make 5.\nThe answer is 5")
    both = Templated(rows, [Wording(reasoned.forms, weight=1e9), plain])
    assert [said(both, n)[1] for n in range(4)] == ["2 and 3 make 5.\nThe answer is 5", "2", "0", "-1"]
    report = build_examples("chat", Templated(rows, [reasoned]), tokenizer(), 512).report
    assert report.dropped == {"with an empty answer": 3}


def test_text_templates_make_texts_and_rows_they_do_not_fit_are_dropped():
    rows = rows_of({"title": "Owl", "body": "Sees."}, {"title": "", "body": "Nothing"}, {"title": "Cat", "body": None})
    data = build_examples("text", Templated(rows, [Wording({"text": "# {title}\n{body}"})]), tokenizer(), 64)
    assert tokenizer().decode(data.rows(0)[0].tokens, skip_special_tokens=True) == "# Owl\nSees."
    assert data.report.dropped == {"without text": 2}


def test_a_templates_dialogue_is_trained_on_as_one_of_messages():
    """The worded rows are those that a writer of messages would have made."""
    rows = Templated(CITIES, [ASKED])
    written = rows_of(*({"messages": [user(said(rows, n)[0]), assistant(said(rows, n)[1])]} for n in range(300)))
    found, wanted = (build_examples("chat", each, tokenizer(), 512) for each in (rows, written))
    assert found.tokens.tolist() == wanted.tokens.tolist()
    assert found.mask.tolist() == wanted.mask.tolist()


def test_templates_take_the_place_of_messages():
    rows = rows_of({"messages": [user("Hi"), assistant("Ho")], "word": "yes"})
    worded = Templated(rows, [Wording({"prompt": "Say {word}", "response": "{word}"})])
    assert worded.columns == ("word", "prompt", "response")
    assert messages_of(worded[0], "prompt", "") == [user("Say yes")]
    assert "messages" not in worded[0]


def test_other_columns_stay_for_who_checks_the_answers():
    prompts, _ = build_prompts(Templated(CITIES, [ASKED]), tokenizer(), 64)
    assert prompts[7].meta["capital"] == "City 7"
    assert prompts[7].text == "What is the capital of Land 7?"


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        UserError,
        match=r"data\.templates\[1\]: no column 'capitol'; .* country, capital, people; did you mean 'capital'",
    ):
        Templated(CITIES, [ASKED, Wording({"prompt": "{capitol}?", "response": "{country}"})])


def test_a_list_cannot_be_put_into_words():
    rows = Templated(rows_of({"choices": ["a", "b"]}, name="quiz.jsonl"), [Wording({"text": "{choices}"})])
    with pytest.raises(
        UserError, match=r"quiz.jsonl, row 1: column 'choices' must be text or a number .* found a list"
    ):
        rows[0]


def test_the_fingerprint_tells_other_words_and_other_weights_apart():
    marks = {
        Templated(CITIES, wordings).fingerprint
        for wordings in ([ASKED], [TOLD], [ASKED, TOLD], [ASKED, Wording(TOLD.forms, 2.0)])
    }
    assert len(marks) == 4
    assert Templated(CITIES, [ASKED]).fingerprint in marks


def test_draws_of_neighbouring_rows_do_not_depend_on_each_other():
    wordings = [ASKED, TOLD]
    taken = [drawn(wordings, CITIES[0], number) is ASKED for number in range(2000)]
    repeats = sum(first == second for first, second in pairwise(taken))
    assert abs(repeats / 1999 - 0.5) < 4 * 0.5 / 1999**0.5


def test_the_config_opens_a_phases_rows_in_its_templates(tmp_path):
    file = tmp_path / "capitals.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in CITIES))
    data = Data(
        path=str(file), columns={"town": "capital"}, templates=[Template(prompt="{town}?", response="{country}")]
    )
    assert said(open_data(data, {}), 2) == ("City 2?", "Land 2")


def test_real_questions_forward_backward_and_with_the_reasoning():
    source = open_rows(shared_file("gsm8k_train.jsonl"), limit=200)
    forward = Wording({"prompt": "{question}", "response": "{answer}"})
    backward = Wording({"prompt": "Which question has this solution?\n{answer}", "response": "{question}"})
    rows = Templated(source, [forward, backward])
    for index in range(200):
        question, answer = source[index]["question"], source[index]["answer"]
        assert said(rows, index) in [
            (question, answer),
            (f"Which question has this solution?\n{answer}", question),
        ]
    assert 60 < sum(said(rows, index)[0] == source[index]["question"] for index in range(200)) < 140
    examples = build_examples("chat", rows, tokenizer(), 4096)
    assert len(examples) == 200
    assert said(rows, 0)[1] in "".join(text for text, trained in examples.spans(0) if trained)
