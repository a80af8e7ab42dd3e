"""Exact duplicates: all are found, the first stays, the reason names where, and nothing depends on order or interruptions."""

import random
import unicodedata

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
from data.corpus.dedup.exact import ExactDuplicates, text_digest
from data.corpus.step import Stage


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Stage, dict[tuple[int, int], tuple[int, int]]]:
    """Four units of three sources with 150 repetitions, and what the first of each is, found by a dict."""
    rng = random.Random(5)
    texts = speeches(450, 5)
    texts += [rng.choice(texts[:300]) for _ in range(150)]
    rng.shuffle(texts)
    units = [("book", texts[:150]), ("wiki", texts[150:300]), ("wiki", texts[300:450]), ("web", texts[450:])]
    stage = stage_of(tmp_path_factory.mktemp("exact") / "stage", units)
    first: dict[str, tuple[int, int]] = {}
    repeated = {}
    for unit, (_, held) in enumerate(units):
        for row, text in enumerate(held):
            if text in first:
                repeated[unit, row] = first[text]
            first.setdefault(text, (unit, row))
    return stage, repeated


def test_every_repeat_is_dropped_and_nothing_else(planted, tmp_path):
    stage, repeated = planted
    found = dropped(outcomes(prepared(ExactDuplicates(), stage, tmp_path), stage))
    assert found.keys() == repeated.keys() and len(found) == 150
    for (unit, row), reason in found.items():
        kept = stage.sources[repeated[unit, row][0]]
        within = kept == stage.sources[unit]
        assert reason == ("exact duplicate within its source" if within else f"exact duplicate of source {kept}")
    assert len(set(found.values())) == 3


def test_any_number_of_ranges_in_any_order_finds_the_same(planted, tmp_path, monkeypatch):
    stage, _ = planted
    expected = dropped(outcomes(prepared(ExactDuplicates(), stage, tmp_path / "one"), stage))
    monkeypatch.setattr(repeats, "RANGE_BYTES", 700)
    step = prepared(ExactDuplicates(), stage, tmp_path / "many", shuffled(1))
    assert step.parts == 24
    assert dropped(outcomes(step, stage)) == expected


@pytest.mark.parametrize(("name", "count"), [("texts", 2), ("ranges", 3)])
def test_a_killed_run_continues_to_the_same_files(planted, tmp_path, monkeypatch, name, count):
    stage, _ = planted
    monkeypatch.setattr(repeats, "RANGE_BYTES", 3000)
    prepared(ExactDuplicates(), stage, tmp_path / "whole")
    with pytest.raises(Killed):
        prepared(ExactDuplicates(), stage, tmp_path / "broken", killed_at(name, count))
    (tmp_path / "broken/hashes/.00003.high.npy.1.partial").write_bytes(b"half")
    prepared(ExactDuplicates(), stage, tmp_path / "broken", shuffled(2))
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "whole")


def test_a_finished_preparation_does_not_need_the_documents_again(planted, tmp_path):
    stage, repeated = planted
    prepared(ExactDuplicates(), stage, tmp_path)
    gone = Stage(tmp_path / "removed since", stage.sources)
    assert dropped(outcomes(prepared(ExactDuplicates(), gone, tmp_path), stage)).keys() == repeated.keys()


def test_white_space_and_composed_accents_do_not_count_but_case_does(tmp_path):
    text = "Élan vital, said he.\nNo more."
    variants = [text, unicodedata.normalize("NFD", text).replace("\n", " \n\t "), text + "\n", text.lower()]
    stage = stage_of(tmp_path / "stage", [("a", variants)])
    assert dropped(outcomes(prepared(ExactDuplicates(), stage, tmp_path / "1"), stage)).keys() == {(0, 1), (0, 2)}
    as_is = ExactDuplicates(normalise=False)
    assert not dropped(outcomes(prepared(as_is, stage, tmp_path / "2"), stage))


def test_documents_of_other_kinds_are_neither_dropped_nor_compared(tmp_path):
    stage = stage_of(
        tmp_path / "stage",
        [
            ("notes", [document("same", "notes", 0), document("same", "notes", 1, kind="code")]),
            ("web", ["same", "same"]),
        ],
    )
    code = prepared(ExactDuplicates(kinds=("code",)), stage, tmp_path / "1")
    assert not dropped(outcomes(code, stage))
    web = prepared(ExactDuplicates(sources=("web",)), stage, tmp_path / "2")
    assert dropped(outcomes(web, stage)) == {(1, 1): "exact duplicate within its source"}


def test_units_may_be_empty(tmp_path):
    stage = stage_of(tmp_path / "stage", [("a", []), ("b", ["one", "one"]), ("c", [])])
    assert dropped(outcomes(prepared(ExactDuplicates(), stage, tmp_path / "1"), stage)).keys() == {(1, 1)}


def test_the_digest_of_a_long_text_does_not_depend_on_the_blocks():
    words = "lorem ipsum dolor " * 200_000
    assert text_digest(words, True) == text_digest(words.replace(" ", "  \n"), True)
    assert text_digest(words, True) != text_digest(words + "sit", True)
    assert text_digest("x" * 3_000_000 + " y", True) == text_digest("x" * 3_000_000 + "\ny\n", True)
    assert text_digest("ab c", True) != text_digest("a bc", True)
