"""Gopher, C4 and FineWeb as steps: they decide as datatrove does, drop planted boilerplate, and say why."""

import gzip
import inspect
import json
import pickle
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from corpus_stages import document
from data_cases import shared_file
from datatrove.data import Document as Page
from datatrove.pipeline import filters
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpus.heuristics import C4, REASONS, C4Paragraphs, FineWeb, GopherQuality, GopherRepetition
from data.corpus.step import Dropped
from data.corpus.words import datatrove_words

PAIRS = [
    (GopherQuality(), filters.GopherQualityFilter(language=datatrove_words())),
    (GopherRepetition(), filters.GopherRepetitionFilter(language=datatrove_words())),
    (C4(), filters.C4QualityFilter(language=datatrove_words())),
    (C4Paragraphs(), filters.C4ParagraphFilter()),
    (FineWeb(), filters.FineWebQualityFilter(language=datatrove_words())),
]
GOOD = (
    "The harbour of the old town lies at the mouth of a river that freezes in most winters.\n"
    "In spring, when the ice has gone, boats carry timber and grain to the villages upstream.\n"
    "Nobody knows who built the stone quay, but its oldest part is mentioned in a letter of 1324.\n"
    "Fishermen still sell their catch there on Friday mornings, before the market opens.\n"
    "Have you ever tasted smoked eel with black bread and mustard?\n"
    "Visitors should bring warm clothes, because the wind from the sea is cold even in July.\n"
)


@cache
def real_texts() -> tuple[str, ...]:
    play = Path(shared_file("tinyshakespeare.txt")).read_text()
    pieces = [play[start : start + 3000] for start in range(0, 300_000, 3000)]
    answers = [json.loads(line)["answer"] for line in Path(shared_file("gsm8k_test.jsonl")).read_text().splitlines()]
    with gzip.open(shared_file("hh_harmless.jsonl.gz"), "rt") as file:
        dialogues = [json.loads(line)["chosen"] for line, _ in zip(file, range(200))]
    return (*pieces, *answers[:200], *dialogues)


@pytest.mark.parametrize(("step", "theirs"), PAIRS, ids=lambda value: type(value).__name__)
def test_a_step_decides_on_real_texts_as_datatroves_filter(step, theirs):
    decided = set()
    for text in real_texts():
        page = Page(text=text, id="x")
        expected = theirs.filter(page)
        found = step.look(document(text))
        if expected is True:
            assert found.text == page.text
        else:
            assert found == Dropped(REASONS[expected[1]])
        decided.add(expected)
    assert len(decided) > 1 or isinstance(step, C4Paragraphs), "the texts do not try this rule"


@pytest.mark.parametrize(
    "step", [GopherQuality(), GopherRepetition(), C4(), FineWeb()], ids=lambda value: type(value).__name__
)
def test_a_good_text_is_kept_as_it_is(step):
    good = document(GOOD.strip())
    assert step.look(good) is good


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        (C4(), GOOD + "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "lorem ipsum"),
        (C4(), GOOD + "function f(x) { return x; } is what it says here.", "curly bracket"),
        (C4(), "Home\nAbout us\nContact\nBlog\nLogin", "too few sentences"),
        (C4(), "Please enable JavaScript to see this page.\n" * 9, "too few sentences"),
        (C4(min_num_sentences=-1), "Home\nAbout us", "no text"),
        (GopherQuality(), "Only these few words.", "too few words"),
        (GopherQuality(max_doc_words=50), GOOD, "too many words"),
        (GopherQuality(), "a b c of the d e " * 20, "words too short"),
        (GopherQuality(), "internationalization with the incomprehensibilities " * 30, "words too long"),
        (GopherQuality(), GOOD + "# tag " * 30, "too many # signs"),
        (GopherQuality(), GOOD + "more... " * 30, "too many ellipses"),
        (GopherQuality(), "\n".join(f"- {line}" for line in GOOD.splitlines()), "too many lines with a bullet"),
        (GopherQuality(), GOOD.replace(".\n", "...\n"), "too many lines that end in an ellipsis"),
        (GopherQuality(), GOOD + " 3141 * 2718 = 8537238" * 20, "too few words with letters"),
        (GopherQuality(), "Katzen schlafen tagsüber gerne lange draußen. " * 10, "too few stop words"),
        (GopherRepetition(), "Subscribe to our newsletter!\n" * 5 + GOOD, "repeated lines"),
        (GopherRepetition(), (GOOD + "\n\n") * 3, "repeated paragraphs"),
        (GopherRepetition(), GOOD + "buy cheap watches " * 50, "one phrase of 2 words again and again"),
        (GopherRepetition(top_n_grams=()), GOOD + "buy cheap watches " * 50, "repeated phrases of 5 words"),
        (FineWeb(), "Home\nAbout us\nContact\nBlog\nLogin\nCart", "too few lines that end in punctuation"),
        (FineWeb(), "Yes.\nNo.\nPerhaps.\nNever again.", "too many short lines"),
        (FineWeb(), GOOD + GOOD, "repeated lines, by their length"),
        (FineWeb(short_line_thr=1), "Yes.\nNo.\nPerhaps.\nNever.", "too many lines for its words"),
        (C4Paragraphs(), GOOD, "too few long lines"),
        *((step, text, "no text") for step in (GopherQuality(), FineWeb(), C4()) for text in ("", " \n\t\n")),
    ],
)
def test_planted_boilerplate_is_dropped_and_the_reason_is_plain(step, text, reason):
    assert step.look(document(text)) == Dropped(reason)


def test_c4_removes_lines_that_are_no_text_and_citation_marks():
    lines = GOOD.splitlines()
    planted = [
        "Home | About | Contact",
        lines[0],
        "This site uses cookies to improve your experience.",
        "Read our privacy policy before you go on.",
        lines[1] + "[1]",
        "You need JavaScript to use this page.",
        *lines[2:4],
        "Too short.",
        "x" * 1001 + " is far too long a word.",
        *lines[4:],
        "Share this article",
        "Continue reading this story...",
    ]
    seen = document("\n".join(planted))
    found = C4().look(seen)
    assert found == replace(seen, text="\n".join([lines[0], lines[1], *lines[2:]]).strip())


def test_parameters_reach_the_rule():
    short = document("The cat sat with the dog and that was that.")
    assert isinstance(GopherQuality().look(short), Dropped)
    assert GopherQuality(min_doc_words=5).look(short) is short
    german = document("Katzen schlafen tagsüber gerne lange draußen. " * 10)
    assert GopherQuality(stop_words=("gerne", "lange")).look(german) is german
    assert GopherQuality(min_stop_words=None).look(german) is german


def test_rules_for_lines_leave_plain_text_alone_and_none_looks_at_code():
    assert GopherQuality().meant_for(document("x", kind="text"))
    assert not GopherQuality().meant_for(document("x", kind="code"))
    assert [step.meant_for(document("x", kind="web")) for step in (C4(), C4Paragraphs(), FineWeb())] == [True] * 3
    assert not any(step.meant_for(document("x", kind="text")) for step in (C4(), C4Paragraphs(), FineWeb()))


@pytest.mark.parametrize(("step", "theirs"), PAIRS, ids=lambda value: type(value).__name__)
def test_a_step_can_be_pickled(step, theirs):
    step.look(document(GOOD))
    there = pickle.loads(pickle.dumps(step))
    assert there == step
    assert there.look(document(GOOD * 2)) == step.look(document(GOOD * 2))


@settings(max_examples=50, deadline=None)
@given(st.text(st.sampled_from("a文 ั́!.·_\n#…-") | st.characters(), max_size=30))
@pytest.mark.filterwarnings("error")
def test_no_text_breaks_a_rule(text):
    for step in (
        GopherQuality(min_doc_words=1),
        GopherRepetition(),
        C4(min_num_sentences=-1),
        C4Paragraphs(),
        FineWeb(),
    ):
        step.look(document(text))


def test_every_reason_of_datatrove_has_plain_words():
    codes = set()
    for _, theirs in PAIRS:
        codes |= set(re.findall(r'return False, "([^"]+)"', inspect.getsource(type(theirs).filter)))
    assert len(codes) > 15
    assert codes <= set(REASONS)
