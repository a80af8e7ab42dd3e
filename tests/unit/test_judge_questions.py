"""What a judge is asked, and how its words are read."""

from collections import Counter

import pytest

from data.sample import Prompt
from rlhf.judge.questions import (
    ALLOWED,
    NEEDED,
    fields,
    parse_rating,
    parse_verdict,
    principle_of,
    render,
    request_of,
    template_of,
)


@pytest.mark.parametrize(
    "text", ["A", " a\n", "A.", "(A)", '"A"', "first", "First.", "Answer A", "[[A]]", "So: [[A]]", "**A**"]
)
def test_words_for_the_first_answer(text):
    assert parse_verdict(text) == "first"


@pytest.mark.parametrize("text", ["B", "second", "response b", "because of the style, [[B]].", "[[B]] and again [[B]]"])
def test_words_for_the_second_answer(text):
    assert parse_verdict(text) == "second"


@pytest.mark.parametrize("text", ["tie", "Tie.", "C", "[[C]]", "[[tie]]"])
def test_words_for_a_tie(text):
    assert parse_verdict(text) == "tie"


@pytest.mark.parametrize(
    "text",
    ["", "AB", "A B", "A or B", "I think A is better", "[[A]] [[B]]", "[[D]]", "neither", "A\nbecause", "Answer"],
)
def test_any_other_words_are_no_verdict(text):
    assert parse_verdict(text) is None


@pytest.mark.parametrize(
    ("text", "rating"),
    [("7", 7), (" 7.5\n", 7.5), ("7/10", 7), ("[[9]]", 9), ("it is [[8/10]]", 8), ("0", 0), ("10.", 10)],
)
def test_ratings_within_the_scale(text, rating):
    assert parse_rating(text, best=10) == rating


@pytest.mark.parametrize(
    "text", ["", "11", "-1", "7/5", "seven", "7 or 8", "[[7]] [[8]]", "nan", "inf", "about 7", "1e1"]
)
def test_any_other_text_is_no_rating(text):
    rating = parse_rating(text, best=10)
    assert rating != rating


def test_a_rating_is_read_on_the_judges_own_scale():
    assert parse_rating("4/5", best=5) == 4
    assert parse_rating("[[6]]", best=5) != parse_rating("[[6]]", best=5)


def test_a_principle_depends_on_seed_and_row_alone_and_all_are_drawn():
    constitution = ["be kind", "be brief", "be true"]
    drawn = [principle_of(constitution, "pairwise", 0, row) for row in range(600)]
    assert drawn == [principle_of(constitution, "pairwise", 0, row) for row in range(600)]
    assert drawn != [principle_of(constitution, "pairwise", 1, row) for row in range(600)]
    assert all(150 < count < 250 for count in Counter(drawn).values()) and set(drawn) == set(constitution)


def test_braces_inside_an_answer_are_not_filled_in():
    assert render("{prompt}: {first} {other}", prompt="{first}", first="{prompt}") == "{first}: {prompt} {other}"


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_default_templates_have_the_fields_of_their_kind(kind):
    assert fields(template_of(kind, None)) == NEEDED[kind] | ALLOWED[kind]


def test_a_dialogue_is_shown_with_its_roles_and_a_single_question_bare():
    turns = (
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "why"},
    )
    assert request_of(Prompt((1,), "why", 0, {}, turns)) == "user: hi\n\nassistant: yes?\n\nuser: why"
    assert request_of(Prompt((1,), "why", 0, {}, turns[-1:])) == "why"
