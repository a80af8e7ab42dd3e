"""Repeated spans of sentences are removed from all documents but the first; everything else stays, in order."""

import random
from collections import Counter

import pytest
from corpus_stages import (
    Killed,
    document,
    dropped,
    files_of,
    killed_at,
    outcomes,
    prepared,
    shuffled,
    speeches,
    stage_of,
)

from data.corpus.dedup import repeats
from data.corpus.dedup.sentences import SentenceDuplicates, without_sentences
from data.corpus.document import Document
from data.corpus.words import WORDS
from data.errors import UserError

NOTICE = (
    "All rights reserved by the owner of this site. Do not copy any of its pages. "
    "Write to the office for a licence. The office is closed on Sundays."
)


def sentence(number: int, tag: str) -> str:
    return f"Sentence {number} of document {tag} tells something that no other one tells."


def with_notice(tag: str, at: int) -> str:
    """Six sentences of its own in three paragraphs, the notice as a paragraph of its own before number `at`."""
    paragraphs = [f"{sentence(2 * number, tag)} {sentence(2 * number + 1, tag)}" for number in range(3)]
    return "\n\n".join(paragraphs[:at] + [NOTICE] + paragraphs[at:])


def texts(results) -> dict[tuple[int, int], str]:
    return {place: each.text for place, each in results.items() if isinstance(each, Document)}


def cleaned(directory, units, step: SentenceDuplicates | None = None):
    stage = stage_of(directory / "stage", units)
    return outcomes(prepared(step or SentenceDuplicates(), stage, directory / "work"), stage)


def test_a_planted_notice_stays_in_the_first_document_alone(tmp_path):
    tags = [f"{unit}-{row}" for unit in range(3) for row in range(20)]
    units = [
        ("a", [with_notice(tag, number % 4) for number, tag in enumerate(tags[20 * unit :][:20])]) for unit in range(3)
    ]
    left = texts(cleaned(tmp_path, units))
    assert len(left) == 60
    for (unit, row), text in left.items():
        original = units[unit][1][row]
        if (unit, row) == (0, 0):
            assert text == original
        else:
            assert text.split("\n\n") == [each for each in original.split("\n\n") if each != NOTICE]


def test_case_accents_and_punctuation_do_not_hide_a_repetition_but_a_number_does(tmp_path):
    other = NOTICE.upper().replace("OFFICE", "ÓFFICE").replace(". ", "!  ")
    born = [
        f"He was born in {year} in a town. He went to school there. He died {year + 70} in the same town."
        for year in (1801, 1912)
    ]
    left = texts(
        cleaned(tmp_path, [("a", [with_notice("x", 0), f"{sentence(0, 'y')} {sentence(1, 'y')} {other}", *born])])
    )
    assert left[0, 1] == f"{sentence(0, 'y')} {sentence(1, 'y')}"
    assert [left[0, 2], left[0, 3]] == born


def test_fewer_repeated_sentences_than_a_span_stay(tmp_path):
    two = "Terms apply to this offer. See the page of terms."
    held = [f"{sentence(0, tag)} {two} {sentence(1, tag)}" for tag in "pq"]
    assert list(texts(cleaned(tmp_path / "3", [("a", held)])).values()) == held
    left = texts(cleaned(tmp_path / "2", [("a", held)], SentenceDuplicates(sentences=2)))
    assert left[0, 1] == f"{sentence(0, 'q')} {sentence(1, 'q')}"


def test_a_refrain_stays_once_as_a_whole(tmp_path):
    refrain = "Row the boat. " * 9
    text = f"{sentence(0, 'r')} {refrain}{sentence(1, 'r')}"
    left = texts(cleaned(tmp_path, [("a", [text])]))
    assert left[0, 0].count("Row the boat.") == 3
    assert left[0, 0].startswith(sentence(0, "r")) and left[0, 0].endswith(sentence(1, "r"))


def test_a_document_of_repeats_is_dropped_and_a_short_one_without_any_stays(tmp_path):
    results = cleaned(tmp_path, [("a", [NOTICE, NOTICE, NOTICE + " And yet.", "Short. It is. Really."])])
    reason = "nothing left but repeated sentences"
    assert dropped(results) == {(0, 1): reason, (0, 2): reason}


def test_a_short_document_stays_if_it_has_the_first_occurrence_of_a_span(tmp_path):
    one, two, three = (f"The {name} rang. The {name} fell. The {name} broke." for name in ("bell", "cup", "door"))
    left = texts(cleaned(tmp_path, [("a", [one, f"{one} {two}"]), ("b", [f"{two} {three}", f"{one} {two} Yes."])]))
    assert left == {(0, 0): one, (0, 1): two}


def test_a_first_occurrence_made_of_repeated_sentences_is_removed(tmp_path):
    """Its span of B and C stands nowhere before, but each of its sentences does."""
    letters = {letter: f"The letter {letter} is here." for letter in "abcdef"}
    held = [" ".join(letters[letter] for letter in name) for name in ("abc", "def", "abcdef", "bcd")]
    results = cleaned(tmp_path, [("a", held)])
    assert dropped(results).keys() == {(0, 2), (0, 3)}
    assert list(texts(results).values()) == held[:2]


def test_code_and_dialogues_are_not_touched_by_default(tmp_path):
    held = [
        document(NOTICE, "a", row, kind)
        for row, kind in enumerate(["code", "code", "dialogue", "dialogue", "web", "web"])
    ]
    assert dropped(cleaned(tmp_path, [("a", held)])).keys() == {(0, 5)}


def test_the_mark_counts_the_removed_sentences(tmp_path):
    held = [NOTICE, document(with_notice("x", 2), "a", 1, marks={"score": 1})]
    assert cleaned(tmp_path, [("a", held)])[0, 1].marks == {"score": 1, "repeated_sentences": 4}


def spans_by_brute_force(held: list[str], span: int) -> Counter:
    counted: Counter = Counter()
    for text in held:
        plain = ["".join(c for c in one.lower() if c.isalnum()) for one in WORDS.sent_tokenize(text)]
        counted.update({tuple(plain[start : start + span]) for start in range(len(plain) - span + 1)})
    return counted


def test_real_text_keeps_no_repeated_span_and_every_sentence_once(tmp_path):
    held = speeches(300, 60)
    rng = random.Random(3)
    quoted = [WORDS.sent_tokenize(text) for text in held[:60]]
    for place in range(100, 160):
        passage = next(each for each in quoted[rng.randrange(60) :] + quoted if len(each) >= 3)
        held[place] += "\n\n" + " ".join(passage)
    assert sum(count > 1 for count in spans_by_brute_force(held, 3).values()) > 50
    left = texts(cleaned(tmp_path, [("a", held[:150]), ("b", held[150:])], SentenceDuplicates(least_words=0)))
    assert max(spans_by_brute_force(list(left.values()), 3).values()) == 1
    before, after = ({one for text in each for one in WORDS.sent_tokenize(text)} for each in (held, left.values()))
    assert before == after


def test_order_and_interruption_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "RANGE_BYTES", 900)
    stage = stage_of(
        tmp_path / "stage", [(name, [with_notice(f"{name}{row}", row % 4) for row in range(15)]) for name in "abc"]
    )
    expected = outcomes(prepared(SentenceDuplicates(), stage, tmp_path / "whole"), stage)
    for name, count in (("sentences", 1), ("ranges", 4)):
        directory = tmp_path / name
        with pytest.raises(Killed):
            prepared(SentenceDuplicates(), stage, directory, killed_at(name, count))
        assert outcomes(prepared(SentenceDuplicates(), stage, directory, shuffled(4)), stage) == expected
        assert files_of(directory) == files_of(tmp_path / "whole")


def test_the_larger_gap_stays_around_a_removed_sentence():
    text = "  One. Two.\n\nThree.\nFour. "
    spans = WORDS.span_tokenize(text)
    assert [text[start:stop] for start, stop in spans] == ["One.", "Two.", "Three.", "Four."]
    assert without_sentences(text, spans, {1}) == "One.\n\nThree.\nFour."
    assert without_sentences(text, spans, {0, 3}) == "Two.\n\nThree."
    assert without_sentences(text, spans, {0, 1, 2, 3}) == ""


def test_a_span_without_sentences_is_refused():
    with pytest.raises(UserError, match="sentences is 0"):
        SentenceDuplicates(sentences=0)
