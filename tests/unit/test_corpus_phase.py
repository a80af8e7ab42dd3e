"""The corpus phase in this process, through the controller: its artifact, when it runs again, and mixtures."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data.corpus.document import read_documents
from data.errors import UserError
from data.tokenizer import load_tokenizer
from data.tokenizer_training import train_tokenizer
from data.tokens.store import TokenStore
from rlhf.config.schema import Config
from rlhf.controller import Controller
from rlhf.corpus.mixing import corpus_rows
from rlhf.phases.supervised_rows import rows_wanted

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "have",
    "from",
    "or",
    "one",
    "had",
    "by",
    "word",
    "but",
    "not",
    "what",
]


def text(number: int) -> str:
    return " ".join(WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(30)) + f" {number}"


@pytest.fixture
def files(tmp_path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    for name, numbers in (("one", range(40)), ("two", range(40, 60)), ("known", [0, 1])):
        rows = [json.dumps({"text": text(number)}) for number in numbers]
        (root / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return root


def config(files: Path, corpus: dict[str, Any] | None = None, pretrain: dict[str, Any] | None = None) -> Config:
    sources = [
        {"name": "one", "path": str(files / "one.jsonl"), "weight": 0.25},
        {"name": "two", "path": str(files / "two.jsonl")},
        {"name": "known", "path": str(files / "known.jsonl"), "reference": True},
    ]
    made = {"kind": "corpus", "sources": sources, "steps": ["exact_duplicates"], "tokenizer": {"vocab_size": 300}}
    trained = {"kind": "pretrain", "data": "phase:corpus", "max_length": 16, "batch_size": 4, **(pretrain or {})}
    return Config.model_validate(
        {
            "run": {"output": str(files.parent / "run")},
            "pools": {"train": {}},
            "models": {"policy": {"architecture": {"model_type": "llama"}}},
            "phases": [{**made, "holdout": 0.2, **(corpus or {})}, trained],
        }
    )


def make(settings: Config) -> str:
    """Runs the corpus phase; what it told."""
    console = Console(file=io.StringIO(), width=200)
    Controller(settings, lambda: pytest.fail("no cluster is needed"), console=console).run(names=("corpus",))
    return console.file.getvalue()


def artifact(files: Path) -> Path:
    return files.parent / "run/artifacts/corpus"


def test_it_leaves_documents_tokens_tokenizer_and_report(files):
    make(config(files))
    documents = [d for file in sorted(artifact(files).glob("documents/*")) for d in read_documents(file)]
    assert [document.text for document in documents] == [text(number) for number in range(2, 60)]
    report = json.loads((artifact(files) / "report.json").read_text())
    assert [(source["name"], source["read"], source["documents"]) for source in report["sources"]] == [
        ("known", 2, 2),
        ("one", 40, 38),
        ("two", 20, 20),
    ]
    assert report["steps"][1]["reasons"] == {"exact duplicate of source known": 2}
    store = TokenStore.open(artifact(files) / "tokens")
    assert set(store.trained) == {"one", "two"}
    counts = [sum(stream.documents for stream in part.values()) for part in (store.trained, store.held_out)]
    assert sum(counts) == 58 and 3 <= counts[1] <= 22
    assert load_tokenizer(artifact(files)).decode(store.trained["one"].files[0].ids[:5])
    assert not (files.parent / "run/checkpoints/corpus").exists()


def test_it_is_made_again_where_its_inputs_changed_and_not_for_a_weight(files):
    assert "done before" not in make(config(files))
    assert "done before" in make(config(files))
    settings = config(files).model_dump()
    settings["phases"][0]["sources"][0]["weight"] = 0.5
    assert "done before" in make(Config.model_validate(settings))
    (files / "two.jsonl").write_text(json.dumps({"text": text(99)}) + "\n")
    assert "done before" not in make(config(files))
    os.utime(files / "two.jsonl", ns=(1, 1))
    assert "done before" not in make(config(files))
    assert "done before" not in make(config(files, {"steps": []}))


def test_a_corpus_without_documents_left_says_why(files):
    (files / "one.jsonl").write_bytes(b"")
    (files / "two.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"phases.corpus: no document is left: .*one.jsonl"):
        make(config(files))
    for file in files.iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"phases.corpus: nothing can be read: 3 files could not be read, the first known"
    ):
        make(config(files))


def test_without_a_tokenizer_there_are_documents_alone(files):
    make(config(files, {"tokenizer": None}))
    assert not (artifact(files) / "tokens").exists()
    assert list(artifact(files).glob("documents/*.parquet"))


def test_a_directory_of_other_inputs_is_deleted(files):
    (files.parent / "run/checkpoints/corpus").mkdir(parents=True)
    (files.parent / "run/checkpoints/corpus/CURRENT").write_text("step-1")
    make(config(files))


def rows_of(files: Path, pretrain: dict[str, Any] | None = None, tokenizer=None):
    settings = config(files, None, pretrain)
    corpus, phase = settings.phases
    tokenizer = tokenizer or load_tokenizer(artifact(files))
    arguments = {"total_rows": rows_wanted(phase), "held_out_windows": phase.data.holdout}
    return corpus_rows(artifact(files), corpus, phase.mixture, tokenizer, phase.max_length, 0, **arguments)


@pytest.mark.parametrize(
    ("mixture", "share"),
    [
        ({}, 0.25),
        ({"weights": {"one": 3, "two": 1}}, 0.75),
        ({"weights": {"two": 0.9}}, 0.1),
        ({"weights": {"one": 0, "two": 1}}, 0),
    ],
)
def test_sources_have_their_weights_and_the_others_the_rest(files, mixture, share):
    make(config(files))
    train, _ = rows_of(files, {"mixture": mixture, "steps": 250})
    taken = [train.rows(unit)[0].meta["source"] for unit in range(1000)]
    assert taken.count("one") / 1000 == pytest.approx(share, abs=0.01)


def test_a_schedule_ends_with_the_last_step(files):
    make(config(files))
    schedule = [[0, {"one": 1, "two": 0}], [1, {"one": 0, "two": 1}]]
    train, _ = rows_of(files, {"mixture": {"schedule": schedule}, "steps": 250})
    taken = [train.rows(unit)[0].meta["source"] for unit in range(1000)]
    assert taken[:250].count("one") == pytest.approx(219, abs=5)  # 7/8
    assert taken[750:].count("one") == pytest.approx(31, abs=5)
    assert taken.count("one") == pytest.approx(500, abs=15)


def test_the_config_sets_the_number_of_held_out_windows(files):
    make(config(files))
    _, every = rows_of(files)
    _, few = rows_of(files, {"data": {"path": "phase:corpus", "holdout": 3}})
    assert len(few) == 3 < len(every)
    assert {unit.meta["source"] for number in range(3) for unit in few.rows(number)} == {"one", "two"}


def test_a_model_with_another_tokenizer_is_refused(files):
    make(config(files))
    with pytest.raises(UserError, match="its tokens were made by another tokenizer"):
        rows_of(files, tokenizer=train_tokenizer(["other words"], 300))
