"""The pipeline itself: every document is accounted for, whatever the order of the pieces and however often it is interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.corpus.clean import EXTRACT, clean
from data.corpus.document import read_documents
from data.corpus.source import CorpusSource
from data.corpus.step import Dropped, Preparation, Single, Stage
from data.corpus.tally import CHANGED, EXAMPLES
from data.corpus.units import plan_units
from data.corpus.work import Work, in_this_process


@dataclass(frozen=True, kw_only=True)
class NoDigits(Single):
    def look(self, document):
        return Dropped("has digits") if any(c.isdigit() for c in document.text) else document


@dataclass(frozen=True, kw_only=True)
class Shout(Single):
    def look(self, document):
        return replace(document, text=document.text.upper())


@dataclass(frozen=True, kw_only=True)
class Count:
    stage: Stage

    def __call__(self, unit):
        return sum(1 for _ in self.stage.read(unit))


@dataclass(frozen=True, kw_only=True)
class Numbered(Single):
    total: int
    figures: object = None

    def look(self, document):
        return replace(document, marks={"of": self.total})


@dataclass(frozen=True, kw_only=True)
class Numbering(Preparation):
    """Knows the whole corpus before it looks at any document."""

    def prepare(self, stage, work):
        total = sum(work.map("count", Count(stage=stage), stage.units))
        return Numbered(total=total, figures={"total": total}, kinds=self.kinds, sources=self.sources)


def sources(root: Path) -> list[CorpusSource]:
    for name, texts in (("first", ["one", "two 2", "three", "four"]), ("second", ["five", "six 6", "seven"])):
        (root / name).mkdir(exist_ok=True)
        rows = [json.dumps({"text": text}) for text in texts]
        (root / name / "a.jsonl").write_text("\n".join(rows[:2]) + "\n")
        (root / name / "b.jsonl").write_text("\n".join(rows[2:]) + "\n")
    return [CorpusSource(name, (str(root / name),), "text") for name in ("first", "second")]


STEPS = [("no_digits", NoDigits()), ("numbering", Numbering()), ("shout", Shout(sources=("second",)))]


def run(root: Path, execute=in_this_process, steps=STEPS, unit_bytes: int = 1):
    units, quarantined = plan_units(sources(root), unit_bytes)
    assert not quarantined
    work = Work(root / "work", seed=0, execute=execute)
    work.directory.mkdir(exist_ok=True)
    return clean(units, steps, work, 2**20)


def documents(cleaned) -> list:
    return [document for unit in cleaned.stage.units for document in read_documents(cleaned.stage.path(unit))]


def shards(cleaned) -> list[bytes]:
    return [cleaned.stage.path(unit).read_bytes() for unit in cleaned.stage.units]


def test_documents_pass_the_steps_in_their_order(tmp_path):
    cleaned = run(tmp_path)
    assert [document.text for document in documents(cleaned)] == ["one", "three", "four", "FIVE", "SEVEN"]
    assert all(document.marks == {"of": 5} for document in documents(cleaned))
    assert cleaned.figures == {"numbering": {"total": 5}}


def test_every_document_is_kept_or_dropped_with_a_reason(tmp_path):
    cleaned = run(tmp_path)
    extracted, no_digits, numbering, shout = cleaned.tallies
    assert (extracted.name, extracted.seen, extracted.kept) == (EXTRACT, 7, 7)
    assert (no_digits.seen, no_digits.kept, dict(no_digits.reasons)) == (7, 5, {"has digits": 2})
    assert (shout.seen, shout.passed_by, shout.changed, numbering.changed) == (2, 3, 2, 0)
    for tally in cleaned.tallies:
        assert tally.seen == tally.kept + tally.dropped
    assert [tallies[0].seen for tallies in cleaned.by_source.values()] == [4, 3]


def test_examples_show_dropped_texts_and_changed_texts_after_the_change(tmp_path):
    _, no_digits, _, shout = run(tmp_path).tallies
    assert no_digits.examples["has digits"][0] == {"id": "first/a.jsonl#16", "text": "two 2"}
    assert shout.examples[CHANGED][0]["text"] == "FIVE"
    assert len(no_digits.examples["has digits"]) <= EXAMPLES


def test_the_order_of_the_pieces_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()

    def backwards(pieces):
        for piece in reversed(pieces):
            yield piece.run()

    assert shards(run(tmp_path / "a")) == shards(run(tmp_path / "b", backwards))


def test_an_interrupted_run_continues_with_the_same_result(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = shards(run(tmp_path / "a"))
    ran = []

    def dies_after(count):
        def execute(pieces):
            for piece in pieces:
                if len(ran) == count:
                    raise KeyboardInterrupt
                piece.run()
                ran.append(str(piece.mark))
                yield

        return execute

    for count in range(1, 12):  # every piece of the two passes and of the preparation, one after the other
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "b", dies_after(count))
    assert shards(run(tmp_path / "b")) == whole
    assert len(ran) == len(set(ran)), "a piece ran twice"


def test_only_the_documents_of_the_last_pass_stay_on_disk(tmp_path):
    run(tmp_path)
    assert not (tmp_path / "work" / "pass-0").exists()
    assert (tmp_path / "work" / "pass-1").exists()


def test_larger_units_hold_the_same_documents(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    small, large = run(tmp_path / "a"), run(tmp_path / "b", unit_bytes=2**20)
    assert len(large.stage.units) == 2 < len(small.stage.units)
    assert documents(small) == documents(large)
